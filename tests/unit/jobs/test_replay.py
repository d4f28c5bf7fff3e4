"""Replays of a real log that a real replica wrote, through another replica in this process."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from builders import log_rows
from inference_builders import NOW_MS, InProcessRunner, MemoryLog, call, deployment_spec, inference_app

from bettong.domain.replay_requests import ReplayRequest, ReplayWindow
from bettong.domain.replay_results import STATISTICS_FILE, file_name
from bettong.engine.answer import Origin, failed_batch
from bettong.engine.arrow_codec import encode_arrow
from bettong.errors import BadInput, ModelFailed, StorageFull, TooLarge, Unavailable
from bettong.jobs import replay as module
from bettong.jobs.replay import replay
from bettong.jobs.replay_files import ResultFiles
from bettong.jobs.space import taken_by
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter
from bettong.services.job_files import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from inference_builders import Reply

    from bettong.domain.drivers import Capability, Source
    from bettong.domain.ports import LogReader
    from bettong.engine.app import InferenceApp

TOPIC, FAILURES = "workspace-5-pipeline-rental-forecast-inference", "workspace-5-pipeline-rental-forecast-failures"
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)
ARROW = {"content-type": "application/vnd.apache.arrow.file", "accept": "application/vnd.apache.arrow.stream"}
FAILED = "Step 1 of pipeline 'rental-forecast', model 'forecast-control-model': "
X, KIND = pa.field("x", pa.float64()), pa.field("kind", pa.int64())
WIDE = pa.field("x", pa.list_(pa.float32()))
SCORE, LABEL = pa.field("score", pa.float64()), pa.field("label", pa.int64())


def schema(*fields: Any) -> pa.Schema:
    return pa.schema(list(fields))


IN, OUT = schema(X, KIND), schema(SCORE, LABEL)


class TableRunner(InProcessRunner):
    """A model that is a function of a table."""

    def __init__(
        self, function: Callable[[pa.Table], Mapping[str, Any]], inputs: pa.Schema = IN, outputs: pa.Schema = OUT
    ) -> None:
        self.input_schema, self.output_schema, self._of_table = inputs, outputs, function

    async def predict(self, rows: pa.Table) -> pa.Table:
        found = self._of_table(rows)
        return pa.table([pa.array(found[f.name], f.type) for f in self.output_schema], schema=self.output_schema)


def numbers(rows: pa.Table, name: str) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = rows.column(name).to_numpy()
    return found


def first(rows: pa.Table) -> dict[str, Any]:
    """The version whose answers are in the log."""
    return {"score": numbers(rows, "x") * 2, "label": numbers(rows, "kind") % 3}


def second(rows: pa.Table) -> dict[str, Any]:
    """The version beside it: other scores above 90, and label 2 where there was 1 below 10."""
    x, label = numbers(rows, "x"), numbers(rows, "kind") % 3
    return {"score": np.where(x > 90, x * 2 + 1, x * 2 + 1e-9), "label": np.where((label == 1) & (x < 10), 2, label)}


def replica(runner: TableRunner, log: Any = None, **spec: Any) -> InferenceApp:
    return inference_app([runner], spec=deployment_spec(**spec), log=cast("MemoryLog", log))


def ask(app: InferenceApp, rows: pa.Table, query: str = "") -> Reply:
    body = bytes(encode_arrow(rows.combine_chunks().to_batches()[0]))
    return asyncio.run(call(app, body, headers=dict(ARROW), query=query))


@dataclass
class WorkDouble:
    """A job's work over a replica in this process, a log folder and a folder of its own."""

    app: InferenceApp
    request: Mapping[str, Any]
    log_folder: Path
    folder: Path
    job_id: str = "j1"
    position: str | None = None
    attempt: int = 1
    lineage: Mapping[str, str] = field(default_factory=dict)
    lanes: int = 2
    most_bytes: int = 0
    cancel_after: int | None = None  # answers
    gone: bool = False
    asked: list[int] = field(default_factory=list)  # rows of each request
    columns: set[tuple[str, ...]] = field(default_factory=set)
    reported: list[Mapping[str, Any]] = field(default_factory=list)
    titles: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cancelled(self) -> bool:
        return self.cancel_after is not None and len(self.asked) >= self.cancel_after

    def source(self, role: str, needed: Capability) -> AbstractContextManager[Source]:
        raise AssertionError("A replay opens no connection.")

    def renew(self) -> None:
        raise AssertionError("A replay opens no connection.")

    def infer(self, rows: pa.Table) -> pa.Table:
        with self.lock:
            self.asked.append(rows.num_rows)
            self.columns.add(tuple(rows.column_names))
            if self.gone:
                raise Unavailable("The deployment is not there.")
            reply = ask(self.app, rows, "dataset.exclude[]=in&dataset.exclude[]=metadata")
        if reply.status == 200:
            return pa.ipc.open_stream(reply.body).read_all()
        words = json.loads(reply.body)["error"]
        raise BadInput(words) if reply.status < 500 else ModelFailed(words)

    def logs(self) -> LogReader:
        return SegmentLogReader(self.log_folder)

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        self.reported.append(progress)

    def say(self, line: str) -> None:
        self.said.append(line)

    def rows(self) -> pa.Table:
        with rows_of(self.folder, "result") as reader:
            return reader.read_all()


