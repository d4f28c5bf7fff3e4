"""What each broker has of its own: entries of others in Redis, subjects of NATS, partitions of Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest
from contract.streams.kit import Broker, all_below, at_least, numbered, numbers, take

from bettong.domain.drivers import Message, ReadRequest
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from services.kafka import KafkaServer
    from services.nats import NatsServer
    from services.redis import RedisServer

pytestmark = pytest.mark.service


# --- Redis ----------------------------------------------------------------------------------------------------------


def test_an_entry_of_others_is_a_json_object_of_its_fields(redis_broker: Broker, redis_server: RedisServer) -> None:
    topic = redis_broker.topic()
    with redis_server.client() as client:
        client.xadd(topic, {"id": "7", "text": b"caf\xc3\xa9 \xff"})
        client.xadd(topic, {"value": "v", "key": "k", "trace": "t"})

    with redis_broker.open() as source:
        foreign, ours = take(source, topic, topic, at_least(2))

    assert orjson.loads(foreign.value) == {"id": "7", "text": "café \\xff"}
    assert (ours.value, ours.key, ours.headers) == (b"v", b"k", {"trace": "t"})


def test_a_stream_of_redis_is_made_by_its_first_message_and_kept_to_its_length(redis_broker: Broker) -> None:
    with redis_broker.open(max_length=100) as source:
        source.produce("t_trimmed", numbered(5_000))
        count = source.read(ReadRequest("t_trimmed")).read_all().num_rows
        last = source.read(ReadRequest("t_trimmed", limit=1)).read_all()["value"].to_pylist()

    assert 100 <= count < 5_000  # Redis trims by whole nodes
    assert last == ["4999"]


def test_what_is_no_stream_is_said_to_be_what_it_is(redis_broker: Broker, redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("t_text", "x")

    with redis_broker.open() as source:
        with pytest.raises(BadInput, match="'t_text' is a string"):
            source.consume("t_text", "group", max_messages=1, wait_s=0)
        with pytest.raises(BadInput, match="no stream"):
            source.produce("t_text", numbered(1))


def test_a_header_that_redis_has_another_use_for_is_refused(redis_broker: Broker) -> None:
    with redis_broker.open() as source, pytest.raises(BadInput, match="cannot be called 'key'"):
        source.produce(redis_broker.topic(), [Message(b"v", headers={"key": "k"})])


def test_a_user_of_redis_who_may_not_read_is_told_so(redis_broker: Broker, redis_server: RedisServer) -> None:
    topic = redis_broker.topic()
    with redis_server.client() as client:
        client.acl_setuser(
            "guest", enabled=True, passwords=["+guest-password"], commands=["+ping", "+type"], keys=["*"]
        )
    login = {"user": "guest", "password": "guest-password"}

    with redis_broker.open(**login) as source, pytest.raises(BadInput, match="may not do that") as refused:
        source.read(ReadRequest(topic))

    assert "guest" not in str(refused.value)


# --- NATS -----------------------------------------------------------------------------------------------------------


def test_subjects_wildcards_and_the_streams_name_lead_to_what_a_stream_keeps(
    nats_broker: Broker, nats_server: NatsServer
) -> None:
    nats_server.make("ORDERS", "orders.*")
    with nats_broker.open() as source:
        for n in range(300):
            source.produce(f"orders.{'eu' if n % 3 else 'us'}", numbered(1, start=n))

        def last(topic: str, limit: int | None = None) -> list[int]:
            rows = source.read(ReadRequest(topic, limit=limit)).read_all()
            return [int(value) for value in rows["value"].to_pylist()]

        assert last("orders.us") == list(range(0, 300, 3))
        assert last("orders.us", 5) == [285, 288, 291, 294, 297]
        assert last("orders.eu", 4) == [295, 296, 298, 299]
        assert last("orders.*", 3) == last("ORDERS", 3) == [297, 298, 299]
        assert last("orders.us", 1_000) == list(range(0, 300, 3))
        assert last("orders.nobody") == []
        got = take(source, "orders.us", "us", at_least(100))
        assert numbers(got) == list(range(0, 300, 3))
        with pytest.raises(BadInput, match="there already, for something else"):
            source.consume("orders.eu", "us", max_messages=1, wait_s=0)
        with pytest.raises(BadInput, match="many subjects"):
            source.produce("ORDERS", numbered(1))
        assert [entry.name for entry in source.browse("ORDERS")] == ["us"]


def test_a_subject_that_no_stream_keeps_takes_nothing(nats_broker: Broker) -> None:
    with nats_broker.open() as source, pytest.raises(NotFound, match=r"'no\.such'"):
        source.produce("no.such", numbered(1))


def test_a_group_that_nats_cannot_have_is_refused(nats_broker: Broker) -> None:
    with nats_broker.open() as source, pytest.raises(BadInput, match=r"'a\.b' is no name"):
        source.consume(nats_broker.topic(), "a.b", max_messages=1, wait_s=0)


def test_a_consumer_that_was_made_by_others_is_told_as_often_as_it_wants_that_a_member_lives(
    nats_broker: Broker, nats_server: NatsServer
) -> None:
    topic = nats_broker.topic()
    nats_server.make_consumer(topic, "shared", ack_wait_s=4.0)
    with nats_broker.open(redeliver_after_s=9) as slow, nats_broker.open() as eager:
        slow.produce(topic, numbered(3))
        got = take(slow, topic, "shared", at_least(3), commit=False)

        assert list(eager.consume(topic, "shared", max_messages=10, wait_s=10.0)) == []
        slow.commit(got)


def test_what_a_header_cannot_hold_is_refused_or_escaped(nats_broker: Broker) -> None:
    topic = nats_broker.topic()
    with nats_broker.open() as source:
        with pytest.raises(BadInput, match="line break"):
            source.produce(topic, [Message(b"v", headers={"a": "b\r\nc: d"})])
        with pytest.raises(BadInput, match="name of a header"):
            source.produce(topic, [Message(b"v", headers={"a b": "c"})])
        source.produce(topic, [Message(b"v", b"\r\n: \x00\xff", headers={"a": "ü"})])

        got = take(source, topic, topic, at_least(1))

    assert (got[0].key, got[0].headers) == (b"\r\n: \x00\xff", {"a": "ü"})


# --- Kafka ----------------------------------------------------------------------------------------------------------


def test_the_last_messages_of_several_partitions_are_the_latest(kafka_broker: Broker) -> None:
    topic = kafka_broker.topic(partitions=3)
    with kafka_broker.open() as source:
        for n in range(30):
            source.produce(topic, [Message(str(n).encode(), str(n).encode())])

        rows = source.read(ReadRequest(topic, limit=4)).read_all()
        whole = source.read(ReadRequest(topic)).read_all()

    assert rows["time"].to_pylist() == sorted(whole["time"].to_pylist())[-4:]
    assert sorted(int(value) for value in whole["value"].to_pylist()) == list(range(30))
    assert {position.rpartition("@")[0] for position in whole["position"].to_pylist()} == {
        f"{topic}/{partition}" for partition in range(3)
    }


def test_kafka_makes_no_topic_by_itself(kafka_broker: Broker) -> None:
    with kafka_broker.open() as source:
        with pytest.raises(NotFound, match="'no_such_topic'"):
            source.produce("no_such_topic", numbered(1))

        assert "no_such_topic" not in [entry.name for entry in source.browse("")]


def test_partitions_of_a_topic_are_browsed(kafka_broker: Broker) -> None:
    with kafka_broker.open() as source:
        entries = source.browse(kafka_broker.topic(partitions=3))

    assert [(entry.name, entry.kind, entry.detail) for entry in entries] == [
        (str(partition), "partition", "0 messages") for partition in range(3)
    ]


@pytest.mark.timeout(180)
def test_when_a_member_of_kafka_leaves_the_others_take_over_what_it_had(
    kafka_broker: Broker, kafka_server: KafkaServer
) -> None:
    topic = kafka_broker.topic(partitions=4)
    with kafka_broker.open() as stays:
        stays.produce(topic, [Message(str(n).encode(), str(n).encode()) for n in range(40)])
        with kafka_broker.open() as leaves:
            got = take(leaves, topic, topic, at_least(10), commit=False, size=10)
            leaves.commit(got[:0])

        assert set(numbers(take(stays, topic, topic, all_below(40)))) == set(range(40))
