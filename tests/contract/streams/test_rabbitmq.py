"""What RabbitMQ has of its own: one place per queue, messages that are taken to be looked at, vhosts, certificates."""

from __future__ import annotations

import socket
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pika
import pytest
from certificates import NAME, Authority
from contract.drivers.cases import new_calls
from contract.streams.conftest import rabbitmq_as_broker
from contract.streams.kit import Broker, all_below, at_least, numbered, numbers, opened, take, until
from services.rabbitmq import OPEN, PASSWORD, READER, STRANGER, VHOST, RabbitMqServer, running_rabbitmq
from services.running import free_port

from bettong.domain.drivers import Message, ReadRequest, Stage
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bettong.domain.drivers import TestReport

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


def sent_by_another(server: RabbitMqServer, queue: str, *messages: tuple[bytes, dict[str, Any]]) -> None:
    with server.channel() as channel:
        channel.confirm_delivery()
        for body, properties in messages:
            channel.basic_publish("", queue, body, pika.BasicProperties(**properties), mandatory=True)


def ready(server: RabbitMqServer, queue: str) -> int:
    with server.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).method.message_count)


def last(report: TestReport) -> tuple[Stage, bool | None]:
    return report.stages[-1].stage, report.stages[-1].ok


# --- one place, whatever the group ----------------------------------------------------------------------------------


def test_whoever_consumes_a_queue_shares_it_whatever_group_they_name(rabbitmq_broker: Broker) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as one, rabbitmq_broker.open() as other:
        one.consume(topic, "red", max_messages=1, wait_s=0)
        other.consume(topic, "blue", max_messages=1, wait_s=0)
        one.produce(topic, numbered(100))
        got: dict[str, list[int]] = {"red": [], "blue": []}

        def all_came() -> bool:
            for source, group in ((one, "red"), (other, "blue")):
                found = list(source.consume(topic, group, max_messages=1, wait_s=0.1))
                source.commit(found)
                got[group] += numbers(found)
            return len(got["red"]) + len(got["blue"]) >= 100

        until(all_came)

    assert sorted(got["red"] + got["blue"]) == list(range(100))
    assert all(got.values())


def test_a_queue_has_no_latest_place_and_says_so(rabbitmq_broker: Broker) -> None:
    with pytest.raises(BadInput, match="'start'"), rabbitmq_broker.open(start="latest"):
        pass


def test_no_more_is_sent_ahead_than_was_asked_for(rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(100))
        first = take(source, topic, topic, at_least(10), commit=False, size=10)
        assert ready(rabbitmq_server, topic) == 90

        more = take(source, topic, topic, at_least(10), commit=False, size=10)
        assert numbers(first + more) == list(range(20))
        assert source.lag(topic, topic) == 100
        source.commit(more + first)
        assert numbers(take(source, topic, topic, at_least(80))) == list(range(20, 100))
        assert source.lag(topic, topic) == 0


def test_how_much_waits_in_a_queue_is_told_without_consuming_it(rabbitmq_broker: Broker) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(7))

        assert source.lag(topic, topic) == 7
        with pytest.raises(NotFound, match="'no_such_topic'"):
            source.lag("no_such_topic", topic)


