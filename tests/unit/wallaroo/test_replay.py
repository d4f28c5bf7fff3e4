"""A replay as a notebook asks for it and sees it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit.wallaroo.stub import UUIDS, FakeClock, Reply, StubPlatform, error, pipeline_version

from wallaroo.job import Job
from wallaroo.object import CommunicationError, JobError, RequestRefused, WaitForError
from wallaroo.pipeline_version import PipelineVersion
from wallaroo.replay import Replay

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.collections import PathCollection

    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

JOBS = "/v1/api/jobs"
JOB_ID = "6d1c0f3e-0000-4000-8000-000000000000"
START, END = datetime(2026, 1, 1, tzinfo=timezone.utc), datetime(2026, 1, 2, tzinfo=timezone.utc)  # noqa: UP017
SCORE = {
    "column": "score",
    "types": [["double", "double"]],
    "rows": 4,
    "equal": 3,
    "share": 0.75,
    "values": 4,
    "not_finite": 0,
    "mean_abs": 0.25,
    "max_abs": 1.0,
    "pearson": 0.5,
    "quantiles": {"0.01": 0.0, "0.5": 0.0, "0.99": 1.0},
}
LABEL = {
    "column": "label",
    "types": [["int64", "int64"], ["string", "int64"]],
    "rows": 4,
    "equal": 4,
    "share": 1.0,
    "kappa": None,
    "confusion": {"values": [0, 1], "counts": [[1, 2], [0, 1]]},
}


def result(**more: Any) -> dict[str, Any]:
    return {
        "pipeline_version": UUIDS[2],
        "rows": 5,
        "compared": 4,
        "equal": 3,
        "share": 0.75,
        "failed": 1,
        "reasons": [{"reason": "No <b>.", "rows": 1}],
        "not_replayable": {"dropped": 0, "unfit": 0, "reasons": []},
        "failures": None,
        "stopped": "",
        "columns": [LABEL, SCORE],
        "only_before": {},
        "only_after": {"extra": 4},
        **more,
    }


def job(state: str = "succeeded", **more: Any) -> dict[str, Any]:
    record = {
        "id": JOB_ID,
        "kind": "replay",
        "state": state,
        "created_at": "2026-01-02T12:00:00+00:00",
        "request": {"pipeline_id": 4, "pipeline_version": UUIDS[2]},
        "progress": None,
        "result": result() if state == "succeeded" else None,
        "error": "",
    }
    return {"job": {**record, **more}}


ROWS = pa.table(
    {
        "time": pa.array([START] * 5, pa.timestamp("ms")),
        "in.x": [0, 1, 2, 3, 4],
        "before.score": [1.0, 2.0, 3.0, 4.0, 5.0],
        "before.label": [0, 1, 0, 0, 0],
        "after.label": [0, 1, 1, 1, None],
        "after.score": [1.0, 2.0, 3.0, 5.0, None],
        "error.after": [None, None, None, None, "No."],
        "differs": [False, False, True, True, True],
    }
)


def stream(rows: pa.Table = ROWS, batch_rows: int = 2) -> Reply:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows, batch_rows)
    return Reply(sink.getvalue().to_pybytes())


@pytest.fixture
def replayed(pipeline: Pipeline, platform: StubPlatform) -> Replay:
    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job())
    platform.on(f"{JOBS}/{JOB_ID}/result", stream())
    return pipeline.replay(START, END)


# --- asking ---------------------------------------------------------------------------------------------------------


def test_a_replay_asks_for_its_window_in_utc(pipeline: Pipeline, platform: StubPlatform, replayed: Replay) -> None:
    assert platform.calls(f"{JOBS}/replay")[0].json == {
        "pipeline_id": 4,
        "pipeline_version": None,
        "start": "2026-01-01T00:00:00+00:00",
        "end": "2026-01-02T00:00:00+00:00",
        "limit": None,
        "tolerance": 1e-6,
        "failed": False,
        "inputs": True,
    }
    assert (replayed.id(), replayed.version(), replayed.state()) == (JOB_ID, UUIDS[2], "succeeded")


def test_a_version_is_named_by_itself_or_its_name(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/replay", job("pending"))
    version = PipelineVersion(pipeline._client, pipeline_version(2), {"id": 8, "name": "forecast"})

    for given in (version, UUIDS[2]):
        pipeline.replay(START, END, given, 10, 0.1, failed=True, inputs=False, wait=False)

    for call in platform.calls(f"{JOBS}/replay"):
        asked = call.json
        assert (asked["pipeline_version"], asked["limit"], asked["tolerance"]) == (UUIDS[2], 10, 0.1)
        assert (asked["failed"], asked["inputs"]) == (True, False)


def test_a_number_is_no_version(pipeline: Pipeline, platform: StubPlatform) -> None:
    with pytest.raises(TypeError, match=r"version is a int. Give one of versions\(\)"):
        pipeline.replay(START, END, 2)  # type: ignore[arg-type]

    assert platform.calls(f"{JOBS}/replay") == []


def test_a_time_without_a_zone_counts_as_utc_with_a_warning(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(f"{JOBS}/replay", job("pending"))

    pipeline.replay(datetime(2026, 1, 1), END, wait=False)

    assert platform.calls(f"{JOBS}/replay")[0].json["start"] == "2026-01-01T00:00:00+00:00"
    assert "Warning: start has no time zone and is taken as UTC." in capsys.readouterr().err


def test_the_platforms_refusal_reaches_the_caller(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/replay", error(400, "Pipeline 'rental' has no version with a model beside the deployed one."))

    with pytest.raises(RequestRefused, match=r"^Failed to start the replay: Pipeline .* beside the deployed one\.$"):
        pipeline.replay(START, END)


# --- waiting --------------------------------------------------------------------------------------------------------


def test_a_bar_shows_how_far_it_is(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    half = {"rows_read": 5_000, "rows_written": 4_000, "rows_rejected": 1_000, "rows_total": 10_000}
    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job("pending"), job("running", progress=half), job(progress=half))

    pipeline.replay(START, END)

    assert "50%" in capsys.readouterr().out


def test_a_failed_replay_says_why(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job("failed", error="None of the 9 logged rows can be replayed."))

    with pytest.raises(JobError, match="None of the 9 logged rows"):
        pipeline.replay(START, END)


def test_a_wait_may_be_limited(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job("running"))

    with pytest.raises(WaitForError, match="within 5 s; it goes on"):
        pipeline.replay(START, END, wait=False).wait(timeout=5)


def test_an_interrupt_cancels_it(
    pipeline: Pipeline,
    platform: StubPlatform,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(self: FakeClock, seconds: float) -> None:
        raise KeyboardInterrupt

    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job("running"))
    platform.on(f"{JOBS}/{JOB_ID}/cancel", job("running"))
    monkeypatch.setattr(FakeClock, "sleep", interrupted)

    with pytest.raises(KeyboardInterrupt) as stopped:
        pipeline.replay(START, END)

    assert [frame.name for frame in stopped.traceback][1:] == ["quiet"]  # one of ours, however deep it waited
    assert len(platform.calls(f"{JOBS}/{JOB_ID}/cancel")) == 1
    assert "is cancelled. What it has compared so far is in replays()[0]." in capsys.readouterr().out


def test_without_waiting_there_is_no_result_yet(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/replay", job("pending"))
    platform.on(f"{JOBS}/{JOB_ID}", job("running"))

    replay = pipeline.replay(START, END, wait=False)

    assert repr(replay) == f"Replay('{JOB_ID}', pending)"
    with pytest.raises(RuntimeError, match=r"The replay is running and has no result. Call wait\(\) first."):
        _ = replay.agreement


def test_replays_of_the_pipeline_can_be_had_again(pipeline: Pipeline, platform: StubPlatform) -> None:
    other = job()["job"] | {"request": {"pipeline_id": 5, "pipeline_version": UUIDS[2]}}
    platform.on(f"{JOBS}/list", {"jobs": [job("running")["job"], other, job()["job"]], "more": False})

    replays = pipeline.replays()

    asked = {"workspace_id": 8, "kind": "replay", "unended": False, "limit": 1000}
    assert platform.calls(f"{JOBS}/list")[0].json == asked
    assert [replay.job._record["state"] for replay in replays] == ["running", "succeeded"]
    assert replays[1].result["equal"] == 3
    assert "75.00%" in repr(replays)
    assert "<table>" in replays._repr_html_()


def test_a_replay_that_was_cancelled_before_it_began_has_no_result(client: Client) -> None:
    with pytest.raises(RuntimeError, match=r"is cancelled and has no result\. Ask for another one\."):
        _ = Replay(Job(client, job("cancelled")["job"])).result


# --- what came of it ------------------------------------------------------------------------------------------------


def test_agreement_has_a_row_per_column(replayed: Replay) -> None:
    table: Any = replayed.agreement.set_index("column")

    assert list(replayed.agreement.columns) == [
        "column", "rows", "equal", "share", "mean_abs", "max_abs", "p01", "p50", "p99", "pearson", "kappa", "note",
    ]  # fmt: skip
    assert table.loc["score", ["rows", "equal", "share", "mean_abs", "max_abs", "p99", "pearson"]].tolist() == [
        4, 3, 0.75, 0.25, 1.0, 1.0, 0.5,
    ]  # fmt: skip
    assert table.loc["label", "note"] == "string → int64"
    assert table.loc["label", ["mean_abs", "p50", "kappa"]].isna().all()


def test_the_table_of_classes_has_before_in_rows_and_after_in_columns(replayed: Replay) -> None:
    table = replayed.confusion("label")

    assert table.loc[0, 1] == 2
    assert (table.index.name, table.columns.name) == ("before", "after")
    with pytest.raises(ValueError, match=r"'score' has no table of classes. There is one for: label"):
        replayed.confusion("score")


def test_reasons_are_a_table(replayed: Replay) -> None:
    assert replayed.reasons.to_dict("records") == [{"reason": "No <b>.", "rows": 1}]


def test_rows_that_differ_stand_side_by_side(replayed: Replay, platform: StubPlatform) -> None:
    frame = replayed.rows()

    assert list(frame.columns) == [
        "time", "in.x", "before.score", "after.score", "before.label", "after.label", "error.after", "differs",
    ]  # fmt: skip
    assert frame["in.x"].tolist() == [2, 3, 4]
    assert frame["error.after"].tolist()[-1] == "No."
    assert platform.calls(f"{JOBS}/{JOB_ID}/result")[0].headers["accept"] == "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("only", "limit", "expected"), [(False, 3, [0, 1, 2]), (True, 1, [2]), (False, None, [0, 1, 2, 3, 4])]
)
def test_rows_are_limited(replayed: Replay, only: bool, limit: int | None, expected: list[int]) -> None:
    assert replayed.rows(only, limit)["in.x"].tolist() == expected


def test_no_rows_are_an_empty_frame(replayed: Replay, platform: StubPlatform) -> None:
    platform.on(f"{JOBS}/{JOB_ID}/result", stream(pa.table({})))

    assert replayed.rows().empty
    assert isinstance(replayed.rows(), pd.DataFrame)


def test_rows_go_to_a_file(replayed: Replay, tmp_path: Path) -> None:
    whole = replayed.to_parquet(tmp_path / "new" / "rows.parquet")
    differing = replayed.to_parquet(str(tmp_path / "new" / "differing.parquet"), differing_only=True)

    assert pq.read_table(whole).equals(ROWS)
    assert pq.read_table(differing).column("in.x").to_pylist() == [2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["differing.parquet", "rows.parquet"]


def test_rows_that_break_off_leave_no_file(replayed: Replay, platform: StubPlatform, tmp_path: Path) -> None:
    platform.on(f"{JOBS}/{JOB_ID}/result", Reply(cast("bytes", stream().body)[:-200]))

    with pytest.raises(CommunicationError):
        replayed.to_parquet(tmp_path / "rows.parquet")

    assert list(tmp_path.iterdir()) == []


# --- showing --------------------------------------------------------------------------------------------------------


def test_it_shows_itself_in_a_sentence_and_a_table(replayed: Replay) -> None:
    text = repr(replayed)

    assert text.splitlines()[0] == (
        f"Replay through version {UUIDS[2]}: 4 rows compared, 3 (75.00%) equal; 1 have no answer any more; new: extra."
    )
    assert "75.00%" in text.splitlines()[-1]
    assert "<table>" in replayed._repr_html_()


def test_what_was_left_out_is_in_the_sentence(client: Client) -> None:
    told = result(
        share=None,
        compared=0,
        equal=0,
        failed=0,
        columns=[],
        only_after={},
        only_before={"<b>": 1},
        not_replayable={"dropped": 2, "unfit": 1, "reasons": []},
        failures={"rows": 4, "pass_now": 3},
        stopped="it was cancelled",
    )
    replay = Replay(Job(client, job("cancelled", result=told)["job"]))

    assert repr(replay).splitlines()[0] == (
        f"Replay through version {UUIDS[2]}: 0 rows compared, 0 equal; 3 could not be replayed; "
        "3 of 4 that failed pass now; gone: <b>; it stopped: it was cancelled."
    )
    assert "&lt;b&gt;" in replay._repr_html_()
    assert "<b>" not in replay._repr_html_()


@pytest.mark.parametrize(
    ("failures", "told"),
    [
        (None, "there are no answered requests in the log between A and B. Give another start and end; failed=True"),
        ({"rows": 0, "pass_now": 0}, "there are no requests in the log between A and B. Give another start and end."),
    ],
)
def test_a_window_without_requests_is_said_to_be_one(client: Client, failures: Any, told: str) -> None:
    nothing: dict[str, Any] = {
        "rows": 0,
        "compared": 0,
        "equal": 0,
        "share": None,
        "failed": 0,
        "columns": [],
        "only_after": {},
    }
    window = {"start": "A", "end": "B", "failures": failures}
    replay = Replay(Job(client, job("succeeded", result=result(**nothing, **window))["job"]))

    assert repr(replay).startswith(f"Replay through version {UUIDS[2]}: {told}")
    assert (len(repr(replay).splitlines()), "<table" in replay._repr_html_()) == (1, False)


def test_plots_have_shares_classes_and_numbers(replayed: Replay) -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt

    shares, classes, numbers = replayed.plot(), replayed.plot("label"), replayed.plot("score")

    for ax in (shares, classes, numbers):
        ax.figure.canvas.draw()
    assert [patch.get_width() for patch in cast("Any", shares.patches)] == [1.0, 0.75]
    assert [text.get_text() for text in classes.texts] == ["1", "2", "0", "1"]
    assert (classes.get_xlabel(), classes.get_ylabel()) == ("after", "before")
    points = np.asarray(cast("PathCollection", numbers.collections[0]).get_offsets())
    assert points.tolist() == [[1, 1], [2, 2], [3, 3], [4, 5]]
    with pytest.raises(ValueError, match=r"'no' cannot be drawn. These can: label, score"):
        replayed.plot("no")
    plt.close("all")
