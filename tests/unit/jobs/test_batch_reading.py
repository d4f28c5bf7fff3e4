"""Rows are cut into pieces of the wanted size, and never between two rows of the same keys."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.jobs.batch.pace import FIRST_ROWS, MOST_ROWS, Pace, next_rows
from bettong.jobs.batch.positions import Position
from bettong.jobs.batch.reading import MAX_PIECE_BYTES, pieces, skipped

if TYPE_CHECKING:
    from bettong.jobs.batch.reading import Piece


def batches_of(values: list[Any], sizes: list[int]) -> list[pa.RecordBatch]:
    """The values as the column `k`, in batches of these sizes, the rest in one."""
    found, at = [], 0
    for size in [*sizes, len(values)]:
        found.append(pa.record_batch({"k": pa.array(values[at : at + size], pa.int64())}))
        at += size
    return found


def keys_of(cut: list[Piece]) -> list[Any]:
    return [value for piece in cut for value in piece.rows["k"].to_pylist()]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 30) | st.none(), max_size=80),
    st.lists(st.integers(0, 20), max_size=8),
    st.integers(1, 25),
)
def test_every_row_comes_once_in_order_and_pieces_end_where_keys_change(
    values: list[int | None], sizes: list[int], wanted: int
) -> None:
    values = sorted(v for v in values if v is not None) + [v for v in values if v is None]

    cut = list(pieces(batches_of(values, sizes), lambda: wanted, ("k",)))

    assert keys_of(cut) == values
    assert [piece.first for piece in cut] == [sum(p.rows.num_rows for p in cut[:n]) for n in range(len(cut))]
    for piece, following in pairwise(cut):
        assert piece.rows["k"][-1].as_py() is None or piece.rows["k"][-1] != following.rows["k"][0]
    doubled = [mark for piece in cut for mark in (piece.doubled if piece.doubled is not None else [])]
    assert doubled == [n > 0 and v is not None and v == values[n - 1] for n, v in enumerate(values)]


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.lists(st.integers(0, 20), max_size=6), st.integers(1, 25))
def test_without_keys_pieces_have_the_wanted_size(values: list[int], sizes: list[int], wanted: int) -> None:
    cut = list(pieces(batches_of(values, sizes), lambda: wanted, first=100))

    assert keys_of(cut) == values
    assert all(piece.rows.num_rows == wanted for piece in cut[:-1])
    assert all(piece.doubled is None for piece in cut)
    assert [piece.first for piece in cut[:1]] == [100] * bool(values)


def test_wide_rows_come_in_pieces_of_bounded_size() -> None:
    wide = pa.record_batch({"k": ["x" * 2**20] * 40})

    cut = list(pieces([wide, wide], lambda: 1000))

    assert sum(piece.rows.num_rows for piece in cut) == 80
    assert max(piece.rows.num_rows for piece in cut) <= MAX_PIECE_BYTES // 2**20


@settings(deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 20), max_size=6))
def test_skipping_leaves_out_the_first_rows(rows: int, sizes: list[int]) -> None:
    left = [v for batch in skipped(batches_of(list(range(30)), sizes), rows) for v in batch["k"].to_pylist()]

    assert left == list(range(30))[rows:]


def test_requests_grow_until_they_take_half_a_second_and_shrink_when_they_take_longer() -> None:
    assert next_rows(256, 0.01, 0.0) == 8 * 256
    assert next_rows(1000, 0.1, 0.0) == 5000
    assert next_rows(1000, 0.4, 0.0) == 1000
    assert next_rows(1000, 5.0, 0.0) == 100
    assert next_rows(1, 60.0, 0.0) == 1
    assert next_rows(1000, 2.0, 1.9) == 2000


def test_a_pace_has_a_bound() -> None:
    pace = Pace()
    for _ in range(10):
        pace.learn(pace.rows, 0.0)

    assert pace.rows == MOST_ROWS


def test_a_small_last_request_says_nothing_of_larger_ones() -> None:
    pace = Pace()
    pace.learn(FIRST_ROWS, 0.01)
    assert pace.rows == 8 * FIRST_ROWS

    pace.learn(3, 0.001)
    assert pace.rows == 8 * FIRST_ROWS
    pace.learn(8 * FIRST_ROWS, 1.0)
    assert pace.rows == 4 * FIRST_ROWS


def test_a_pace_may_be_held_to_one_row() -> None:
    pace = Pace(1)
    pace.learn(1, 0.001)

    assert pace.rows == 1


@settings(deadline=None)
@given(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(), st.floats(allow_nan=False), st.none() | st.binary()))
def test_a_position_comes_back_as_it_was(keys: tuple[Any, ...]) -> None:
    position = Position(10, 7, 3, keys)

    text = position.encode([pa.int64(), pa.string(), pa.float64(), pa.binary()])

    assert Position.decode(text) == position
    assert Position.decode(Position(5).encode()) == Position(5)