def test_what_is_read_are_the_first_messages_and_they_stay_where_they_are(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.produce(topic, [Message(b"\xff ok", b"k", headers={"a": "b"}), *numbered(249, start=1)])
    request = ReadRequest(topic, limit=3)
    with new_calls().read("RABBITMQ", rabbitmq_broker.details, request, 30.0) as reader:
        rows = reader.read_all()
    none = ReadRequest(topic, limit=0)
    with new_calls().read("RABBITMQ", rabbitmq_broker.details, none, 30.0) as reader:
        assert reader.read_all().num_rows == 0

    assert rows["value"].to_pylist() == ["\\xff ok", "1", "2"]
    assert rows["key"].to_pylist() == ["k", None, None]
    assert rows["headers"].to_pylist() == ['{"a":"b"}', None, None]
    assert rows["time"].null_count == 0
    with rabbitmq_server.channel() as channel:
        seen = [channel.basic_get(topic)[0].redelivered for _ in range(5)]
    assert seen == [True, True, True, False, False]  # whoever looked at them left a mark
    with rabbitmq_broker.open() as source:
        assert numbers(take(source, topic, topic, at_least(250))[1:]) == list(range(1, 250))


# --- messages of ours and of others ---------------------------------------------------------------------------------


def test_what_no_queue_takes_is_an_error_that_says_so(rabbitmq_broker: Broker) -> None:
    with rabbitmq_broker.open() as source:
        with pytest.raises(NotFound, match="no queue 'no_such_topic', so 3 messages could not be routed") as lost:
            source.produce("no_such_topic", numbered(3))
        topic = rabbitmq_broker.topic()
        source.produce(topic, numbered(2))  # and the next ones go on

        assert lost.value.next_step
        assert numbers(take(source, topic, topic, at_least(2))) == [0, 1]


def test_a_message_of_ours_is_kept_over_a_restart_and_has_an_id_and_a_time(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(1))

    with rabbitmq_server.channel() as channel:
        _, properties, _ = channel.basic_get(topic)
    assert properties.delivery_mode == 2  # persistent
    assert properties.message_id
    assert properties.timestamp


def test_messages_of_others_have_texts_as_headers_and_by_their_id_the_same_position_again(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = rabbitmq_broker.topic()
    headers = {"text": "ü", "number": 7, "list": [1, "a"], "table": {"b": True}, "raw": b"\xff"}
    sent_by_another(rabbitmq_server, topic, (b"named", {"message_id": "m-1", "headers": headers}), (b"bare", {}))

    with rabbitmq_broker.open() as source:
        first = take(source, topic, topic, at_least(2), commit=False)
    with rabbitmq_broker.open() as source:
        again = take(source, topic, topic, at_least(2))

    named, bare = first
    assert named.position == f"{topic}@m-1"
    assert named.headers == {"text": "ü", "number": "7", "list": '[1,"a"]', "table": '{"b":true}', "raw": "\\xff"}
    assert (named.key, bare.key) == (None, None)
    assert [message.unsure for message in first] == [False, False]
    assert [message.position == before.position for message, before in zip(again, first, strict=True)] == [True, False]
    assert [message.unsure for message in again] == [True, True]


def test_two_messages_of_one_id_are_two(rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer) -> None:
    topic = rabbitmq_broker.topic()
    sent_by_another(rabbitmq_server, topic, *((str(n).encode(), {"message_id": "same"}) for n in range(3)))

    with rabbitmq_broker.open() as source:
        got = take(source, topic, topic, at_least(3))

    assert numbers(got) == [0, 1, 2]
    assert len({message.position for message in got}) == 3


def test_a_header_that_rabbitmq_cannot_have_or_has_another_use_for_is_refused(rabbitmq_broker: Broker) -> None:
    topic = rabbitmq_broker.topic()
    refused = [
        ({"CC": "another queue"}, "called 'CC'"),
        ({"ü" * 80: "v"}, "name of a header"),
        ({"a": "b" * 110_000}, "headers"),
    ]
    with rabbitmq_broker.open() as source:
        for headers, said in refused:
            with pytest.raises(BadInput, match=said):
                source.produce(topic, [Message(b"v", headers=headers)])
        source.produce(topic, [Message(b"v", headers={"a": "b" * 90_000})])

        assert len(take(source, topic, topic, at_least(1))) == 1


def test_large_messages_arrive_whole(rabbitmq_broker: Broker) -> None:
    topic = rabbitmq_broker.topic()
    sent = [Message(bytes([n]) * 5_000_000) for n in range(4)]
    with rabbitmq_broker.open() as source:
        source.produce(topic, sent)

        assert [message.value for message in take(source, topic, topic, at_least(4))] == [m.value for m in sent]


# --- queues that are special ----------------------------------------------------------------------------------------


def test_a_quorum_queue_gives_what_a_dead_consumer_had_again(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = "t_quorum"
    rabbitmq_server.make(topic, **{"x-queue-type": "quorum"})
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(20))
        first = take(source, topic, topic, at_least(20), commit=False)
        source.commit(first[:5])
    with rabbitmq_broker.open() as source:
        again = take(source, topic, topic, all_below(20, start=5))

    assert {message.position for message in again} == {message.position for message in first[5:]}
    assert not again[0].headers  # what the broker counts is not the sender's


def test_a_queue_that_is_full_says_how_much_it_did_not_take(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = "t_full"
    rabbitmq_server.make(topic, **{"x-max-length": 4, "x-overflow": "reject-publish"})
    with rabbitmq_broker.open() as source, pytest.raises(Unavailable, match=r"'t_full' did not take \d+ of 500"):
        source.produce(topic, numbered(500))


def test_a_stream_is_said_to_be_one(rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer) -> None:
    topic = "t_stream"
    rabbitmq_server.make(topic, **{"x-queue-type": "stream"})
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(3))
        with pytest.raises(BadInput, match="is a stream"):
            source.read(ReadRequest(topic))
    with rabbitmq_broker.open() as source:
        source.consume(topic, topic, max_messages=1, wait_s=0)
        source.produce(topic, numbered(1))
        with pytest.raises(BadInput, match="is a stream"):
            source.consume(topic, topic, max_messages=1, wait_s=10.0)


def test_a_queue_that_is_deleted_under_its_consumer_is_told(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer
) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.consume(topic, topic, max_messages=1, wait_s=0)
        with rabbitmq_server.channel() as channel:
            channel.queue_delete(topic)

        with pytest.raises(NotFound, match=f"'{topic}'"):
            source.consume(topic, topic, max_messages=1, wait_s=5.0)


# --- who may do what ------------------------------------------------------------------------------------------------


def test_queues_are_shown_by_name_and_that_they_cannot_be_listed_is_said(rabbitmq_broker: Broker) -> None:
    topic = rabbitmq_broker.topic()
    with rabbitmq_broker.open() as source:
        source.produce(topic, numbered(2))
        with pytest.raises(BadInput, match="no way to list the queues"):
            source.browse("")
    with rabbitmq_broker.open(queues=[topic, "t_missing"]) as source:
        shown = [(entry.name, entry.kind, entry.detail) for entry in source.browse("")]
        one = source.browse(topic)

    assert shown == [(topic, "topic", "2 messages, 0 consumers"), ("t_missing", "topic", "is not there")]
    assert [(entry.name, entry.detail) for entry in one] == [(topic, "2 messages, 0 consumers")]


def test_a_user_is_told_what_it_may_not_do_and_with_which_queue(rabbitmq_server: RabbitMqServer) -> None:
    allowed, closed = f"{OPEN}in", "t_closed"
    rabbitmq_server.make(allowed)
    rabbitmq_server.make(closed)
    details = {**rabbitmq_server.details, "user": READER}

    assert new_calls().test("RABBITMQ", {**details, "topic": allowed}, 30.0).ok
    report = new_calls().test("RABBITMQ", {**details, "topic": closed}, 30.0)
    assert last(report) == (Stage.PERMISSION, False)
    assert f"may not do that in RabbitMQ with '{closed}'" in report.stages[-1].said
    with opened("RABBITMQ", details) as source:
        asks: list[tuple[str, Callable[[], object]]] = [
            (closed, lambda: source.consume(closed, "g", max_messages=1, wait_s=1.0)),
            (allowed, lambda: source.produce(allowed, numbered(1))),
        ]
        for queue, ask in asks:
            with pytest.raises(BadInput, match=f"may not do that in RabbitMQ with '{queue}'"):
                ask()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vhost": "no/such/vhost"}, "has no such vhost"),
        ({"user": STRANGER}, "does not let this user into the vhost"),
        ({"user": "nobody"}, "refused the login"),
    ],
)
def test_why_a_login_is_refused_is_told_without_names(
    rabbitmq_server: RabbitMqServer, change: dict[str, str], said: str
) -> None:
    details = {**rabbitmq_server.details, **change}
    with pytest.raises(BadInput, match=said) as refused, opened("RABBITMQ", details):
        pass
    report = new_calls().test("RABBITMQ", details, 30.0)

    assert last(report) == (Stage.LOGIN, False)
    assert said in report.stages[-1].said
    shown = "".join(traceback.format_exception(refused.value)) + repr(report)
    for secret in (PASSWORD, VHOST, *change.values()):
        assert secret not in shown