@dataclass
class Logged:
    """A folder of logs and what replays of it need."""

    folder: Path

    def by(self, runner: TableRunner, *requests: pa.Table, **spec: Any) -> list[int]:
        """Ask a replica that logs here; the statuses of its answers."""
        writer = SegmentLogWriter(self.folder / "logs", TOPIC, FAILURES, "engine-a")
        try:
            app = replica(runner, writer, **spec)
            return [ask(app, rows).status for rows in requests]
        finally:
            writer.close()

    def work(
        self, runner: TableRunner, *, by_request: bool = False, keys: tuple[str, ...] = (), **window: Any
    ) -> WorkDouble:
        whole = {"start": NOW - timedelta(hours=1), "end": NOW + timedelta(hours=1), **window}
        request = ReplayRequest(
            4, "version-2", TOPIC, FAILURES, ReplayWindow(**whole), runner.input_schema, keys, by_request
        )
        own = self.folder / "job"
        own.mkdir(exist_ok=True)
        document = json.loads(json.dumps(request.to_document()))
        return WorkDouble(replica(runner), document, self.folder / "logs", own)


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    return Logged(tmp_path)


def some_rows(count: int, start: int = 0, **more: Any) -> pa.Table:
    x = (np.arange(start, start + count) * 7 % 100).astype(float)
    return pa.table({"x": pa.array(x), "kind": pa.array(np.arange(start, start + count)), **more})


def done(work: WorkDouble) -> dict[str, Any]:
    """The result of the replay, as JSON keeps it."""
    return dict(json.loads(json.dumps(replay(work), allow_nan=False)))


