"""Reading the inference log back."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from unit.wallaroo.stub import FakeClock, Reply, StubPlatform, error

from wallaroo import inference
from wallaroo.object import EntityNotFoundError, RequestRefused

if TYPE_CHECKING:
    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

TOPIC = "/v1/logs/topic/workspace-8-pipeline-rental-inference/records"
FAILURES = "/v1/logs/topic/workspace-8-pipeline-rental-failures/records"
START = datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
END = datetime(2024, 1, 2, tzinfo=timezone.utc)  # noqa: UP017


def page(status: str = "All", cursor: str | None = None, **columns: list[Any]) -> Reply:
    times = columns.pop("time", [3, 2])
    table = pa.table({"time": pa.array(times, pa.timestamp("ms")), **(columns or {"out.a": [1.5, 2.5]})})
    state = {"status": status, "next": cursor and {"cursor": cursor}}
    return Reply(inference.table_to_ipc(table.replace_schema_metadata({"status": json.dumps(state)})))


def test_without_dates_the_newest_hundred_rows_come_newest_first(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(TOPIC, page())

    frame = pipeline.logs()

    asked = platform.calls(TOPIC)[0]
    expected = [("page_size", "100"), ("order", "desc"), ("dataset[]", "*"), ("dataset.separator", ".")]
    assert asked.query == expected
    assert asked.json == {}
    assert asked.headers["accept"] == inference.ARROW
    assert list(frame.columns) == ["time", "out.a"]
    assert frame.index.tolist() == [0, 1]
    assert str(frame["time"].dtype) == "datetime64[ms]"


def test_dates_go_in_utc_without_order_and_without_a_page_size_of_ours(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on(TOPIC, page())
    pipeline.logs(start_datetime=START, end_datetime=END)
    pipeline.logs(limit=7, start_datetime=START, end_datetime=END)
    unlimited, limited = (dict(asked.query) for asked in platform.calls(TOPIC))
    assert unlimited["time.start"] == "2024-01-01T10:00:00+00:00"
    assert unlimited["time.end"] == "2024-01-02T00:00:00+00:00"
    assert not {"order", "page_size"} & unlimited.keys()
    assert limited["page_size"] == "7"


def test_one_date_alone_is_refused_and_a_naive_one_counts_as_utc_with_a_warning(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page())
    with pytest.raises(ValueError, match="both start_datetime and end_datetime"):
        pipeline.logs(start_datetime=START)
    pipeline.logs(start_datetime=datetime(2024, 1, 1), end_datetime=END)
    assert dict(platform.calls(TOPIC)[0].query)["time.start"] == "2024-01-01T00:00:00+00:00"
    assert "start_datetime has no time zone and is taken as UTC" in capsys.readouterr().err


def test_metadata_is_dropped_unless_the_very_word_is_asked_for(pipeline: Pipeline, platform: StubPlatform) -> None:
    columns: Any = {"out.a": [1, 2], "metadata.partition": ["p", "p"]}
    platform.on(TOPIC, page(**columns))
    assert list(pipeline.logs().columns) == ["time", "out.a"]
    assert list(pipeline.logs(dataset=["time", "metadata.partition"]).columns) == ["time", "out.a"]
    assert list(pipeline.logs(dataset=["*", "metadata"]).columns) == ["time", "out.a", "metadata.partition"]
    assert dict(platform.calls(TOPIC)[0].query).get("dataset.exclude[]") is None


def test_failed_inferences_have_a_topic_of_their_own_and_tables_stay_tables(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on(FAILURES, page())
    assert isinstance(pipeline.logs(valid=False, arrow=True), pa.Table)


def test_a_log_that_was_never_written_is_empty(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(TOPIC, error(404, "no such topic"))
    assert pipeline.logs().empty


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (
            "RecordLimited",
            "Warning: There are more logs available. Please set a larger limit or request a file using export_logs.\n",
        ),
        ("ByteLimited", "Warning: Pipeline log size limit exceeded. Please request logs using export_logs\n"),
        (
            "SchemaChange",
            "Warning: Pipeline log schema changed within the requested logs. The 2 newest records are here, "
            "the newest of 1970-01-01T00:00:00.003000+00:00. Please request the rest by its dates.\n",
        ),
        ("All", ""),
    ],
)
def test_what_is_missing_from_a_page_is_said_on_stderr(
    pipeline: Pipeline, platform: StubPlatform, status: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page(status))
    pipeline.logs()
    assert capsys.readouterr().err == text


def test_columns_that_were_too_big_for_the_log_are_named(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    columns: Any = {"out.a": [1], "metadata.dropped": [["in.image"]]}
    platform.on(TOPIC, page(time=[1], **columns))
    pipeline.logs()
    assert "above the allowable limit" in (written := capsys.readouterr().err)
    assert "in.image" in written


def test_logs_wait_until_they_hold_the_last_inference_of_this_client(
    pipeline: Pipeline, platform: StubPlatform, clock: FakeClock
) -> None:
    platform.on("/replica", [{"time": 50, "out.a": 1}])
    pipeline.infer(pd.DataFrame({"a": [1]}))
    platform.on(TOPIC, page(time=[49, 48]), page(time=[50, 49]), page(time=[50, 49]))

    assert pipeline.logs()["time"][0] == pd.Timestamp(50, unit="ms")

    assert clock.slept == [1.0]


def test_logs_do_not_wait_for_ever(pipeline: Pipeline, platform: StubPlatform, clock: FakeClock) -> None:
    platform.on("/replica", [{"time": 50, "out.a": 1}])
    pipeline.infer(pd.DataFrame({"a": [1]}))
    platform.on(TOPIC, page(time=[49, 48]))
    pipeline.logs()
    assert clock.slept == [1.0] * 5


@pytest.fixture
def topic(platform: StubPlatform) -> str:
    """The name of a topic that exists."""
    platform.on(TOPIC.removesuffix("/records"), {"partitions": {}, "bytes": 0})
    return "workspace-8-pipeline-rental-inference"


def answered_by(*models: str) -> dict[str, Any]:
    last = [json.dumps({"model_name": name, "model_sha": "ab"}) for name in models]
    return {"time": list(range(len(models))), "out.a": list(models), "metadata.last_model": last}


def test_a_topic_is_asked_for_by_its_pipeline(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/plateau/get_topic_name", {"topic_name": "t"}, error(404, "There is no such pipeline."))

    assert client.get_topic_name(4) == "t"

    assert platform.calls("/v1/api/plateau/get_topic_name")[0].json == {"pipeline_pk_id": 4}
    with pytest.raises(EntityNotFoundError, match="Pipeline not found"):
        client.get_topic_name(5)


def test_a_topic_reads_as_its_pipelines_log_does(
    client: Client, pipeline: Pipeline, platform: StubPlatform, topic: str
) -> None:
    platform.on(TOPIC, page())

    assert client.get_logs(topic, limit=2).equals(pipeline.logs(limit=2))

    first, second = platform.calls(TOPIC)
    assert first.query == second.query
    assert isinstance(client.get_logs(topic, arrow=True), pa.Table)


def test_an_unknown_topic_is_not_found_whoever_asks(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/logs/topic/none", error(404, "There is no log topic of this name. Ask for one."))
    for ask in (
        client.get_logs,
        client.get_raw_logs,
        client.get_raw_pipeline_inference_logs,
        client.get_pipeline_inference_dataframe,
    ):
        with pytest.raises(EntityNotFoundError, match=r"Topic not found: none\. .*Ask for one"):
            ask("none")


def test_raw_logs_are_all_columns_of_as_many_pages_as_the_limit_takes(
    client: Client, platform: StubPlatform, topic: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other: Any = {"time": [7, 8], "out.b": [1.5, 2.5]}
    first = page("RecordLimited", "c1", **answered_by("control", "control"))
    platform.on(TOPIC, first, page("RecordLimited", "c2", **other))

    rows = client.get_raw_logs(topic, START, END, limit=3, verbose=True)

    assert [sorted(row) for row in rows] == [["metadata.last_model", "out.a", "time"]] * 2 + [["out.b", "time"]]
    assert [asked.json for asked in platform.calls(TOPIC)] == [{}, {"cursor": "c1"}]
    sent = dict(platform.calls(TOPIC)[0].query)
    assert (sent["page_size"], sent["time.start"]) == ("3", "2024-01-01T10:00:00+00:00")
    assert capsys.readouterr().err == f"{topic}: 2 rows so far\n{topic}: 3 rows so far\n"


def test_pages_of_raw_logs_are_no_larger_than_the_platform_gives(
    client: Client, platform: StubPlatform, topic: str
) -> None:
    platform.on(TOPIC, page())
    client.get_raw_logs(topic)
    assert dict(platform.calls(TOPIC)[0].query)["page_size"] == "10000"


@pytest.mark.parametrize("limit", [0, -5, 1_000_001])
def test_raw_logs_have_between_one_and_a_million_rows(client: Client, topic: str, limit: int) -> None:
    with pytest.raises(ValueError, match=f"limit is {limit}"):
        client.get_raw_logs(topic, limit=limit)


def test_the_rows_of_one_model_are_picked_and_others_do_not_count(
    client: Client, platform: StubPlatform, topic: str
) -> None:
    first = page("RecordLimited", "c1", **answered_by("control", "challenger", "control"))
    for ask in (client.get_raw_pipeline_inference_logs, client.get_pipeline_inference_dataframe):
        platform.on(TOPIC, first, page(**answered_by("challenger", "challenger")))

        rows = pd.DataFrame(ask(topic, model_name="challenger", limit=2))

        assert rows["out.a"].tolist() == ["challenger"] * 2
        assert rows["time"].tolist() == [pd.Timestamp(1, unit="ms"), pd.Timestamp(0, unit="ms")]
        assert rows.index.tolist() == [0, 1]


def test_a_frame_of_a_log_with_nothing_in_it_is_empty(client: Client, platform: StubPlatform, topic: str) -> None:
    platform.on(TOPIC, page(**answered_by("control")))
    assert client.get_pipeline_inference_dataframe(topic, model_name="other").empty
    assert client.get_raw_pipeline_inference_logs(topic, model_name="other") == []


def test_a_refusal_says_what_was_refused(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(TOPIC, error(400, "The start is not before the end."))

    with pytest.raises(RequestRefused, match=r"^Failed to read the log: The start is not before the end\.$"):
        pipeline.logs()
