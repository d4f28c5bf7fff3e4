"""One row of numbers on its short way says what it says on the general one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from inference_builders import (
    NOW_MS,
    InProcessRunner,
    MemoryLog,
    access_token,
    ask,
    deployment_spec,
    inference_app,
)
from number_texts import bodies, kinds, schema_of

from bettong.engine.answer import Answer, AnswerShape, Origin
from bettong.engine.dataset import Dataset
from bettong.engine.json_answer import encode_records
from bettong.engine.json_codec import decode_any_records
from bettong.engine.one_row import OneRow, encode_row
from bettong.errors import StorageFull

FLOATS = pa.schema([pa.field("x", pa.list_(pa.float32())), pa.field("n", pa.int64())])
SUMS = pa.schema([pa.field("sum", pa.float32()), pa.field("twice", pa.list_(pa.float32()))])


def headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"127.0.0.1"),
        (b"authorization", f"Bearer {access_token()}".encode()),
        (b"content-type", b"application/json"),
        (b"x-request-id", b"r-1"),
    ]


def way(inputs: pa.Schema, outputs: pa.Schema = SUMS) -> OneRow:
    found = OneRow.of(inputs, outputs)
    assert found is not None
    return found


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_a_row_that_is_taken_is_read_as_the_general_way_reads_it(data: st.DataObject) -> None:
    schema = schema_of(*[data.draw(kinds(depth=1)) for _ in range(data.draw(st.integers(1, 3)))])
    body = data.draw(bodies(schema, most_rows=2))

    arrays = way(schema).decode(body)

    event("left" if arrays is None else "taken")
    if arrays is None:
        return
    table = decode_any_records(body, schema)
    assert table.num_rows == 1
    for array, field in zip(arrays, schema, strict=True):
        assert array.dtype == getattr(field.type, "value_type", field.type).to_pandas_dtype()
        assert repr(array.tolist()) == repr(table.column(field.name).to_pylist())


@pytest.mark.parametrize(
    "body", [b"", b"[", b"{}", b"[]", b"[1]", b'[{"x":[1]}]', b'[{"x":[1],"n":1},{"x":[1],"n":1}]', b'[{"x":1,"n":1}]']
)
def test_what_is_no_row_of_the_schema_is_left_to_the_general_way(body: bytes) -> None:
    assert way(FLOATS).decode(body) is None


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        ([pa.list_(pa.float32()), pa.int8()], True),
        ([pa.large_list(pa.float16()), pa.list_(pa.uint64(), 3)], True),
        ([pa.bool_()], False),
        ([pa.list_(pa.list_(pa.float32()))], False),
        ([pa.float32(), pa.string()], False),
        ([pa.timestamp("ms")], False),
    ],
)
def test_only_numbers_and_lists_of_numbers_go_the_short_way(kinds: list[Any], taken: bool) -> None:
    schema = schema_of(*kinds)
    assert (OneRow.of(schema, SUMS) is not None) is taken
    assert (OneRow.of(FLOATS, schema) is not None) is taken


@pytest.mark.parametrize(
    ("outputs", "taken"),
    [
        ([np.ones(1, np.float32), np.ones((1, 5), np.float32)], True),
        ([np.ones(1, np.float32), np.ones((1, 0), np.float32)], True),
        ([np.ones(1, np.float64), np.ones((1, 5), np.float32)], False),
        ([np.ones(2, np.float32), np.ones((1, 5), np.float32)], False),
        ([np.ones((1, 1), np.float32), np.ones((1, 5), np.float32)], False),
        ([np.ones(1, np.float32), np.ones((2, 5), np.float32)], False),
        ([np.ones(1, np.float32)], False),
    ],
)
def test_outputs_that_are_not_what_the_schema_says_are_left_to_the_general_way(outputs: Any, taken: bool) -> None:
    assert way(FLOATS).takes(outputs) is taken


@settings(max_examples=200, deadline=None)
@given(
    include=st.lists(st.sampled_from(["*", "time", "in.x", "out", "out.sum", "metadata"]), min_size=1, max_size=3),
    exclude=st.lists(st.sampled_from(["in", "out.twice", "anomaly", "metadata.elapsed"]), max_size=2),
    separator=st.sampled_from([None, ".", "_"]),
    numbers=st.lists(st.floats(width=32), max_size=3),
)
def test_a_row_is_written_as_the_general_way_writes_it(
    include: list[str], exclude: list[str], separator: str | None, numbers: list[float]
) -> None:
    dataset = Dataset(tuple(include), tuple(exclude), separator)
    shape = AnswerShape(FLOATS, SUMS, Origin("{}", "v", "r0"), 2**20)
    inputs = pa.Table.from_pylist([{"x": numbers, "n": -1}], schema=FLOATS)
    outputs = pa.Table.from_pylist([{"sum": 0.1, "twice": numbers}], schema=SUMS)
    floats = np.array([numbers], np.float32)

    short = encode_row(
        shape,
        dataset,
        [floats, np.array([-1]), np.array([0.1], np.float32), floats],
        shape.shared(7, (1, 2), ()),
    )

    assert short == encode_records(Answer(shape, 7, inputs, outputs, (1, 2), "r-1"), dataset)


class RowRunner(InProcessRunner):
    """Sums of numbers, on both ways. A row that begins with 13 fails, one with 14 is not answered at once."""

    def __init__(self) -> None:
        self.rows = 0

        async def sums(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if any(row["x"][:1] == [13] for row in rows):
                raise ValueError("13")
            return [{"sum": sum(row["x"]) + row["n"], "twice": [2 * x for x in row["x"]]} for row in rows]

        super().__init__(sums, FLOATS, SUMS)

    def predict_row(self, inputs: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]] | None:
        x, n = inputs
        if x.size and x[0, 0] == 13:
            raise ValueError("13")
        if x.size and x[0, 0] == 14:
            return None
        self.rows += 1
        return [(x.astype(np.float64).sum(1) + n).astype(np.float32), x * 2]

    def predict_now(self, rows: pa.Table) -> pa.Table | None:
        return None


BODIES = [
    b'[{"x":[1,2.5],"n":3}]', b'[{"n":3,"x":[]}]', b'[{"x":[1e300],"n":3}]', b'[{"x":[1],"n":3.0}]',
    b'[{"x":[null],"n":3}]', b'[{"x":[13],"n":3}]', b'[{"x":[14],"n":3}]', b'[{"x":[1],"n":3},{"x":[1],"n":3}]',
    b'[{"x":[1]}]', b"rubbish", orjson.dumps([{"x": [0.1] * 4000, "n": 1}]),
]  # fmt: skip


@pytest.mark.parametrize("refusal", [None, StorageFull("full"), OSError(28, "full")])
@pytest.mark.parametrize("query", ["", "dataset[]=out&dataset.separator=.", "dataset[]=nonsense"])
@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body[:30]))
def test_the_short_way_answers_and_logs_what_the_general_one_does(
    body: bytes, query: str, refusal: Exception | None
) -> None:
    logs = [MemoryLog(refusal=refusal), MemoryLog(refusal=refusal)]
    app, plain_app = (inference_app([RowRunner()], log=log) for log in logs)

    reply = app.now(b"POST", f"/infer?{query}".encode(), headers(), body)

    if reply is None:
        assert (logs[0].answered, logs[0].failed) == ([], [])
        return
    given_headers: dict[str, str | None] = {name.decode(): value.decode() for name, value in headers()}
    plain = ask(plain_app, body, query=query, headers=given_headers)
    assert reply.status == plain.status
    ours, theirs = json.loads(bytes(reply.body)), json.loads(plain.body)
    for row in [*ours, *theirs] if reply.status == 200 else []:
        row.get("metadata", {}).pop("elapsed", None)
    assert ours == theirs
    assert [told(rows) for rows in logs[0].answered] == [told(rows) for rows in logs[1].answered]


def told(rows: pa.RecordBatch) -> Any:
    return rows.drop_columns(["metadata.elapsed"]).to_pylist(), rows.schema.to_string()


def test_one_row_of_numbers_is_answered_without_the_general_way() -> None:
    runner, log = RowRunner(), MemoryLog()

    reply = inference_app([runner], log=log).now(b"POST", b"/infer?dataset[]=time&dataset[]=out", headers(), BODIES[0])

    assert reply is not None
    assert json.loads(bytes(reply.body)) == [{"time": NOW_MS, "out": {"sum": 6.5, "twice": [2.0, 5.0]}}]
    assert runner.rows == 1
    (batch,) = log.answered
    assert batch.column("in.x").to_pylist() == [[1.0, 2.5]]
    assert batch.column("metadata.request_id").to_pylist() == ["r-1"]
    (elapsed,) = batch.column("metadata.elapsed").to_pylist()
    assert elapsed is not None
    assert len(elapsed) == 2


def test_a_row_that_the_log_would_drop_a_column_of_goes_the_general_way() -> None:
    runner, log = RowRunner(), MemoryLog()
    app = inference_app([runner], log=log, spec=deployment_spec(max_logged_row_bytes=7))

    assert app.now(b"POST", b"/infer", headers(), BODIES[0]) is None
    assert ask(app, BODIES[0]).status == 200
    assert log.answered[0].column("metadata.dropped").to_pylist() == [["in.x", "in.n"]]
