"""Many rows of numbers travel as Arrow, and mean to the engine what their JSON would mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.wallaroo.stub import StubPlatform, engine_error

from bettong.engine.arrow_codec import decode_arrow
from bettong.engine.json_codec import decode_any_records
from bettong.errors import BadInput
from wallaroo._numbers import FROM_ROWS, table_of
from wallaroo.inference import ARROW, RECORDS, frame_to_records, request_of, table_to_ipc
from wallaroo.object import InferenceError

if TYPE_CHECKING:
    from wallaroo.pipeline import Pipeline

TIMES = pd.to_datetime(["2026-01-01", "2026-01-02"])


def said(frame: pd.DataFrame, schema: pa.Schema, *, as_arrow: bool) -> str | list[dict[str, Any]]:
    """What the engine reads in a request: the rows, or that it refuses them."""
    try:
        if not as_arrow:
            return decode_any_records(frame_to_records(frame), schema).to_pylist()
        table = table_of(frame)
        assert table is not None
        return decode_arrow(table_to_ipc(table), schema, max_unpacked_bytes=2**30).to_pylist()
    except BadInput:
        return "refused"


FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, 1.0, 1e39, -0.0, 2.0**24 + 1])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300)
CELLS = st.lists(st.lists(FINITE | WHOLE, max_size=3), min_size=1, max_size=4)
KINDS = [pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64()]


@settings(max_examples=400, deadline=None)
@given(cells=CELLS, kind=st.sampled_from([*KINDS, pa.bool_(), pa.string(), pa.timestamp("ms")]))
def test_lists_of_numbers_are_read_as_from_json(cells: list[list[Any]], kind: pa.DataType) -> None:
    frame = pd.DataFrame({"x": cells})
    schema = pa.schema([pa.field("x", pa.list_(kind))])

    if table_of(frame) is not None and (read := said(frame, schema, as_arrow=True)) != "refused":
        assert repr(read) == repr(said(frame, schema, as_arrow=False))


@settings(max_examples=300, deadline=None)
@given(
    values=st.lists(FINITE, min_size=1, max_size=4),
    dtype=st.sampled_from(["f4", "f8"]),
    kind=st.sampled_from([*KINDS, pa.bool_(), pa.string(), pa.timestamp("ms"), pa.date32(), pa.decimal128(9, 2)]),
)
def test_floats_are_read_as_from_json(values: list[float], dtype: str, kind: pa.DataType) -> None:
    with np.errstate(over="ignore"):
        frame = pd.DataFrame({"x": np.array(values, dtype)})
    schema = pa.schema([pa.field("x", kind)])

    if table_of(frame) is not None and (read := said(frame, schema, as_arrow=True)) != "refused":
        assert repr(read) == repr(said(frame, schema, as_arrow=False))


@pytest.mark.parametrize(
    "column",
    [
        [1, 2],
        ["2026-01-01", "a"],
        [True, False],
        [1.0, float("nan")],
        [1.0, float("inf")],
        [[1.0], None],
        [[1.0], [None]],
        [[1.0], [float("nan")]],
        [[True], [False]],
        [["a"], ["b"]],
        [[1.0], "a"],
        [[1.0], 2.0],
        [{"a": 1}, {"a": 2}],
        [np.ones((2, 2)), np.ones((2, 2))],
        TIMES,
        pd.array([1.0, None], "Float64"),
    ],
    ids=lambda column: str(list(column))[:40],
)
def test_what_is_not_plainly_numbers_goes_as_json(column: Any) -> None:
    assert table_of(pd.DataFrame({"x": [[1.0], [2.0]], "y": column})) is None


def test_columns_of_one_name_are_refused_as_ever() -> None:
    frame = pd.DataFrame(np.ones((FROM_ROWS, 2)), columns=["x", "x"])

    with pytest.raises(ValueError, match="several columns of one name"):
        request_of(frame)


@pytest.mark.parametrize(("rows", "kind"), [(FROM_ROWS - 1, RECORDS), (FROM_ROWS, ARROW)])
def test_many_rows_go_as_arrow_and_come_back_as_json(rows: int, kind: str) -> None:
    frame = pd.DataFrame({"x": np.ones(rows), "tensor": [np.ones(3, np.float32)] * rows})

    request, decode = request_of(frame)

    assert request.headers["Content-Type"] == kind
    assert request.headers.get("Accept", RECORDS) == RECORDS
    assert decode(b'[{"time":1,"out.y":0.1}]').value.loc[0, "out.y"] == 0.1


def test_many_rows_of_anything_else_go_as_json() -> None:
    request, _ = request_of(pd.DataFrame({"n": range(FROM_ROWS)}))

    assert request.headers["Content-Type"] == RECORDS


def test_what_is_refused_as_arrow_is_judged_as_json(pipeline: Pipeline, platform: StubPlatform) -> None:
    refusals = [engine_error(400, words) for words in ("not like this", "a", "b")]
    platform.on("/replica", refusals[0], [{"time": 1}], *refusals[1:])
    frame = pd.DataFrame({"x": np.ones(FROM_ROWS)})

    assert len(pipeline.infer(frame)) == 1
    with pytest.raises(InferenceError, match=r"\bb\b"):
        pipeline.infer(frame)

    assert [asked.headers["content-type"] for asked in platform.calls("/replica")] == [ARROW, RECORDS] * 2


def test_a_few_rows_that_are_refused_are_not_sent_again(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on("/replica", engine_error(400, "a"))

    with pytest.raises(InferenceError, match=r"\ba\b"):
        pipeline.infer(pd.DataFrame({"x": [1.0]}))

    assert len(platform.calls("/replica")) == 1
