"""The parts of a stream inference that decide: whom to blame, what to remember, how long to wait."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from bettong.domain.drivers import Message
from bettong.errors import BadInput, ModelFailed, StorageFull, Unavailable
from bettong.jobs.stream.blame import divided
from bettong.jobs.stream.journal import Journal, Rate, Totals
from bettong.jobs.stream.outage import LONGEST_PAUSE_S, LONGEST_S, Outage
from bettong.jobs.stream.rows import Batch, MessageReader

if TYPE_CHECKING:
    from pathlib import Path

READER = MessageReader(pa.schema({"x": pa.int64()}), ())


def batch_of(*sizes: int) -> Batch:
    """Messages of so many rows; each row says which message it is of."""
    values = ["[" + ",".join([f'{{"x":{n}}}'] * size) + "]" for n, size in enumerate(sizes)]
    batch, refused = READER.read([Message(value.encode(), position=f"t@{n}") for n, value in enumerate(values)])
    assert not refused
    return batch


def letter(n: int, value: bytes = b"{}") -> Message:
    return Message(value, position=f"orders/0@{n}")


# --- whom to blame --------------------------------------------------------------------------------------------------


@settings(deadline=None)  # how fast the machine is says nothing
@given(st.lists(st.integers(1, 3), min_size=1, max_size=40), st.sets(st.integers(0, 39)))
def test_each_message_comes_once_in_order_and_only_those_at_fault_are_refused(sizes: list[int], bad: set[int]) -> None:
    def work(part: Batch) -> list[int]:
        rows: list[Any] = part.rows["x"].to_pylist()
        if set(rows) & bad:
            raise ModelFailed("a value of it")
        return rows

    came = list(divided(batch_of(*sizes), work))

    positions = [taken.message.position for part, _ in came for taken in part.taken]
    assert positions == [f"t@{n}" for n in range(len(sizes))]
    for part, made in came:
        numbers = [n for n in range(len(sizes)) if f"t@{n}" in {taken.message.position for taken in part.taken}]
        if isinstance(made, ModelFailed):
            assert len(numbers) == 1
            assert numbers[0] in bad
        else:
            assert made == [n for n in numbers for _ in range(sizes[n])]
            assert not bad & set(numbers)


def test_one_message_at_fault_among_many_is_found_in_few_calls() -> None:
    calls = 0

    def work(part: Batch) -> None:
        nonlocal calls
        calls += 1
        if 700 in part.rows["x"].to_pylist():
            raise BadInput("no")

    list(divided(batch_of(*[1] * 1_000), work))

    assert calls <= 21


def test_what_is_nobodys_fault_is_not_divided() -> None:
    def work(part: Batch) -> None:
        raise Unavailable("away")

    with pytest.raises(Unavailable):
        list(divided(batch_of(1, 1), work))


# --- what comes in --------------------------------------------------------------------------------------------------

_SCHEMAS = st.sampled_from(
    [
        pa.schema({"x": kind})
        for kind in (
            pa.int32(),
            pa.float32(),
            pa.string(),
            pa.bool_(),
            pa.date32(),
            pa.timestamp("us"),
            pa.decimal128(9, 2),
            pa.binary(),
            pa.list_(pa.float32()),
            pa.list_(pa.int8(), 2),
            pa.struct([pa.field("a", pa.int64())]),
        )
    ]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "id"]), inner, max_size=3),
    max_leaves=6,
)
_ARROW = st.binary(max_size=60).map(lambda tail: b"\xff\xff\xff\xff" + tail)


@settings(deadline=None)
@given(_SCHEMAS, st.lists(_JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20) | _ARROW))
def test_whatever_comes_is_taken_with_as_many_rows_as_it_has_or_refused(schema: pa.Schema, values: list[bytes]) -> None:
    messages = [Message(value, position=f"t@{n}") for n, value in enumerate(values)]

    batch, refused = MessageReader(schema, ("id",), ("key",)).read(messages)

    came = [taken.message for taken in batch.taken] + [each.message for each in refused]
    assert sorted(message.position for message in came) == sorted(message.position for message in messages)
    assert batch.rows.num_rows == sum(taken.rows for taken in batch.taken)
    assert batch.rows.select(schema.names).schema.equals(schema)
    assert all(each.reason for each in refused)


def test_a_folder_without_space_is_waited_for_as_what_is_away(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    full = os.open("/dev/full", os.O_RDWR)
    journal._slots._files = [full, full]

    with pytest.raises(StorageFull, match="takes no more"):
        journal.begin([letter(1)])
    os.close(full)


# --- what to remember -----------------------------------------------------------------------------------------------


def test_a_new_attempt_knows_what_was_on_its_way_and_what_had_arrived(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.begin([letter(n) for n in range(4)])
    first.arrived([letter(0), letter(1)])
    first.keep(Totals(messages_in=4, predictions_out=2))

    after = Journal(tmp_path)

    assert after.totals == Totals(messages_in=4, predictions_out=2)
    assert [after.has(letter(n)) for n in range(4)] == [True, True, False, False]
    assert after.unsure == 2
    assert after.begin([letter(1), letter(2), letter(5)]) == {"orders/0@2"}
    assert after.totals.repeated == 1


def test_what_is_committed_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin([letter(1)])
    journal.arrived([letter(1)])
    journal.committed([letter(1)])

    assert not journal.has(letter(1))
    assert journal.begin([letter(1)]) == set()


def test_another_message_in_the_same_place_of_a_topic_that_was_made_anew_is_another_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin([letter(1, b"old")])
    journal.arrived([letter(1, b"old")])

    assert journal.has(letter(1, b"old"))
    assert not journal.has(letter(1, b"new"))


@pytest.mark.parametrize("left", [0, 1, 30])
def test_a_record_that_a_kill_cut_short_leaves_the_one_before(left: int, tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.keep(Totals(messages_in=1))
    journal.keep(Totals(messages_in=2))
    newest = max(tmp_path.iterdir(), key=lambda file: b'"turn": 2' in file.read_bytes())
    newest.write_bytes(newest.read_bytes()[:left])

    after = Journal(tmp_path)
    assert after.totals.messages_in == 1
    after.keep(Totals(messages_in=3))

    assert Journal(tmp_path).totals.messages_in == 3


# --- how long to wait, how fast it is -------------------------------------------------------------------------------


def test_pauses_grow_to_a_limit_and_end_when_it_is_gone_for_good() -> None:
    outage, now_s, pauses = Outage().on_success(), 50.0, []
    while (step := outage.on_failure(now_s))[1] is not None:
        outage, pause_s = step
        assert pause_s is not None
        pauses.append(pause_s)
        now_s += pause_s

    assert pauses[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S]
    assert max(pauses) == LONGEST_PAUSE_S
    assert sum(pauses) == LONGEST_S
    assert outage.on_success().on_failure(now_s)[1] == 0.5


def test_a_rate_is_that_of_the_last_seconds() -> None:
    rate = Rate()

    assert rate.at(0.0, 5) == 0.0
    assert rate.at(1.0, 105) == 100.0
    for second in range(2, 30):
        last = rate.at(float(second), 105 + 10 * (second - 1))
    assert last == 10.0
