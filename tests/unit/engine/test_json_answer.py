"""Answers written by columns say what answers written row by row say."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.engine.answer import Answer, AnswerShape, Origin
from bettong.engine.dataset import Dataset
from bettong.engine.json_answer import encode_batch, encode_records

VALUES: dict[Any, st.SearchStrategy[Any]] = {
    pa.bool_(): st.booleans(),
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float16(): st.floats(width=16),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.string(): st.text(alphabet='a",[]{}\\ü\n', max_size=6),
    pa.large_string(): st.just("],["),
    pa.binary(): st.binary(max_size=4),
}


@st.composite
def columns(draw: st.DrawFn, rows: int) -> pa.Array[Any]:
    """A column of any kind, with nulls in some places, cut out of a longer one."""
    kind = draw(st.sampled_from(sorted(VALUES, key=str)))
    nulls = draw(st.booleans())
    value = VALUES[kind] | st.none() if nulls else VALUES[kind]
    for _ in range(draw(st.integers(0, 3))):
        size = draw(st.none() | st.integers(0, 3))
        value = st.lists(value, min_size=size or 0, max_size=3 if size is None else size)
        form = draw(st.sampled_from(["list", "large", "fixed"]))
        if form == "fixed" and size is not None:
            kind = pa.list_(kind, size)
        else:
            kind = pa.large_list(kind) if form == "large" else pa.list_(kind)
        if nulls:
            value = value | st.none()
    if draw(st.integers(0, 5)) == 0:
        kind, value = pa.struct([("a", kind)]), st.builds(lambda v: {"a": v}, value)
    before, after = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    count = before + rows + after
    made: pa.Array[Any] = pa.array(draw(st.lists(value, min_size=count, max_size=count)), kind).slice(before, rows)
    return made


def plain(value: Any, kind: Any) -> Any:
    """One value as JSON has it."""
    if value is None:
        return None
    if isinstance(value, list):
        return [plain(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        return {key: plain(item, kind.field(key).type) for key, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (float, np.floating)):
        if not math.isfinite(value):
            return None
        return float(value) if kind == pa.float64() else float(str(np.float32(value)))
    return value


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    values = [[plain(v, c.type) for v in c.to_pylist()] for c in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*values, strict=True)]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), rows=st.integers(1, 4))
def test_every_column_of_any_shape_is_written_as_its_rows_are(data: st.DataObject, rows: int) -> None:
    arrays = [data.draw(columns(rows)) for _ in range(data.draw(st.integers(1, 3)))]
    names = [f"out.{at}" for at in range(len(arrays))]
    batch = pa.RecordBatch.from_arrays(arrays, names)

    flat = json.loads(encode_batch(batch, Dataset(separator=".")))
    nested = json.loads(encode_batch(batch, Dataset()))

    expected = rows_of(batch)
    assert flat == expected
    assert nested == [{"out": {name.removeprefix("out."): value for name, value in row.items()}} for row in expected]


ORIGIN = Origin('{"model_name":"m"}', "v-1", "r0")
INPUTS, OUTPUTS = pa.schema([("x", pa.int8())]), pa.schema([("y", pa.string()), ("z", pa.list_(pa.float32()))])
SHAPE = AnswerShape(INPUTS, OUTPUTS, ORIGIN, 2**20)
NAMES = ["*", "time", "in", "in.x", "out", "out.y", "out.z", "anomaly", "metadata", "metadata.elapsed"]


@settings(max_examples=200, deadline=None)
@given(
    rows=st.integers(1, 3),
    include=st.lists(st.sampled_from(NAMES), min_size=1, max_size=3),
    exclude=st.lists(st.sampled_from(NAMES), max_size=2),
    separator=st.sampled_from([None, "", ".", "_", '"']),
)
def test_any_choice_of_columns_is_written_as_from_the_whole_answer(
    rows: int, include: list[str], exclude: list[str], separator: str | None
) -> None:
    dataset = Dataset(tuple(include), tuple(exclude), separator)
    inputs = pa.Table.from_pylist([{"x": n} for n in range(rows)], schema=INPUTS)
    outputs = pa.Table.from_pylist([{"y": f'"{n}', "z": [0.1] * n} for n in range(rows)], schema=OUTPUTS)
    answer = Answer(SHAPE, 7, inputs, outputs, (1, 2), "r-1")
    whole = pa.RecordBatch.from_arrays([answer.column(at) for at in range(len(SHAPE.names))], schema=SHAPE.schema)

    assert encode_records(answer, dataset) == encode_batch(whole.cast(_by_value(SHAPE.schema)), dataset)


def _by_value(schema: pa.Schema) -> pa.Schema:
    """Times as the numbers that JSON has for them, so that none is written by the code under test."""
    return schema.set(0, pa.field("time", pa.int64(), nullable=False))
