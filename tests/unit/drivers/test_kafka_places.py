"""Kafka keeps one place per partition: it moves over what is done without a gap, and no further."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import confluent_kafka
import pytest
from contract.streams.kit import at_least, numbered, numbers, opened, take

from bettong.drivers.kafka import KafkaDetails
from bettong.drivers.kafka_group import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator


def given(*offsets: int) -> Progress:
    progress = Progress()
    for offset in offsets:
        progress.give(offset)
    return progress


def test_the_place_is_behind_the_last_message_before_which_all_are_done() -> None:
    progress = given(5, 6, 7, 8)
    assert progress.place() is None

    progress.done(6)
    assert progress.place() is None
    progress.done(5)
    assert progress.place() == 7
    progress.committed(7)
    assert progress.place() is None
    progress.done(8)
    progress.done(7)
    assert progress.place() == 9


def test_offsets_that_a_compacted_topic_lacks_leave_no_gap() -> None:
    progress = given(1, 4, 9)
    for offset in (1, 4, 9):
        progress.done(offset)

    assert progress.place() == 10


def test_what_is_done_twice_or_was_given_out_before_is_not_waited_for() -> None:
    progress = given(5, 6)
    progress.done(5)
    progress.committed(6)
    progress.done(5)

    assert progress.knows(5)
    assert not progress.knows(4)
    assert progress.place() is None


@contextmanager
def mock_cluster(topic: str) -> Iterator[dict[str, Any]]:
    """librdkafka's own cluster of three brokers, in this process, with one empty partition."""
    keeper = confluent_kafka.Producer({"bootstrap.servers": "x", "test.mock.num.brokers": 3})
    brokers = keeper.list_topics(timeout=10).brokers.values()
    maker = confluent_kafka.Producer(
        {"bootstrap.servers": ",".join(f"{b.host}:{b.port}" for b in brokers), "partitioner": "consistent"}
    )
    maker.produce(topic, b"-1", key=b"k")  # a topic is made by its first message
    assert maker.flush(10) == 0
    yield {"servers": [f"{broker.host}:{broker.port}" for broker in brokers], "redeliver_after_s": 6}


@pytest.mark.timeout(120)
def test_a_gap_in_what_was_committed_comes_again_with_all_that_is_behind_it() -> None:
    with mock_cluster("orders") as details:
        with opened("KAFKA", details) as source:
            source.produce("orders", numbered(10, key=b"k"))
            got = take(source, "orders", "group", at_least(11), commit=False)
            by_number = dict(zip(numbers(got), got, strict=True))
            source.commit([by_number[n] for n in (-1, 0, 1, 2)])
            source.commit([by_number[n] for n in (5, 6)])
        with opened("KAFKA", details) as source:
            got = take(source, "orders", "group", at_least(7), commit=False)
            assert numbers(got) == [3, 4, 5, 6, 7, 8, 9]
            source.commit(got[1:])
            source.commit(got[:1])
        with opened("KAFKA", details) as source:
            source.produce("orders", numbered(1, start=10, key=b"k"))

            assert numbers(take(source, "orders", "group", at_least(1))) == [10]


def test_details_may_have_the_names_of_kafkas_own_clients() -> None:
    details = KafkaDetails.model_validate(
        {
            "bootstrap.servers": "one, two:9093",
            "security.protocol": "SASL_SSL",
            "sasl.mechanisms": "SCRAM-SHA-512",
            "sasl.username": "me",
            "sasl.password": "secret",
        }
    )

    assert details.brokers == [("one", 9092), ("two", 9093)]
    assert (details.ssl, details.sasl, details.user) == ("verify", "SCRAM-SHA-512", "me")
    assert details.password.get_secret_value() == "secret"


@pytest.mark.parametrize("servers", ["", "host:port", ",", "host:70000", 5, [1]])
def test_servers_that_are_none_are_refused(servers: object) -> None:
    with pytest.raises(ValueError, match="servers"):
        KafkaDetails.model_validate({"servers": servers})
