"""What the spec's chapter 7 says an answer looks like."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from inference_builders import (
    FORECAST,
    FORECAST_IN,
    FORECAST_ROW,
    NOW_MS,
    InProcessRunner,
    MemoryLog,
    ask,
    deployment_spec,
    inference_app,
    model_spec,
)

from bettong.engine.codec import ARROW_FILE, ARROW_STREAM, accepted, format_of
from bettong.engine.problem import problem, status_of
from bettong.errors import BettongError, Conflict, DeadlineExceeded, NotFound, StorageFull, TooLarge, UnsupportedFormat

BODY = orjson.dumps([{"count": FORECAST_ROW}])
SDK_QUERY = "dataset[]=*&dataset.exclude[]=metadata&dataset.separator=."
LAST_MODEL = '{"model_name":"forecast-control-model","model_sha":"80b5sha"}'


def arrow_body(*rows: list[int]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table({"count": list(rows)}, schema=FORECAST_IN)
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_records_nest_time_in_out_anomaly_and_metadata() -> None:
    reply = ask(inference_app(), BODY)

    assert reply.status == 200
    assert reply.headers[b"content-type"] == b"application/json; format=pandas-records"
    (row,) = json.loads(reply.body)
    parse_ns, step_ns = row["metadata"].pop("elapsed")
    assert parse_ns > 0
    assert step_ns > 0
    assert row == {
        "time": NOW_MS,
        "in": {"count": FORECAST_ROW},
        "out": {"forecast": FORECAST, "weekly_average": 1745.2858},
        "anomaly": {"count": 0},
        "metadata": {
            "last_model": LAST_MODEL,
            "pipeline_version": "b5c7-pipeline-version",
            "dropped": [],
            "partition": "rental-forecast-3-r0",
        },
    }
    assert list(row) == ["time", "in", "out", "anomaly", "metadata"]


def test_a_float32_is_written_with_the_digits_of_a_float32() -> None:
    assert b'"weekly_average":1745.2858}' in ask(inference_app(), BODY).body


def test_with_a_separator_the_keys_are_flat_and_the_default_call_leaves_metadata_out() -> None:
    (row,) = json.loads(ask(inference_app(), BODY, query=SDK_QUERY).body)

    assert row == {
        "time": NOW_MS,
        "in.count": FORECAST_ROW,
        "out.forecast": FORECAST,
        "out.weekly_average": 1745.2858,
        "anomaly.count": 0,
    }
    assert list(row) == ["time", "in.count", "out.forecast", "out.weekly_average", "anomaly.count"]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("dataset[]=time&dataset[]=out.forecast", [{"time": NOW_MS, "out": {"forecast": FORECAST}}]),
        ("dataset[]=anomaly&dataset.separator=_", [{"anomaly_count": 0}]),
        ("dataset[]=metadata.partition", [{"metadata": {"partition": "rental-forecast-3-r0"}}]),
        ("dataset[]=out&dataset.exclude[]=out.forecast", [{"out": {"weekly_average": 1745.2858}}]),
        ("dataset.exclude[]=*", [{}]),
    ],
)
def test_dataset_chooses_what_is_answered(query: str, answer: Any) -> None:
    assert json.loads(ask(inference_app(), BODY, query=query).body) == answer


def test_rows_keep_their_order_and_share_time_and_metadata() -> None:
    async def first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"forecast": row["count"][:1], "weekly_average": float("nan")} for row in rows]

    rows = json.loads(
        ask(inference_app([InProcessRunner(first)]), orjson.dumps([{"count": [i]} for i in range(50)])).body
    )

    assert [row["out"]["forecast"] for row in rows] == [[i] for i in range(50)]
    assert {row["time"] for row in rows} == {NOW_MS}
    assert all(row["metadata"] == rows[0]["metadata"] for row in rows)
    assert {row["out"]["weekly_average"] for row in rows} == {None}, "JSON has no NaN"


def test_arrow_in_arrow_out() -> None:
    reply = ask(
        inference_app(),
        arrow_body(FORECAST_ROW, [1]),
        headers={"content-type": ARROW_FILE, "accept": ARROW_FILE},
        query="dataset[]=*",
    )

    assert reply.headers[b"content-type"] == ARROW_FILE.encode()
    table = pa.ipc.open_file(reply.body).read_all()
    assert [(field.name, field.type, field.nullable) for field in table.schema] == [
        ("time", pa.timestamp("ms"), False),
        ("in.count", pa.list_(pa.int32()), True),
        ("out.forecast", pa.list_(pa.int32()), True),
        ("out.weekly_average", pa.float32(), True),
        ("anomaly.count", pa.uint32(), False),
        ("metadata.last_model", pa.string(), False),
        ("metadata.pipeline_version", pa.string(), False),
        ("metadata.elapsed", pa.list_(pa.uint64()), False),
        ("metadata.dropped", pa.list_(pa.string()), False),
        ("metadata.partition", pa.string(), False),
    ]
    assert table.column("in.count").to_pylist() == [FORECAST_ROW, [1]]
    assert table.column("out.forecast").to_pylist() == [FORECAST] * 2
    assert (
        table.column("time").to_pylist() == [dt.datetime.fromtimestamp(NOW_MS / 1000, dt.UTC).replace(tzinfo=None)] * 2
    )
    assert table.column("anomaly.count").to_pylist() == [0, 0]


def test_arrow_answers_take_the_dataset_parameters_too() -> None:
    reply = ask(inference_app(), BODY, headers={"accept": ARROW_STREAM}, query="dataset[]=out&dataset.separator=_")

    assert pa.ipc.open_stream(reply.body).read_all().column_names == ["out_forecast", "out_weekly_average"]


def test_an_arrow_request_without_accept_gets_records() -> None:
    reply = ask(inference_app(), arrow_body(FORECAST_ROW), headers={"content-type": ARROW_FILE})

    assert json.loads(reply.body)[0]["out"]["forecast"] == FORECAST


def test_the_old_json_form_gets_its_old_answer() -> None:
    wallaroo = "application/json; format=wallaroo"

    reply = ask(
        inference_app(),
        orjson.dumps({"count": [FORECAST_ROW, [1]]}),
        headers={"content-type": wallaroo, "accept": wallaroo},
    )

    (answer,) = json.loads(reply.body)
    assert answer["outputs"] == {"forecast": [FORECAST] * 2, "weekly_average": [1745.2858] * 2}
    assert answer["model_name"] == "forecast-control-model"
    assert answer["check_failures"] == []
    assert len(answer["elapsed"]) == 2


OUTPUTS = [
    (pa.bool_(), True, True),
    (pa.int64(), -(2**63), -(2**63)),
    (pa.uint64(), 2**64 - 1, 2**64 - 1),
    (pa.float16(), 0.5, 0.5),
    (pa.float32(), 0.1, 0.1),
    (pa.float64(), 0.1, 0.1),
    (pa.float64(), float("inf"), None),
    (pa.string(), "grüß", "grüß"),
    (pa.binary(), b"\x00\x01\x02", "AAEC"),
    (pa.timestamp("ns"), dt.datetime(2025, 7, 16, 15, 52, 10, 155999), NOW_MS),
    (pa.timestamp("s", "UTC"), dt.datetime(1970, 1, 1, 0, 0, 2, tzinfo=dt.UTC), 2000),
    (pa.date32(), dt.date(2025, 7, 16), "2025-07-16"),
    (pa.decimal128(6, 2), Decimal("1234.50"), "1234.50"),
    (pa.list_(pa.float32()), [0.1, float("nan")], [0.1, None]),
    (pa.list_(pa.float32(), 2), [0.1, 0.2], [0.1, 0.2]),
    (pa.list_(pa.list_(pa.float32())), [[0.1], [], [0.2, 3.0]], [[0.1], [], [0.2, 3.0]]),
    (pa.list_(pa.string()), ["a"], ["a"]),
    (pa.list_(pa.bool_()), [True, False], [True, False]),
    (pa.struct([("a", pa.float32()), ("b", pa.list_(pa.int8()))]), {"a": 0.1, "b": [1]}, {"a": 0.1, "b": [1]}),
    (pa.list_(pa.struct([("a", pa.date32())])), [{"a": dt.date(2025, 1, 2)}], [{"a": "2025-01-02"}]),
    (pa.float32(), None, None),
    (pa.list_(pa.int32()), None, None),
    (pa.list_(pa.float32()), [0.1, None], [0.1, None]),
    (pa.struct([("a", pa.int8())]), {"a": None}, {"a": None}),
]


@pytest.mark.parametrize(("kind", "value", "written"), OUTPUTS, ids=str)
def test_outputs_of_every_type_are_written(kind: Any, value: Any, written: Any) -> None:
    schema = pa.schema([pa.field("y", kind)])

    async def model(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"y": value} for _ in rows]

    app = inference_app([InProcessRunner(model, FORECAST_IN, schema)])
    body = orjson.dumps([{"count": [1]}, {"count": [2]}])

    assert json.loads(ask(app, body, query="dataset[]=out").body) == [{"out": {"y": written}}] * 2
    arrow = ask(app, body, query="dataset[]=out", headers={"accept": ARROW_FILE}).body
    assert pa.ipc.open_file(arrow).read_all().schema.field("out.y").type == kind


def test_the_last_models_name_is_that_of_the_last_step() -> None:
    async def same(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return rows

    spec = deployment_spec(models=(model_spec("first"), model_spec("second")))
    app = inference_app([InProcessRunner(same, FORECAST_IN, FORECAST_IN)] * 2, spec=spec)

    metadata = json.loads(ask(app, BODY).body)[0]["metadata"]

    assert json.loads(metadata["last_model"])["model_name"] == "second"
    assert len(metadata["elapsed"]) == 3


def test_the_log_gets_all_columns_and_the_request_id_whatever_was_asked_for() -> None:
    log = MemoryLog()

    ask(inference_app(log=log), BODY, query="dataset[]=time", headers={"x-request-id": "try-7"})

    (batch,) = log.answered
    assert batch.schema.names == [
        "time", "in.count", "out.forecast", "out.weekly_average", "anomaly.count", "metadata.last_model",
        "metadata.pipeline_version", "metadata.elapsed", "metadata.dropped", "metadata.partition",
        "metadata.request_id",
    ]  # fmt: skip
    assert batch.column("metadata.request_id").to_pylist() == ["try-7"]
    assert batch.column("in.count").to_pylist() == [FORECAST_ROW]


def test_an_input_above_the_stated_row_size_stays_out_of_the_log_and_is_named() -> None:
    async def first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"count": row["image"][:1]} for row in rows]

    schema = pa.schema([pa.field("id", pa.int64()), pa.field("image", pa.list_(pa.int32()))])
    log = MemoryLog()
    app = inference_app(
        [InProcessRunner(first, schema, FORECAST_IN)], spec=deployment_spec(max_logged_row_bytes=400), log=log
    )
    large, small = ([{"id": n, "image": [n] * size} for n in range(2)] for size in (120, 50))

    answers = [json.loads(ask(app, orjson.dumps(rows)).body) for rows in (large, small)]

    assert [[row["metadata"]["dropped"] for row in rows] for rows in answers] == [[["in.image"]] * 2, [[]] * 2]
    assert answers[0][1]["in"] == large[1], "the caller gets it back all the same"
    dropped, whole = log.answered
    assert "in.image" not in dropped.schema.names
    assert dropped.column("in.id").to_pylist() == [0, 1]
    assert dropped.column("out.count").to_pylist() == [[0], [1]]
    assert dropped.column("metadata.dropped").to_pylist() == [["in.image"]] * 2
    assert whole.column("in.image").to_pylist() == [[0] * 50, [1] * 50]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (b"", "application/json; format=pandas-records"),
        (b"*/*", "application/json; format=pandas-records"),
        (b"text/html", "application/json; format=pandas-records"),
        (b"application/vnd.apache.arrow.file", ARROW_FILE),
        (b"application/json;q=0.5, application/vnd.apache.arrow.file", ARROW_FILE),
        (b"application/json, application/vnd.apache.arrow.file;q=nan-ish", "application/json; format=pandas-records"),
        (b"application/vnd.apache.arrow.file;q=0, text/html", "application/json; format=pandas-records"),
    ],
)
def test_the_most_preferred_of_our_forms_is_answered(accept: bytes, content_type: str) -> None:
    assert accepted(accept).value == content_type


@pytest.mark.parametrize("content_type", [b"", b"text/csv", b"application/json; format=xml", b"application/jsonx"])
def test_an_unknown_content_type_is_told_which_are_known(content_type: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=r"pandas-records.*format=wallaroo.*arrow.file"):
        format_of(content_type)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TooLarge("x"), 413),
        (UnsupportedFormat("x"), 415),
        (NotFound("x"), 404),
        (Conflict("x"), 409),
        (DeadlineExceeded("x"), 504),
        (StorageFull("x"), 507),
        (BettongError("x"), 500),
        (KeyError("x"), 500),
    ],
)
def test_the_nearest_class_decides_the_status(error: Exception, status: int) -> None:
    class Finer(type(error)):  # type: ignore[misc]
        pass

    assert status_of(error) == status_of(Finer("x")) == status


def test_a_fault_of_ours_shows_nothing_but_where_to_look(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("a secret")
    except KeyError as error:
        answer = problem(error, "try-7")

    body = json.loads(answer.body)
    assert (body["code"], body["status"], body["source"]) == (500, "error", "engine")
    assert "try-7" in body["error"]
    assert "secret" not in body["error"]
    assert "a secret" in caplog.text