# --- what is no RabbitMQ, or wants TLS ------------------------------------------------------------------------------


@contextmanager
def answering(text: bytes) -> Iterator[int]:
    """A port where everyone is answered with this."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    taken, _ = listening.accept()
                except OSError:
                    return
                with taken:
                    taken.recv(1_000)
                    taken.sendall(text)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"-ERR unknown command\r\n", b""]
)
def test_what_is_no_amqp_at_that_port_is_said_to_be_none(answer: bytes) -> None:
    with answering(answer) as port:
        details = {"host": "127.0.0.1", "port": port, "user": "u", "password": "p"}
        report = new_calls().test("RABBITMQ", details, 10.0)

    assert last(report) == (Stage.LOGIN, False)
    assert "does not answer as AMQP 0-9-1 does" in report.stages[-1].said


def test_a_port_that_says_nothing_is_said_to_be_silent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        details = {"host": "127.0.0.1", "port": silent.getsockname()[1], "user": "u", "password": "p"}
        report = new_calls().test("RABBITMQ", details, 20.0)

    assert last(report) == (Stage.LOGIN, False)
    assert "did not answer as RabbitMQ does in time" in report.stages[-1].said


def test_a_certificate_of_ours_is_shown_where_the_server_asks_for_one(tmp_path: Path) -> None:
    authority, port = Authority(), free_port()
    cert, key = authority.sign().write(tmp_path)
    trusted = tmp_path / "ca.pem"
    trusted.write_text(authority.pem)
    options = {
        "ssl_options.certfile": cert,
        "ssl_options.keyfile": key,
        "ssl_options.cacertfile": trusted,
        "ssl_options.verify": "verify_peer",
        "ssl_options.fail_if_no_peer_cert": "true",
    }
    ours, foreign = authority.sign("a client"), Authority().sign("a client")

    def shown(certificate: Any) -> dict[str, str]:
        return {"ssl_certificate": certificate.certificate.decode(), "ssl_key": certificate.key.decode()}

    with running_rabbitmq(tls_port=port, more=options) as server:
        details = {**server.details, "host": NAME, "port": port, "ssl": "verify", "ssl_ca": authority.pem}
        good = new_calls().test("RABBITMQ", {**details, **shown(ours)}, 30.0)
        none = new_calls().test("RABBITMQ", details, 30.0)
        wrong = new_calls().test("RABBITMQ", {**details, **shown(foreign)}, 30.0)
        plain = new_calls().test("RABBITMQ", {**details, "ssl": "disable"}, 30.0)
        with pytest.raises(BettongError), opened("RABBITMQ", details):
            pass

    assert good.ok, good
    for report, said in ((none, "asks for"), (wrong, "does not take our certificate")):
        assert last(report) == (Stage.TLS, False), report
        assert said in report.stages[-1].said
        assert "ssl_certificate" in report.stages[-1].next_step
    assert last(plain) == (Stage.LOGIN, False)
    assert "5671" in plain.stages[-1].next_step


def test_a_broker_without_room_is_told_apart_from_one_that_is_away() -> None:
    with running_rabbitmq(more={"vm_memory_high_watermark.absolute": "1MB"}) as server:
        broker = rabbitmq_as_broker(server)
        topic = broker.topic()
        with broker.open() as source, pytest.raises(Unavailable, match="too little memory or disk"):
            source.produce(topic, numbered(1))
