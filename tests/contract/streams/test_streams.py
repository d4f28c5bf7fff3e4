"""What every broker's driver promises to whoever consumes, produces, reads and writes.

A test's group has the name of its topic, unless it is about groups.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from contract.drivers.cases import new_calls
from contract.streams.kit import Broker, all_below, at_least, numbered, numbers, opened, take, until

from bettong.domain.drivers import Capability, Egress, Message, ReadRequest, Stage, WriteMode, WriteRequest
from bettong.drivers.opening import Reach
from bettong.drivers.streams import StreamSource
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TESTS = Path(__file__).parents[2]
TIMEOUT_S = 30.0


# --- consuming ------------------------------------------------------------------------------------------------------


def test_messages_come_in_their_order_with_key_headers_and_position(broker: Broker) -> None:
    topic = broker.topic()
    sent = [
        Message(b'{"a": 1}', b"key \xff\x00", headers={"trace": "abc-1", "from": "test"}),
        Message(b"\x00\xff binary"),
        Message("☕".encode(), "schlüssel".encode()),
    ]
    with broker.open() as source:
        source.produce(topic, sent)

        got = take(source, topic, topic, at_least(3))

    assert [(m.value, m.key, dict(m.headers)) for m in got] == [(m.value, m.key, dict(m.headers)) for m in sent]
    assert len({m.position for m in got}) == 3
    assert all(topic in m.position for m in got)


def test_a_thousand_messages_come_once_each_and_in_order(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.produce(topic, numbered(1_000))

        got = take(source, topic, topic, at_least(1_000))

    assert numbers(got) == list(range(1_000))


def test_what_was_committed_never_comes_again(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.produce(topic, numbered(10))
        take(source, topic, topic, at_least(10))

    with broker.open() as another:
        another.produce(topic, numbered(1, start=10))
        got = take(another, topic, topic, at_least(1))

    assert numbers(got) == [10]


def test_what_was_not_committed_comes_again_to_the_next_member(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.produce(topic, numbered(10))
        got = take(source, topic, topic, at_least(10), commit=False)
        source.commit(got[:4])

    with broker.open() as another:
        got = take(another, topic, topic, at_least(6))

    assert sorted(numbers(got)) == [4, 5, 6, 7, 8, 9]


def test_groups_do_not_take_from_each_other(log: Broker) -> None:
    topic = log.topic()
    with log.open() as one, log.open() as other:
        one.produce(topic, numbered(5))

        first, second = (
            take(source, topic, g, at_least(5)) for source, g in ((one, f"{topic}-1"), (other, f"{topic}-2"))
        )

    assert numbers(first) == numbers(second) == [0, 1, 2, 3, 4]


def test_nothing_comes_from_a_topic_without_messages(broker: Broker) -> None:
    topic = broker.topic()

    with broker.open() as source:
        assert list(source.consume(topic, topic, max_messages=10, wait_s=0.2)) == []
        source.commit([])


def test_a_group_that_starts_at_the_latest_gets_what_comes_after_it(log: Broker) -> None:
    topic = log.topic()
    with log.open(start="latest") as source:
        source.produce(topic, numbered(5))
        got: list[Message] = []
        count = 5
        while not got:  # a group begins when the broker has let its first member in
            got = list(source.consume(topic, topic, max_messages=100, wait_s=0.5))
            source.produce(topic, numbered(1, start=count))
            count += 1

    assert min(numbers(got)) >= 5


def test_two_members_share_and_none_gets_what_the_other_has(broker: Broker) -> None:
    topic = broker.topic(partitions=4)
    got: dict[str, list[int]] = {"one": [], "other": []}
    sent = 0
    with broker.open(**broker.member(1)) as one, broker.open(**broker.member(2)) as other:
        sources = {"one": one, "other": other}
        for source in sources.values():
            source.consume(topic, topic, max_messages=5, wait_s=0)

        def both_have_all() -> bool:
            nonlocal sent
            if not all(got.values()):
                one.produce(topic, [Message(str(sent + n).encode(), str(n).encode()) for n in range(20)])
                sent += 20
            for name, source in sources.items():
                found = list(source.consume(topic, topic, max_messages=5, wait_s=0.2))
                source.commit(found)
                got[name] += numbers(found)
            return all(got.values()) and len(got["one"]) + len(got["other"]) >= sent

        until(both_have_all)

    assert sorted(got["one"] + got["other"]) == list(range(sent))


def test_messages_of_one_key_keep_their_order_for_whoever_gets_them(broker: Broker) -> None:
    topic = broker.topic(partitions=4)
    with broker.open() as source:
        source.produce(topic, [Message(str(n).encode(), f"key-{n % 7}".encode()) for n in range(210)])
        got = take(source, topic, topic, at_least(210))

    by_key: dict[bytes | None, list[int]] = defaultdict(list)
    for message in got:
        by_key[message.key].append(int(message.value))
    assert by_key == {f"key-{k}".encode(): list(range(k, 210, 7)) for k in range(7)}


def test_one_source_reads_a_topic_for_one_group(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.consume(topic, topic, max_messages=1, wait_s=0)

        with pytest.raises(BadInput, match="already"):
            source.consume(topic, "another", max_messages=1, wait_s=0)


def test_a_message_of_somebody_else_is_not_committed(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as one, broker.open() as other:
        one.produce(topic, numbered(1))
        got = take(one, topic, topic, at_least(1), commit=False)

        with pytest.raises(BadInput, match="not given out by this source"):
            other.commit(got)


def test_how_much_waits_for_a_group_is_told_where_the_broker_knows_it(log: Broker) -> None:
    topic = log.topic(partitions=2)
    with log.open() as source:
        if type(source).lag is StreamSource.lag:
            assert source.lag(topic, topic) is None
            return
        with pytest.raises(NotFound, match="'no_such_topic'"):
            source.lag("no_such_topic", topic)
        assert source.lag(topic, topic) == 0
        for message in numbered(10):  # Tansu counts what came in one batch as one message
            source.produce(topic, [message])
        assert source.lag(topic, topic) == 10

        got = take(source, topic, topic, at_least(10), commit=False)
        assert source.lag(topic, topic) == 10  # in hand, and not done
        source.commit(got[:6])
        assert source.lag(topic, topic) == 4
        assert source.lag(topic, f"{topic}-other") == 10
    with log.open(start="latest") as another:
        assert another.lag(topic, topic) == 4
        assert another.lag(topic, f"{topic}-new") == 0
        take(another, topic, topic, at_least(4))
        assert another.lag(topic, topic) == 0


# --- members that die -----------------------------------------------------------------------------------------------


@contextmanager
def member(broker: Broker, topic: str, *, size: int, commit: bool) -> Iterator[subprocess.Popen[str]]:
    """A member in a process of its own. It is killed at the end, if it is not dead by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "contract.streams.member"],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    asked = {"kind": broker.kind, "details": dict(broker.details), "topic": topic, "group": topic}
    process.stdin.write(json.dumps({**asked, "size": size, "commit": commit}) + "\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], enough: int) -> dict[str, list[int]]:
    """What it took and committed, once it took enough: it is killed then, and its last words are heard."""
    assert process.stdout is not None
    heard: dict[str, list[int]] = {"took": [], "committed": []}
    for line in process.stdout:
        what, which = json.loads(line)
        heard[what] += which
        if len(heard["took"]) >= enough:
            process.kill()
    return heard


def test_what_a_killed_member_had_comes_again_to_the_next_one(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.produce(topic, numbered(20))
    with member(broker, topic, size=8, commit=False) as process:
        heard = said(process, 8)
    assert heard["committed"] == []

    with broker.open() as another:
        got = take(another, topic, topic, all_below(20))

    assert sorted(numbers(got)) == list(range(20))


def test_over_a_killed_and_restarted_member_nothing_is_lost_and_nothing_committed_doubles(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source:
        source.produce(topic, numbered(1_000))
    with member(broker, topic, size=25, commit=True) as process:
        heard = said(process, 300)
    assert len(heard["committed"]) >= 250

    rest = set(range(1_000)) - set(heard["took"])
    with broker.open() as another:
        got = numbers(take(another, topic, topic, lambda got: rest <= set(numbers(got))))

    assert not set(got) & set(heard["committed"])
    assert len(got) == len(set(got))
    assert len(set(got) & set(heard["took"])) <= 25  # what it took last may have been committed, and may not


# --- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_topic_that_is_not_there_is_named(keeping: Broker) -> None:
    with keeping.open() as source:
        asks: list[Callable[[], object]] = [
            lambda: source.consume("no_such_topic", "group", max_messages=1, wait_s=0),
            lambda: source.read(ReadRequest("no_such_topic")),
            lambda: source.browse("no_such_topic"),
        ]
        for ask in asks:
            with pytest.raises(NotFound, match="'no_such_topic'") as missing:
                ask()
            assert missing.value.next_step


def test_a_wrong_password_is_told_as_such_and_never_shown(broker: Broker) -> None:
    with pytest.raises(BadInput, match="login") as refused, broker.open(**broker.wrong_login):
        pass
    report = new_calls().test(broker.kind, {**broker.details, **broker.wrong_login}, TIMEOUT_S)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    shown = "".join(traceback.format_exception(refused.value)) + repr(refused.value) + repr(report)
    for secret in {broker.details.get("password"), broker.wrong_login["password"]} - {None}:
        assert str(secret) not in shown


def test_a_host_that_is_not_there_and_one_that_egress_denies_are_told_at_dns(broker: Broker) -> None:
    lost = new_calls().test(broker.kind, {**broker.details, **broker.nowhere}, TIMEOUT_S)
    closed = new_calls(egress=Egress(deny=("127.0.0.0/8", "::1/128")))
    denied = closed.test(broker.kind, broker.details, TIMEOUT_S)

    for report in (lost, denied):
        assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.DNS, False)
    with (
        pytest.raises(BadInput, match="egress policy"),
        opened(broker.kind, broker.details, Reach(Egress(deny=("127.0.0.0/8",)))),
    ):
        pass


# --- testing, browsing, rows ----------------------------------------------------------------------------------------


def test_a_report_goes_through_every_layer(keeping: Broker) -> None:
    topic = keeping.topic()
    with keeping.open() as source:
        source.produce(topic, numbered(2))

    with_topic = new_calls().test(keeping.kind, {**keeping.details, "topic": topic}, TIMEOUT_S)
    without = new_calls().test(keeping.kind, keeping.details, TIMEOUT_S)
    missing = new_calls().test(keeping.kind, {**keeping.details, "topic": "no_such_topic"}, TIMEOUT_S)

    for report in (with_topic, without):
        assert report.ok, report
        assert [result.stage for result in report.stages] == list(Stage)
        assert all(result.said for result in report.stages)
    assert "1 message" in with_topic.stages[-1].said
    assert (missing.stages[-1].stage, missing.stages[-1].ok) == (Stage.PERMISSION, False)
    assert "'no_such_topic'" in missing.stages[-1].said


def test_browsing_shows_topics_with_counts(keeping: Broker) -> None:
    topic = keeping.topic()
    with keeping.open() as source:
        for message in numbered(7):  # Tansu counts what came in one batch as one message
            source.produce(topic, [message])

    details = {**keeping.details, **keeping.shows(topic)}
    found = [e for e in new_calls().browse(keeping.kind, details, "", TIMEOUT_S) if e.name == topic]

    assert [entry.kind for entry in found] == ["topic"]
    assert "7 messages" in found[0].detail


def test_the_last_messages_are_read_as_rows_oldest_first(log: Broker) -> None:
    topic = log.topic()
    sent = [*numbered(9), Message(b"\xff ok", b"k", headers={"a": "b"})]
    with log.open() as source:
        source.produce(topic, sent)

    rows = read(log, topic, limit=3)
    whole = read(log, topic)
    as_bytes = read(log, topic, limit=1, values="bytes")

    assert rows.schema.names == ["position", "time", "key", "value", "headers"]
    assert rows["value"].to_pylist() == ["7", "8", "\\xff ok"]
    assert rows["key"].to_pylist() == [None, None, "k"]
    assert rows["headers"].to_pylist() == [None, None, '{"a":"b"}']
    assert rows["time"].null_count == 0
    assert whole.num_rows == 10
    assert as_bytes["value"].to_pylist() == [b"\xff ok"]
    assert read(log, topic, limit=0).num_rows == 0


def test_many_of_the_last_messages_are_read(log: Broker) -> None:
    topic = log.topic()
    with log.open() as source:
        source.produce(topic, numbered(2_500))

    assert read(log, topic, limit=1_700)["value"].to_pylist() == [str(n) for n in range(800, 2_500)]


def test_reading_takes_nothing_from_a_group_and_ends_at_what_is_there(keeping: Broker) -> None:
    topic = keeping.topic()
    with keeping.open() as source:
        source.produce(topic, numbered(2_500))
        assert read(keeping, topic).num_rows == 2_500
        assert numbers(take(source, topic, topic, at_least(2_500))) == list(range(2_500))


def test_rows_are_written_as_json_one_message_each(broker: Broker) -> None:
    topic = broker.topic()
    rows = pa.table(
        {"day": ["mon", "tue"], "sales": [1.5, None], "parts": pa.array([[1, 2], []], pa.list_(pa.int64()))}
    )
    request = WriteRequest(topic)

    written = new_calls().write(broker.kind, broker.details, request, rows.to_reader(), TIMEOUT_S)

    assert written.rows == 2
    with broker.open() as source:
        assert [json.loads(m.value) for m in take(source, topic, topic, at_least(2))] == rows.to_pylist()


def test_keys_of_rows_become_keys_of_messages(broker: Broker) -> None:
    topic = broker.topic()
    rows = pa.table({"shop": ["a", "b"], "n": [1, 2]})
    with broker.open() as source:
        source.write(WriteRequest(topic, keys=("shop",)), rows.to_reader())
        source.write(WriteRequest(topic, keys=("shop", "n")), rows.to_reader())
        with pytest.raises(BadInput, match="no key column 'day'"):
            source.write(WriteRequest(topic, keys=("day",)), rows.to_reader())

        got = take(source, topic, topic, at_least(4))

    assert [message.key for message in got] == [b"a", b"b", b'{"shop":"a","n":1}', b'{"shop":"b","n":2}']


def test_messages_are_only_ever_added(broker: Broker) -> None:
    topic = broker.topic()
    with broker.open() as source, pytest.raises(BadInput, match="only ever added"):
        source.write(WriteRequest(topic, WriteMode.REPLACE), pa.table({"n": [1]}).to_reader())

    info = new_calls().info(broker.kind)
    assert info is not None
    assert {Capability.CONSUME, Capability.PRODUCE, Capability.READ, Capability.WRITE} <= info.capabilities
    assert Capability.UPSERT not in info.capabilities


def read(broker: Broker, topic: str, limit: int | None = None, **changes: Any) -> pa.Table:
    """In a process of its own, as the server reads."""
    request = ReadRequest(topic, limit=limit)
    with new_calls().read(broker.kind, {**broker.details, **changes}, request, TIMEOUT_S) as reader:
        return reader.read_all()
