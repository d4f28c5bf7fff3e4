"""What an inference sends, and what its answer becomes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from unit.wallaroo.stub import Asked, Reply, StubPlatform, deployment, engine_error, error, pipeline_entry

from wallaroo import inference
from wallaroo.object import InferenceError, InferenceTimeoutError

if TYPE_CHECKING:
    from pathlib import Path

    from unit.wallaroo.stub import FakeClock

    from wallaroo.pipeline import Pipeline

ROW = {
    "out.weekly": 1745.5,
    "anomaly.count": 0,
    "in.count": [1, 2],
    "time": 1752681130155,
    "out.forecast": [3, 4],
}
BY_NAME = "/v1/api/pipelines/get_pipeline_by_name"


def test_a_frame_goes_as_records_and_comes_back_as_a_frame_in_the_documented_order(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on("/replica", [ROW])

    result = pipeline.infer(pd.DataFrame({"count": [np.array([1, 2], dtype=np.int32)]}))

    asked = platform.calls("/replica")[0]
    assert asked.json == [{"count": [1, 2]}]
    assert asked.headers["content-type"] == "application/json; format=pandas-records"
    assert asked.headers["x-bettong-client"].startswith("wallaroo/")
    assert asked.query == [("dataset[]", "*"), ("dataset.exclude[]", "metadata"), ("dataset.separator", ".")]
    assert list(result.columns) == ["time", "in.count", "out.forecast", "out.weekly", "anomaly.count"]
    assert str(result["time"].dtype) == "datetime64[ms]"
    assert result["time"][0] == pd.Timestamp("2025-07-16 15:52:10.155")
    assert result["out.forecast"][0] == [3, 4]


def test_a_table_goes_as_an_ipc_file_and_comes_back_as_a_table_in_the_servers_order(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    answer = pa.table({"out.b": [1.0], "time": pa.array([5], pa.timestamp("ms")), "in.a": [2]})
    platform.on("/replica", Reply(inference.table_to_ipc(answer)))

    result = pipeline.infer(pa.table({"a": [2]}))

    asked = platform.calls("/replica")[0]
    assert pa.ipc.open_file(pa.py_buffer(asked.body)).read_all().to_pydict() == {"a": [2]}
    sent = {name: asked.headers[name] for name in ("content-type", "accept", "format")}
    assert sent == {"content-type": inference.ARROW, "accept": inference.ARROW, "format": "arrow"}
    assert result.equals(answer)


def test_a_dict_goes_untouched_without_query_and_its_answer_comes_back_untouched(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on("/replica", [{"outputs": [1]}])

    assert pipeline.infer({"tensor": [[1.0]]}) == [{"outputs": [1]}]

    asked = platform.calls("/replica")[0]
    assert asked.query == []
    assert asked.json == {"tensor": [[1.0]]}
    assert asked.headers["content-type"] == asked.headers["accept"] == "application/json; format=wallaroo"


def test_the_time_of_an_answer_is_kept_for_reading_the_log(pipeline: Pipeline, platform: StubPlatform) -> None:
    newest = pipeline._client._last_inference_ms
    table = pa.table({"time": pa.array([7, 9], pa.timestamp("ms"))})
    platform.on("/replica", Reply([ROW, ROW]), Reply([{"out.b": 1}]), Reply([]), Reply(inference.table_to_ipc(table)))
    frame = pd.DataFrame({"a": [1]})

    for _ in range(3):  # an answer without a time, or without rows, changes nothing
        pipeline.infer(frame)
        assert newest == {(8, "rental"): ROW["time"]}
    pipeline.infer(pa.table({"a": [1]}))
    assert newest == {(8, "rental"): 9}


def test_an_address_keeps_the_query_that_it_has_and_gets_the_one_of_each_call(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on("/replica", [ROW])
    platform.on(
        BY_NAME, pipeline_entry(deployed=True, deployment=deployment(platform.url, f"{platform.url}/replica?k=1"))
    )
    frame = pd.DataFrame({"a": [1]})

    pipeline.infer(frame)
    pipeline.infer(frame, dataset=["out"], dataset_separator="")
    pipeline.infer({"a": [1]})

    default = [("k", "1"), ("dataset[]", "*"), ("dataset.exclude[]", "metadata"), ("dataset.separator", ".")]
    only_out = [("k", "1"), ("dataset[]", "out"), ("dataset.exclude[]", "metadata"), ("dataset.separator", "")]
    assert [asked.query for asked in platform.calls("/replica")] == [default, only_out, [("k", "1")]]


@pytest.mark.parametrize(
    ("dataset", "exclude", "sent"),
    [
        (["time", "out", "metadata"], ["in"], ["time", "out", "metadata", "-in"]),
        (["*", "metadata.partition"], None, ["*", "metadata.partition", "-metadata"]),
        (None, ["in"], ["*", "-in", "-metadata"]),
        (["*"], ["metadata"], ["*", "-metadata"]),
    ],
)
def test_metadata_is_excluded_unless_the_very_word_is_asked_for(
    dataset: list[str] | None, exclude: list[str] | None, sent: list[str]
) -> None:
    params = inference.dataset_params(dataset, exclude, None)

    signs = {"dataset[]": "", "dataset.exclude[]": "-"}
    assert [signs[key] + value for key, value in params if key in signs] == sent


def test_cells_keep_their_digits_and_lose_only_what_json_cannot_say() -> None:
    frame = pd.DataFrame(
        {
            "x": [0.1234567890123456, float("nan")],
            "when": pd.Series([pd.Timestamp("2024-01-01"), pd.NaT]),
            "deep": [np.array([[1.5, np.inf], [2, 3]]), [np.int64(7), np.float32(0.5)]],
            "day": [dt.date(1970, 1, 2), None],
            "money": [Decimal("1.5"), pd.NA],
        }
    )

    rows = json.loads(inference.frame_to_records(frame))

    assert rows[0] == {
        "x": 0.1234567890123456,
        "when": 1704067200000,
        "deep": [[1.5, None], [2.0, 3.0]],
        "day": 86400000,
        "money": 1.5,
    }
    assert rows[1] == {"x": None, "when": None, "deep": [7, 0.5], "day": None, "money": None}


def test_a_cell_that_json_cannot_carry_is_refused_by_its_type_not_its_value() -> None:
    with pytest.raises(TypeError, match="A cell holds a bytes") as caught:
        inference.frame_to_records(pd.DataFrame({"x": [b"secret"]}))
    assert "secret" not in str(caught.value)


def test_two_columns_of_one_name_are_refused_before_one_is_lost() -> None:
    with pytest.raises(ValueError, match="several columns of one name"):
        inference.frame_to_records(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_columns_sort_by_group_and_the_last_group_by_what_follows_the_first_dot() -> None:
    names = ["metadata.elapsed", "out.b", "anomaly.count", "out_two.variable", "out.a", "in.z", "time"]

    frame = inference.records_to_frame([dict.fromkeys(names, 0)])

    expected = ["time", "in.z", "out.a", "out.b", "anomaly.count", "metadata.elapsed", "out_two.variable"]
    assert list(frame.columns) == expected


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            engine_error(400, "tensor values may not be null"),
            "Inference failed: [400] tensor values may not be null (source: engine, status: error)",
        ),
        (error(400, "m"), "Inference failed: [400] m"),
        (Reply(b"Jwt is missing", 401), "Inference failed: [401] Jwt is missing"),
    ],
)
def test_errors_of_each_shape_read_as_captured(
    pipeline: Pipeline, platform: StubPlatform, reply: Reply, text: str
) -> None:
    platform.on("/replica", reply)
    with pytest.raises(InferenceError) as caught:
        pipeline.infer(pd.DataFrame({"a": [1]}))
    assert str(caught.value) == text


def test_a_busy_engine_is_asked_eleven_times_in_all_under_one_request_id(
    pipeline: Pipeline, platform: StubPlatform, clock: FakeClock
) -> None:
    platform.on("/replica", engine_error(503, "queue full"))

    with pytest.raises(InferenceError, match=r"\[503\] queue full"):
        pipeline.infer(pd.DataFrame({"a": [1]}))

    calls = platform.calls("/replica")
    assert len(calls) == 11
    assert len({asked.headers["x-request-id"] for asked in calls}) == 1
    assert clock.slept[:5] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])
    assert max(clock.slept) == 2.0


def test_retry_after_is_honoured_up_to_two_seconds(
    pipeline: Pipeline, platform: StubPlatform, clock: FakeClock
) -> None:
    busy = engine_error(503, "starting")
    platform.on(
        "/replica",
        Reply(busy.body, 503, {"Retry-After": "1"}),
        Reply(busy.body, 503, {"Retry-After": "60"}),
        Reply([ROW]),
    )

    pipeline.infer(pd.DataFrame({"a": [1]}))

    assert clock.slept == [1.0, 2.0]


def test_a_dropped_connection_is_tried_once_more_where_the_replica_is_now(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on("/replica", Reply(hang_up=True))
    platform.on("/moved", [ROW])
    here, moved = (deployment(platform.url, f"{platform.url}/{place}") for place in ("replica", "moved"))
    platform.on(BY_NAME, pipeline_entry(deployment=here), pipeline_entry(deployment=moved))

    pipeline.infer(pd.DataFrame({"a": [1]}))

    first, second = platform.calls("/replica")[0], platform.calls("/moved")[0]
    assert first.headers["x-request-id"] == second.headers["x-request-id"]
    assert len(platform.calls("/replica")) == 1


def test_a_connection_that_keeps_dropping_is_not_tried_for_ever(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on("/replica", Reply(hang_up=True))
    with pytest.raises(InferenceTimeoutError, match="the connection ended before the answer"):
        pipeline.infer(pd.DataFrame({"a": [1]}))
    assert len(platform.calls("/replica")) == 2


def test_a_replica_that_cannot_be_reached_is_reached_through_the_server_and_stays_so(
    pipeline: Pipeline, platform: StubPlatform, unused_port: int
) -> None:
    record = deployment(platform.url, f"http://127.0.0.1:{unused_port}/pipelines/rental")
    platform.on(BY_NAME, pipeline_entry(deployment=record))
    forwarded = "/v1/api/pipelines/infer/rental-5/rental"
    platform.on(forwarded, [ROW])

    pipeline.infer(pd.DataFrame({"a": [1]}))
    looked_up = len(platform.calls(BY_NAME))
    pipeline.infer(pd.DataFrame({"a": [1]}))

    assert len(platform.calls(forwarded)) == 2
    assert len(platform.calls(BY_NAME)) == looked_up


def test_nothing_listening_anywhere_says_the_seconds_and_no_address(
    pipeline: Pipeline, platform: StubPlatform, unused_port: int
) -> None:
    nowhere = f"http://user:hidden@127.0.0.1:{unused_port}/x"
    record = {**deployment(platform.url, nowhere), "external_url": nowhere}
    platform.on(BY_NAME, pipeline_entry(deployment=record))

    with pytest.raises(InferenceTimeoutError, match=r"within 3 seconds.*adjusting the timeout") as caught:
        pipeline.infer(pd.DataFrame({"a": [1]}), timeout=3)

    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_pipeline_that_is_not_deployed_says_so(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(BY_NAME, pipeline_entry(deployment=deployment(platform.url, None, deployed=False)))
    with pytest.raises(RuntimeError, match="Pipeline rental is not deployed"):
        pipeline.infer(pd.DataFrame({"a": [1]}))


@pytest.mark.parametrize(
    "legacy", [{"tensor": ((1.0,), (2.0,)), "n": np.array([1, 2])}, [{"tensor": [[1.0]]}, {"tensor": [[2.0]]}]]
)
def test_a_dict_of_columns_and_a_list_of_such_are_the_legacy_form(
    pipeline: Pipeline, platform: StubPlatform, legacy: Any
) -> None:
    platform.on("/replica", [{"outputs": [1]}])
    assert pipeline.infer(legacy) == [{"outputs": [1]}]
    assert platform.calls("/replica")[0].body == inference.dump(legacy)


@pytest.mark.parametrize(
    ("tensor", "found"),
    [
        ([1, 2], "a list of int"),
        ([[1.0], [2.0]], "a list of list"),
        ([], "an empty list"),
        ({}, "an empty dict"),
        ({"a": 1}, "a dict of int"),
        ([{"a": 1}], "a list of dict"),
        (np.array([1, 2]), "a ndarray"),
        (pd.Series([1]), "a Series"),
        ("rows", "a str"),
        (None, "a NoneType"),
    ],
)
def test_what_holds_no_rows_is_told_to_become_a_frame_or_a_table(
    pipeline: Pipeline, platform: StubPlatform, tensor: Any, found: str
) -> None:
    with pytest.raises(TypeError, match=rf"not as {found}\. Pass a DataFrame or an Arrow table, such as pd\.DataFrame"):
        pipeline.infer(tensor)
    assert platform.calls("/replica") == []


@pytest.mark.parametrize(
    ("tensor", "timeout", "kind"), [("text", None, TypeError), (pd.DataFrame({"a": [1]}), "soon", TypeError)]
)
def test_what_cannot_be_sent_is_refused_here(pipeline: Pipeline, tensor: Any, timeout: Any, kind: type) -> None:
    with pytest.raises(kind):
        pipeline.infer(tensor, timeout=timeout)


@pytest.mark.parametrize("body", [b"not json", b'{"a": 1}'])
def test_an_answer_that_cannot_be_read_is_a_value_error(
    pipeline: Pipeline, platform: StubPlatform, body: bytes
) -> None:
    platform.on("/replica", Reply(body))
    with pytest.raises(ValueError, match="Infer response is not valid"):
        pipeline.infer(pd.DataFrame({"a": [1]}))


def test_files_are_read_by_their_suffix(pipeline: Pipeline, platform: StubPlatform, tmp_path: Path) -> None:
    platform.on("/replica", [ROW])
    (tmp_path / "rows.json").write_text('[{"a": 1}, {"a": 2}]')
    (tmp_path / "empty.json").write_text("[]")
    (tmp_path / "uneven.json").write_text('[{"a": 1}, {"b": 2}]')

    pipeline.infer_from_file(tmp_path / "rows.json")

    assert platform.calls("/replica")[0].json == [{"a": 1}, {"a": 2}]
    with pytest.raises(ValueError, match="non-empty list"):
        pipeline.infer_from_file(tmp_path / "empty.json")
    with pytest.raises(ValueError, match="different keys"):
        pipeline.infer_from_file(tmp_path / "uneven.json")
    with pytest.raises(TypeError, match=r"neither \.json nor \.arrow"):
        pipeline.infer_from_file(tmp_path / "rows.csv")


def test_async_inference_uses_the_callers_client(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on("/replica", [ROW])

    async def run() -> Any:
        async with httpx.AsyncClient() as http:
            return await pipeline.async_infer(pd.DataFrame({"a": [1]}), http)

    assert asyncio.run(run())["anomaly.count"][0] == 0


def test_parallel_batches_come_back_in_order_and_a_failed_one_tells_why_beside_the_good(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    def double(asked: Asked) -> Reply:
        value = asked.json[0]["a"]
        if value == 2:
            return engine_error(400, "two is refused")
        return Reply([{"time": 1, "in.a": value, "out.b": 2 * value}])

    platform.on("/replica", double)

    result = asyncio.run(pipeline.parallel_infer(pd.DataFrame({"a": [1, 2, 3, 4]}), num_parallel=3))

    assert result["in.a"].tolist() == [1, 2, 3, 4]
    assert result["out.b"].tolist()[2:] == [6, 8]
    assert "two is refused" in result["error"][1]
    assert result["error"].isna().tolist() == [True, False, True, True]


@pytest.mark.parametrize(("tensor", "size"), [({"a": 1}, 1), (pd.DataFrame({"a": [1]}), 0)])
def test_parallel_inference_takes_rows_and_a_positive_batch_size(pipeline: Pipeline, tensor: Any, size: int) -> None:
    with pytest.raises(ValueError, match=r"parallel_infer takes|batch_size is 0"):
        asyncio.run(pipeline.parallel_infer(tensor, batch_size=size))