def column(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    (found,) = [each for each in result["columns"] if each["column"] == name]
    return dict(found)


# --- answers side by side -------------------------------------------------------------------------------------------


def test_both_answers_stand_side_by_side_and_statistics_tell_how_far_they_agree(logged: Logged) -> None:
    rows = some_rows(1_000)
    logged.by(TableRunner(first), rows.slice(0, 10), rows.slice(10), pipeline_version="version-1")
    work = logged.work(TableRunner(second))

    result = done(work)

    before, after = first(rows), second(rows)
    close = np.isclose(after["score"], before["score"], rtol=1e-6, atol=1e-6)
    same = close & (before["label"] == after["label"])
    assert 0 < same.sum() < 1_000
    assert (result["rows"], result["compared"], result["equal"], result["failed"]) == (1_000, 1_000, same.sum(), 0)
    assert result["before_versions"] == {"version-1": 1_000}
    assert result["stopped"] == ""
    score, label = column(result, "score"), column(result, "label")
    assert score["equal"] == close.sum()
    assert score["mean_abs"] == pytest.approx(np.abs(after["score"] - before["score"]).mean())
    assert score["pearson"] == pytest.approx(np.corrcoef(before["score"], after["score"])[0, 1])
    pairs = list(zip(before["label"].tolist(), after["label"].tolist(), strict=True))
    assert label["confusion"]["counts"] == [[pairs.count((b, a)) for a in range(3)] for b in range(3)]
    assert column(result, "anomaly.count")["equal"] == 1_000
    found = work.rows()
    assert found.column("in.x").to_pylist() == rows.column("x").to_pylist()
    assert found.column("before.score").to_pylist() == before["score"].tolist()
    assert found.column("after.score").to_pylist() == after["score"].tolist()
    assert found.column("differs").to_pylist() == (~same).tolist()
    assert found.column("error.after").null_count == 1_000
    assert json.loads((work.folder / STATISTICS_FILE).read_text()) == result


def test_progress_has_the_rows_of_the_window_and_ends_with_all_of_them(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(1_500))
    work = logged.work(TableRunner(second))

    replay(work)

    assert work.reported[0] == {"rows_read": 0, "rows_written": 0, "rows_rejected": 0, "rows_total": 1_500}
    assert work.reported[-1] == {"rows_read": 1_500, "rows_written": 1_500, "rows_rejected": 0, "rows_total": 1_500}


@pytest.mark.parametrize(
    "start", [NOW + timedelta(minutes=1), datetime.now(UTC) + timedelta(days=1)], ids=["past", "future"]
)
def test_an_empty_window_is_a_result_of_nothing(logged: Logged, start: datetime) -> None:
    logged.by(TableRunner(first), some_rows(10))
    work = logged.work(TableRunner(second), start=start, end=start + timedelta(hours=1))

    result = done(work)

    assert (result["rows"], result["compared"], result["share"], result["columns"]) == (0, 0, None, [])
    assert work.said[0].startswith(f"There are no answered requests in the log between {start.isoformat()} and ")
    assert work.asked == []
    assert work.rows().num_rows == 0


def test_what_is_logged_while_a_replay_runs_stays_out_of_it(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(10))
    later = SegmentLogWriter(logged.folder / "logs", TOPIC, FAILURES, "engine-b")
    ahead = round((datetime.now(UTC) + timedelta(hours=1)).timestamp() * 1000)
    later.append(log_rows([ahead]))
    later.close()

    assert done(logged.work(TableRunner(second), end=datetime.now(UTC) + timedelta(days=1)))["rows"] == 10


def test_a_pipeline_that_never_logged_is_a_result_of_nothing(logged: Logged) -> None:
    assert done(logged.work(TableRunner(second), failed=True))["rows"] == 0


def test_a_limit_takes_the_oldest_rows(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(1_000))
    work = logged.work(TableRunner(second), limit=700, inputs=False)

    result = done(work)

    assert (result["rows"], result["compared"]) == (700, 700)
    assert work.reported[-1]["rows_total"] == 700
    assert work.rows().column_names == [
        "time", "before.score", "before.label", "before.anomaly.count", "after.score", "after.label",
        "after.anomaly.count", "error.after", "differs",
    ]  # fmt: skip


def test_a_hundred_thousand_rows_go_through_in_batches_that_stay_small(logged: Logged) -> None:
    rows = some_rows(100_000)
    logged.by(TableRunner(first), *(rows.slice(start, 20_000) for start in range(0, 100_000, 20_000)))
    work = logged.work(TableRunner(second))

    result = done(work)

    before, after = first(rows), second(rows)
    close = np.isclose(after["score"], before["score"], rtol=1e-6, atol=1e-6)
    assert result["equal"] == (close & (before["label"] == after["label"])).sum()
    assert result["compared"] == sum(work.asked) == 100_000
    assert max(work.asked) <= 1_000
    assert work.rows().num_rows == 100_000


def test_large_rows_are_held_a_page_at_a_time(logged: Logged) -> None:
    runner = TableRunner(lambda rows: {"score": np.zeros(rows.num_rows)}, schema(WIDE), schema(SCORE))
    rows = pa.table({"x": [np.arange(10_000, dtype=np.float32)] * 50}, schema=schema(WIDE))
    logged.by(runner, *[rows] * 15)  # 2 MB each
    work = Weighing(**vars(logged.work(runner)))
    before = pa.total_allocated_bytes()

    result = done(work)

    assert result["compared"] == result["equal"] == 750
    assert work.most_bytes - before < 20 * 2**20  # of 30 MB


@dataclass
class Weighing(WorkDouble):
    """Notes how much memory Arrow has at most, while it is asked."""

    most_bytes: int = 0

    def infer(self, rows: pa.Table) -> pa.Table:
        self.most_bytes = max(self.most_bytes, pa.total_allocated_bytes())
        return super().infer(rows)


# --- rows that do not go through ------------------------------------------------------------------------------------


def picky(rows: pa.Table) -> dict[str, Any]:
    if (numbers(rows, "kind") % 250 == 17).any():
        raise ModelFailed("Seventeen is too much.")
    return first(rows)


def test_a_version_that_fails_on_some_rows_answers_the_others(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(1_000))
    work = logged.work(TableRunner(picky))

    result = done(work)

    assert (result["compared"], result["equal"], result["failed"]) == (996, 996, 4)
    assert result["reasons"] == [{"reason": f"{FAILED}Seventeen is too much.", "rows": 4}]
    found = work.rows()
    failed = found.filter(pc.is_valid(found.column("error.after")))
    assert failed.column("in.kind").to_pylist() == [17, 267, 517, 767]
    assert failed.column("after.score").null_count == 4
    assert failed.column("before.score").null_count == 0
    assert failed.column("differs").to_pylist() == [True] * 4
    others = found.filter(pc.is_null(found.column("error.after")))
    assert others.column("after.score").equals(others.column("before.score"))


def test_rows_that_a_version_refuses_are_told_in_its_words(logged: Logged) -> None:
    narrow = schema(X, pa.field("kind", pa.int8()))
    logged.by(TableRunner(first), some_rows(200))
    work = logged.work(TableRunner(first, narrow))

    result = done(work)

    assert (result["compared"], result["failed"]) == (128, 72)
    assert "Column 'kind', row 0: found a value out of the range of int8" in result["reasons"][0]["reason"]


def test_a_version_that_fails_on_everything_is_stopped_when_that_is_clear(
    logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(rows: pa.Table) -> dict[str, Any]:
        raise ModelFailed("No.")

    monkeypatch.setattr(module, "MAX_FAILED", 50)
    logged.by(TableRunner(first), some_rows(2_000))
    work = logged.work(TableRunner(fails))

    result = done(work)

    assert result["compared"] == 0
    assert 50 <= result["failed"] < 2_000
    assert "enough to know" in result["stopped"]
    assert work.rows().num_rows == result["failed"]


def test_a_deployment_that_is_gone_ends_the_attempt(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(10))
    work = replace(logged.work(TableRunner(first)), gone=True)

    with pytest.raises(Unavailable):
        replay(work)


def test_a_cancelled_replay_keeps_what_it_came_to(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(5_000))
    work = replace(logged.work(TableRunner(second)), cancel_after=3)

    result = done(work)

    assert result["stopped"] == "it was cancelled"
    assert 0 < result["compared"] == sum(work.asked) < 5_000
    assert work.rows().num_rows == result["compared"]


def test_a_replay_stops_in_the_middle_of_what_it_has_read(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(30))
    work = replace(logged.work(TableRunner(second)), lanes=1, cancel_after=1)

    result = done(work)

    assert work.asked == [16]
    assert (result["rows"], result["compared"], result["stopped"]) == (16, 16, "it was cancelled")
    assert work.rows().column("in.kind").to_pylist() == list(range(16))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_disk_without_space_is_told(logged: Logged, monkeypatch: pytest.MonkeyPatch) -> None:
    logged.by(TableRunner(first), some_rows(30))
    work = logged.work(TableRunner(second))
    begin = ResultFiles.__enter__

    monkeypatch.setattr(ResultFiles, "__enter__", lambda files: _onto_a_full_disk(begin(files)))

    with pytest.raises(StorageFull, match="no space for the rows of the replay"):
        replay(work)


def _onto_a_full_disk(files: ResultFiles) -> ResultFiles:
    (files._folder / file_name(1)).symlink_to("/dev/full")
    return files


def test_a_replay_that_fills_its_share_fails_and_keeps_what_it_has(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(3_000))
    work = replace(logged.work(TableRunner(second)), most_bytes=10_000)

    with pytest.raises(TooLarge, match=r"The rows of the replay take more than .* inputs=False"):
        replay(work)

    assert 0 < work.rows().num_rows < 3_000
    assert taken_by(work.folder.glob("result*")) < 100_000


def test_a_new_attempt_begins_anew(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(3_000))
    replay(replace(logged.work(TableRunner(second)), cancel_after=3))
    work = replace(logged.work(TableRunner(second), limit=10), attempt=2)

    result = done(work)

    assert work.rows().num_rows == result["compared"] == 10
    assert "Attempt 2: the replay begins anew." in work.said


# --- logs and versions of other columns -----------------------------------------------------------------------------


def test_a_version_that_takes_what_was_not_logged_is_told_before_the_first_row(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(10))
    wants = schema(pa.field("x", pa.string()), KIND, pa.field("age", pa.int32()))
    work = logged.work(TableRunner(first, wants))

    with pytest.raises(BadInput) as told:
        replay(work)

    assert "None of the 10 logged rows" in told.value.problem
    assert "'x' as string, which was logged as double, 'age' (int32), which was not logged" in told.value.problem
    assert "in.x, in.kind" in told.value.next_step
    assert work.asked == []


def test_inputs_that_a_version_no_longer_takes_stay_behind(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(10))
    only_x = TableRunner(lambda rows: {"score": numbers(rows, "x") * 2, "label": [0] * rows.num_rows}, schema(X))
    work = logged.work(only_x)

    result = done(work)

    assert work.columns == {("x",)}
    assert column(result, "score")["equal"] == 10
    assert work.rows().column("in.kind").to_pylist() == list(range(10))


def test_a_window_over_several_schemas_is_replayed_where_it_fits(logged: Logged) -> None:
    other_out = schema(SCORE, pa.field("label", pa.string()), pa.field("extra", pa.int8()))
    old = TableRunner(lambda rows: {"score": numbers(rows, "x")}, schema(X), schema(SCORE))
    texts = TableRunner(
        lambda rows: {"score": numbers(rows, "x") * 2, "label": ["0"] * rows.num_rows, "extra": [1] * rows.num_rows},
        IN,
        other_out,
    )
    logged.by(old, some_rows(5).select(["x"]))
    logged.by(TableRunner(first), some_rows(10))
    logged.by(texts, some_rows(20))
    work = logged.work(TableRunner(first))

    result = done(work)

    assert (result["rows"], result["compared"]) == (35, 30)
    assert result["not_replayable"]["unfit"] == 5
    assert result["not_replayable"]["reasons"][0]["reason"].endswith("'kind' (int64), which was not logged")
    assert "Some rows cannot be replayed" in work.said[0]
    assert column(result, "label")["types"] == [["int64", "int64"], ["string", "int64"]]
    assert column(result, "label")["equal"] == 10
    assert result["only_before"] == {"extra": 20}
    found = work.rows()
    assert found.column("before.label").to_pylist() == [*[n % 3 for n in range(10)], *[None] * 20]
    assert found.column("before.label (string)").to_pylist() == [*[None] * 10, *["0"] * 20]


def test_rows_whose_inputs_were_too_large_for_the_log_are_counted(logged: Logged) -> None:
    wide = schema(pa.field("x", pa.list_(pa.float64())))
    out = schema(SCORE)
    runner = TableRunner(lambda rows: {"score": np.ones(rows.num_rows)}, wide, out)
    small, large = (pa.table({"x": [[1.0] * n] * 3}) for n in (2, 200))
    logged.by(runner, small, large, max_logged_row_bytes=500)
    work = logged.work(runner)

    result = done(work)

    assert (result["rows"], result["compared"]) == (6, 3)
    assert result["not_replayable"] == {
        "dropped": 3, "unfit": 0, "reasons": [{"reason": "too large for the log: in.x", "rows": 3}],
    }  # fmt: skip


def test_failed_requests_are_replayed_when_asked_for(logged: Logged) -> None:
    statuses = logged.by(TableRunner(picky), some_rows(10), some_rows(10, start=10), some_rows(10, start=20))
    assert statuses == [200, 500, 200]
    still = TableRunner(_only_odd)

    without, work = done(logged.work(still)), logged.work(still, failed=True)
    result = done(work)

    assert without["failures"] is None
    assert result["rows"] == 30
    assert result["failures"] == {"rows": 10, "pass_now": 5}
    found = work.rows()
    retried = found.filter(pc.is_valid(found.column("error.before")))
    assert retried.column("in.kind").to_pylist() == list(range(10, 20))
    assert set(retried.column("error.before").to_pylist()) == {f"{FAILED}Seventeen is too much."}
    assert [e is None for e in retried.column("error.after").to_pylist()] == [n % 2 == 1 for n in range(10, 20)]
    assert retried.column("differs").to_pylist() == [n % 2 == 1 for n in range(10, 20)]


def _only_odd(rows: pa.Table) -> dict[str, Any]:
    if (numbers(rows, "kind") % 2 == 0).any():
        raise ModelFailed("Even.")
    return first(rows)


def test_failures_of_challengers_are_none_of_requests(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(5))
    writer = SegmentLogWriter(logged.folder / "logs", TOPIC, FAILURES, "engine-b")
    origin = Origin("{}", "version-1", "engine-b")
    for rows, error in ((3, "Challenger 'other' failed: No."), (2, "No.")):
        writer.append(failed_batch(NOW_MS, some_rows(rows), error, [1], "r-1", origin), failed=True)
    writer.close()

    result = done(logged.work(TableRunner(second), failed=True))

    assert (result["compared"], result["failures"]) == (5, {"rows": 2, "pass_now": 2})


def test_requests_that_could_not_be_read_are_not_replayed(logged: Logged) -> None:
    logged.by(TableRunner(first), pa.table({"y": [1]}), some_rows(5))
    work = logged.work(TableRunner(first), failed=True)

    result = done(work)

    assert (result["compared"], result["failures"]) == (5, {"rows": 1, "pass_now": 0})
    assert result["not_replayable"]["unfit"] == 1


def test_steps_that_look_at_requests_get_them_as_they_came(logged: Logged) -> None:
    sizes = [3, 1, 400, 2, 700, 1]
    starts = np.cumsum([0, *sizes[:-1]])
    logged.by(TableRunner(first), *(some_rows(size, start=int(at)) for size, at in zip(sizes, starts, strict=True)))
    work = replace(logged.work(TableRunner(_sizes), by_request=True), lanes=1)

    result = done(work)

    assert sorted(work.asked) == sorted(sizes)
    assert work.rows().column("after.score").to_pylist() == [float(size) for size in sizes for _ in range(size)]
    assert result["compared"] == sum(sizes)


def _sizes(rows: pa.Table) -> dict[str, Any]:
    return {"score": [float(rows.num_rows)] * rows.num_rows, "label": [0] * rows.num_rows}


def test_a_request_that_fails_fails_as_a_whole_where_steps_look_at_requests(logged: Logged) -> None:
    logged.by(TableRunner(first), some_rows(10), some_rows(10, start=10))
    work = logged.work(TableRunner(picky), by_request=True)

    result = done(work)

    assert (result["compared"], result["failed"]) == (10, 10)
    assert sorted(work.asked) == [10, 10]
