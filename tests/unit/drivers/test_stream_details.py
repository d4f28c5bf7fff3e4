"""Details of brokers as people keep them, and messages as rows."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from bettong.domain.drivers import Message, ReadRequest
from bettong.drivers.jetstream import NatsDetails
from bettong.drivers.mqtt import MqttDetails
from bettong.drivers.rabbitmq import RabbitMqDetails
from bettong.drivers.redis_streams import RedisDetails
from bettong.drivers.streams import Stored, StreamDetails, StreamSource, host_and_port
from bettong.errors import BadInput


def test_a_uri_of_redis_stands_for_all_of_its_parts() -> None:
    details = RedisDetails.model_validate({"uri": "rediss://me:p%40ss@cache.example:6380/3"})

    assert (details.host, details.port, details.user, details.database) == ("cache.example", 6380, "me", 3)
    assert (details.password.get_secret_value(), details.ssl) == ("p@ss", "verify")


def test_what_is_given_besides_a_uri_counts_more() -> None:
    details = RedisDetails.model_validate({"uri": "redis://cache.example:6380/3", "database": 5, "ssl": "require"})

    assert (details.port, details.database, details.ssl) == (6380, 5, "require")


def test_a_uri_of_nats_holds_a_login_or_a_token() -> None:
    login = NatsDetails.model_validate({"servers": "tls://me:pass@nats.example"})
    token = NatsDetails.model_validate({"uri": "nats://t0k3n@nats.example:4223"})

    assert (login.user, login.password.get_secret_value(), login.port, login.ssl) == ("me", "pass", 4222, "verify")
    assert (token.user, token.token.get_secret_value(), token.port, token.ssl) == ("", "t0k3n", 4223, "disable")


def test_a_uri_of_mqtt_knows_the_ports_of_both_ways() -> None:
    plain = MqttDetails.model_validate({"uri": "mqtt://me:p%40ss@broker.example"})
    secure = MqttDetails.model_validate({"url": "mqtts://broker.example"})

    assert (plain.host, plain.port, plain.user, plain.ssl) == ("broker.example", 1883, "me", "disable")
    assert plain.password.get_secret_value() == "p@ss"
    assert (secure.port, secure.ssl) == (8883, "verify")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ssl": "verify", "ssl_certificate": "C"}, "go together"),
        ({"ssl": "verify", "ssl_key": "secret-text"}, "go together"),
        ({"ssl_certificate": "C", "ssl_key": "secret-text"}, "needs TLS"),
    ],
)
def test_a_certificate_of_ours_comes_with_its_key_and_for_tls(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said) as refused:
        MqttDetails.model_validate({"host": "broker.example", **given})

    assert "secret-text" not in str(refused.value)


def test_a_uri_of_rabbitmq_holds_a_vhost_and_its_port_follows_from_tls() -> None:
    whole = RabbitMqDetails.model_validate({"uri": "amqps://me:p%40ss@mq.example/%2Fmine"})
    short = RabbitMqDetails.model_validate({"url": "amqp://me@mq.example"})
    besides = RabbitMqDetails.model_validate({"uri": "amqp://me:p@mq.example:5673/a", "virtual_host": "b"})

    assert (whole.host, whole.port, whole.vhost, whole.ssl) == ("mq.example", 5671, "/mine", "verify")
    assert (whole.user, whole.password.get_secret_value()) == ("me", "p@ss")
    assert (short.port, short.vhost, short.ssl) == (5672, "/", "disable")
    assert (besides.port, besides.vhost) == (5673, "b")


def test_details_of_rabbitmq_in_fields_and_what_browsing_shows() -> None:
    login = {"host": "mq.example", "username": "me"}
    plain = RabbitMqDetails.model_validate({**login, "queues": ["a", "b"], "topic": "b"})
    secure = RabbitMqDetails.model_validate({**login, "ssl": "require", "queues": "a, c", "topic": "d"})

    assert (plain.port, plain.shown) == (5672, ["a", "b"])
    assert (secure.port, secure.shown) == (5671, ["a", "c", "d"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ssl_certificate": "cert", "ssl": "verify"}, "go together"),
        ({"ssl_certificate": "cert", "ssl_key": "secret-text"}, "needs TLS"),
        ({"uri": "amqp://secret-text"}, "user"),
    ],
)
def test_what_is_missing_beside_others_in_details_of_rabbitmq_is_told(change: dict[str, str], said: str) -> None:
    login = {} if "uri" in change else {"host": "h", "user": "u"}
    with pytest.raises(ValidationError, match=said) as refused:
        RabbitMqDetails.model_validate({**login, **change})

    assert "secret-text" not in str(refused.value)


@pytest.mark.parametrize("model", [RedisDetails, NatsDetails, MqttDetails])
@pytest.mark.parametrize("uri", ["secret-text", "http://secret-text", "redis://", "nats://:99999999@secret-text:x"])
def test_a_uri_that_is_none_is_refused_without_repeating_it(model: type[StreamDetails], uri: str) -> None:
    with pytest.raises(ValidationError) as refused:
        model.model_validate({"uri": uri})

    assert "secret-text" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("host", ("host", 1)),
        (" host:2 ", ("host", 2)),
        ("10.0.0.1:3", ("10.0.0.1", 3)),
        ("[::1]:4", ("::1", 4)),
        ("::1", ("::1", 1)),
    ],
)
def test_hosts_are_read_with_and_without_a_port(text: str, found: tuple[str, int]) -> None:
    assert host_and_port(text, 1) == found


class Kept(StreamSource):
    """A topic in memory."""

    def __init__(self, kept: list[Stored], **details: object) -> None:
        self._kept, self._details = kept, StreamDetails.model_validate(details)

    def stored(self, topic: str, limit: int | None):  # type: ignore[no-untyped-def]
        yield from self._kept if limit is None else self._kept[max(0, len(self._kept) - limit) :]


def test_times_that_are_none_are_left_out_and_not_an_error() -> None:
    stored = [Stored(Message(b"a"), at) for at in (None, -1, 2**63, 1_700_000_000_000)]

    rows = Kept(stored).read(ReadRequest("t")).read_all()

    assert rows["time"].is_null().to_pylist() == [True, True, True, False]


def test_an_empty_topic_has_columns_and_no_rows() -> None:
    rows = Kept([]).read(ReadRequest("t")).read_all()

    assert (rows.num_rows, rows.schema.names) == (0, ["position", "time", "key", "value", "headers"])


def test_batches_are_no_longer_than_asked_for() -> None:
    rows = Kept([Stored(Message(b"a"))] * 25).read(ReadRequest("t", batch_rows=10))

    assert [batch.num_rows for batch in rows] == [10, 10, 5]


def test_a_topic_of_the_details_is_read_when_none_is_named_and_parameters_are_refused() -> None:
    assert Kept([Stored(Message(b"a"))], topic="t").read(ReadRequest()).read_all().num_rows == 1
    with pytest.raises(BadInput, match="Nothing says what to read"):
        Kept([]).read(ReadRequest())
    with pytest.raises(BadInput, match="no parameters"):
        Kept([]).read(ReadRequest("t", (1,)))
