"""Columns of a source become those that a pipeline takes; what does not fit is told before the first row, or row by
row."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from batch_kit import batch_request, columns

from bettong.errors import BadInput
from bettong.jobs.batch.columns import ColumnPlan, list_item, tuples
from bettong.jobs.batch.reading import Piece

LINEAGE = {"job_id": "j", "pipeline_version": "p", "model_version": "m"}
NUMBER: dict[str, Any] = {"y": pa.float32()}


def rows_of(columns: dict[str, Any]) -> pa.RecordBatch:
    return pa.record_batch(columns)


def plan_of(takes: dict[str, Any], source: pa.RecordBatch, gives: dict[str, Any] = NUMBER, **asked: Any) -> ColumnPlan:
    asked.setdefault("keys", [])
    return ColumnPlan(batch_request(columns(takes, gives), **asked), source.schema, LINEAGE, whole_keys=True)


def piece(rows: pa.RecordBatch, first: int = 0, doubled: list[bool] | None = None) -> Piece:
    return Piece(rows, first, None if doubled is None else np.array(doubled))


def one(takes: Any, values: Any, **asked: Any) -> Any:
    """The column `x` as a pipeline that takes this type gets it."""
    source = rows_of({"x": values})
    return plan_of({"x": takes}, source, **asked).asked(piece(source)).rows["x"]


def test_columns_of_numbers_become_one_list() -> None:
    source = rows_of({"a": [1.5, 2.5], "b": pa.array([1, 2], pa.int32()), "c": [Decimal("0.25"), Decimal(4)]})
    kind = pa.list_(pa.float32(), 3)

    rows = plan_of({"t": kind}, source, map={"t": ["a", "b", "c"]}).asked(piece(source)).rows

    assert rows.schema.field("t").type == kind
    assert rows["t"].to_pylist() == [[1.5, 1.0, 0.25], [2.5, 2.0, 4.0]]


def test_columns_of_texts_become_one_list() -> None:
    source = rows_of({"a": ["x", "y"], "b": ["z", ""]})

    rows = plan_of({"t": pa.list_(pa.string())}, source, map={"t": ["a", "b"]}).asked(piece(source)).rows

    assert rows["t"].to_pylist() == [["x", "z"], ["y", ""]]


def test_numbers_too_large_for_the_type_are_left_for_the_pipeline_to_tell() -> None:
    source = rows_of({"a": [1.0, 1e300]})
    lists = pa.array([[1.0], [1e300]], pa.list_(pa.float64()))

    gathered = plan_of({"t": pa.list_(pa.float32(), 1)}, source, map={"t": ["a"]}).asked(piece(source)).rows["t"]

    assert gathered.to_pylist() == [[1.0], [1e300]]
    assert one(pa.list_(pa.float32()), lists).to_pylist() == [[1.0], [1e300]]


def test_lists_that_fit_come_in_just_the_type_that_is_taken() -> None:
    kind = pa.list_(pa.float32(), 2)

    assert one(kind, pa.array([[1, 2], [3, 4]], pa.list_(pa.float64()))).type == kind
    ragged = one(kind, pa.array([[1, 2], [3]], pa.list_(pa.float64())))
    assert ragged.to_pylist() == [[1, 2], [3]]


def test_decimals_become_floats() -> None:
    assert one(pa.float32(), [Decimal("1.25"), Decimal("-3")]).to_pylist() == [1.25, -3.0]


def test_lists_kept_as_json_are_read_and_those_that_are_none_are_told() -> None:
    source = rows_of({"x": ["[1, 2]", "[]", "oops", '[1, "a"]', "7", "[3]"], "id": [1, 2, 3, 4, 5, 6]})

    asked = plan_of({"x": pa.list_(pa.int32())}, source, keys=["id"]).asked(piece(source, 100))

    assert asked.rows["x"].to_pylist() == [[1, 2], [], [3]]
    assert asked.keys.to_pydict() == {"id": [1, 2, 6]}
    assert asked.at.tolist() == [100, 101, 105]
    assert list(asked.faults) == [102, 103, 104]
    assert asked.fault_keys == [(3,), (4,), (5,)]
    assert set(asked.faults.values()) == {"A text that is no JSON of list<item: int32>."}


def test_rows_with_nulls_or_doubled_keys_are_not_sent() -> None:
    source = rows_of({"id": [None, 1, 1, 2], "x": [1.0, 2.0, 3.0, None]})

    asked = plan_of({"x": pa.float64()}, source, keys=["id"]).asked(piece(source, 10, [False, False, True, False]))

    assert asked.rows["x"].to_pylist() == [2.0]
    assert asked.faults == {
        10: "Key column 'id' is null.",
        12: "A row with the same keys came before.",
        13: "Column 'x' is null, and the pipeline takes no null in 'x'.",
    }
    assert asked.fault_keys == [(None,), (1,), (2,)]


def test_everything_that_does_not_fit_is_told_at_once_with_what_is_there() -> None:
    source = rows_of({"id": [1], "name": ["x"], "n": [1.5]})

    with pytest.raises(BadInput) as refused:
        plan_of({"n": pa.int64(), "amount": pa.float64(), "name": pa.bool_()}, source, keys=["key"])

    assert "no key column 'key'" in refused.value.problem
    assert "'n' takes int64, and column 'n' is double" in refused.value.problem
    assert "'amount' takes 'amount', which is not there" in refused.value.problem
    assert "'name' takes bool, and column 'name' is string" in refused.value.problem
    assert "id (int64), name (string), n (double)" in refused.value.next_step


def test_two_columns_of_one_name_are_told() -> None:
    source = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], names=["x", "x"])

    with pytest.raises(BadInput, match="several columns 'x'"):
        plan_of({"x": pa.int64()}, source)


def test_rows_of_the_target_have_keys_outputs_and_lineage() -> None:
    source = rows_of({"id": [7, 8], "x": [1.0, 2.0]})
    gives = {"week": pa.list_(pa.int32()), "mean": pa.float32()}
    plan = plan_of(
        {"x": pa.float64()}, source, gives, keys=["id"], lineage=True, outputs={"first": "week[0]", "mean": "mean"}
    )
    answer = pa.table(
        {"out.week": pa.array([[5, 6], []], pa.list_(pa.int32())), "out.mean": pa.array([1.5, 2.5], pa.float32())}
    )

    written = plan.written(plan.asked(piece(source)).keys, answer)

    assert written.schema.equals(plan.target)
    assert written.to_pylist() == [
        {"id": 7, "first": 5, "mean": 1.5, **LINEAGE},
        {"id": 8, "first": None, "mean": 2.5, **LINEAGE},
    ]


def test_items_of_lists_of_each_kind_null_where_there_is_none() -> None:
    ragged = pa.array([[1, 2], None, [3], [], [4, 5]], pa.list_(pa.int64()))
    fixed = pa.array([[1, 2], [3, 4], None, [5, 6]], pa.list_(pa.int64(), 2))

    assert list_item(ragged, 1).to_pylist() == [2, None, None, None, 5]
    assert list_item(ragged.slice(2), 0).to_pylist() == [3, None, 4]
    assert list_item(fixed.slice(1), 1).to_pylist() == [4, None, 6]
    assert list_item(ragged.slice(0, 0), 0).to_pylist() == []


def test_a_row_whose_list_is_too_short_for_an_item_is_named_and_one_without_a_list_is_not() -> None:
    source = rows_of({"x": [1.0, 2.0, 3.0]})
    plan = plan_of(
        {"x": pa.float64()}, source, {"week": pa.list_(pa.int32())}, outputs={"b": "week[1]", "c": "week[2]"}
    )
    answer = pa.table({"out.week": pa.array([[5, 6, 7], [5], None], pa.list_(pa.int32()))})

    assert plan.short(answer) == {1: "Output 'b' is 'week[1]', and the list of this row has no such item."}
    assert plan.short(answer.slice(1, 1)) == {0: "Output 'b' is 'week[1]', and the list of this row has no such item."}


def test_times_of_nanoseconds_are_keys_too() -> None:
    at = pa.array([1_700_000_000_000_000_001, None], pa.timestamp("ns"))

    assert tuples([at, pa.array([1, 2])], 2) == [(datetime(2023, 11, 14, 22, 13, 20), 1), (None, 2)]
    assert tuples([], 2) == [(), ()]


def test_keys_of_the_pipeline_go_along_when_the_source_has_them() -> None:
    source = rows_of({"x": [1], "who": ["a"]})
    of = columns({"x": pa.int64()}, NUMBER, ("customer",))

    mapped = ColumnPlan(
        batch_request(of, keys=[], map={"customer": "who"}), source.schema, LINEAGE, whole_keys=False
    ).asked(piece(source))
    plain = ColumnPlan(batch_request(of, keys=[]), source.schema, LINEAGE, whole_keys=False).asked(piece(source))

    assert mapped.rows.to_pydict() == {"x": [1], "customer": ["a"]}
    assert plain.rows.to_pydict() == {"x": [1]}
