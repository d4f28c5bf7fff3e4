"""Replay: logged inputs through another version of their pipeline, its answers beside those that were given."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.agreement import Agreement
from bettong.domain.replay_requests import ReplayRequest, fit
from bettong.domain.replay_results import (
    AFTER,
    BEFORE,
    DIFFERS,
    ERROR_AFTER,
    ERROR_BEFORE,
    STATISTICS_FILE,
    TIME,
    is_answer,
    short_name,
)
from bettong.errors import BadInput
from bettong.jobs.replay_answers import Asking
from bettong.jobs.replay_files import ResultFiles
from bettong.jobs.replay_window import dropped_names, left_of, query_of, survey_of, topics_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from bettong.domain.logs import LogQuery
    from bettong.domain.replay_requests import Fit
    from bettong.jobs.replay_answers import Answers
    from bettong.jobs.work import Work

MAX_FAILED = 10_000  # rows that the version answered before and does not now: enough to know
MAX_REASONS, SHOWN_REASONS = 1_000, 20
CANCELLED = "it was cancelled"
CHALLENGER = "Challenger '"  # how failures of challengers begin, whose requests were answered
_REQUEST_ID, _VERSION = "metadata.request_id", "metadata.pipeline_version"


def replay(work: Work) -> Mapping[str, Any]:
    """Run a replay. Its rows lie as Parquet in the job's folder then, its statistics beside them and in the result.

    A new attempt begins anew. A cancelled replay has compared what it came to, and says so.

    Raises:
        BadInput: no logged row of the window fits the version; said before any is sent.
        TooLarge: its rows take more than it may leave.
        Unavailable: the deployment is not there.
    """
    request = ReplayRequest.from_document(work.request)
    if work.attempt > 1:
        work.say(f"Attempt {work.attempt}: the replay begins anew.")
    # What is logged meanwhile stays out: callers may be faster than a replay.
    until = min(request.window.end, datetime.now(UTC))
    survey = survey_of(work, request, until)
    if survey.rows and not survey.fitting and survey.misfits:
        raise BadInput(
            f"None of the {survey.rows} logged rows can be replayed through version {request.pipeline_version}: "
            f"{survey.misfits[0]}.",
            f"The inputs in the log are: {', '.join(survey.inputs)}. Name a version that takes these, or another time.",
        )
    for misfit in survey.misfits:
        work.say(f"Some rows cannot be replayed: {misfit}.")
    result = _Run(work, request, until).over(survey.rows)
    (work.folder / STATISTICS_FILE).write_text(json.dumps(result), encoding="utf-8")
    if not result["rows"] and not result["stopped"]:
        what = "requests" if request.window.failed else "answered requests"
        window = f"{result['start']} and {result['end']}"
        work.say(f"There are no {what} in the log between {window}: nothing was replayed.")
    work.say(f"{result['compared']} rows compared, {result['equal']} equal, {result['failed']} failed.")
    return result


class _Run:
    """One attempt, page by page."""

    def __init__(self, work: Work, request: ReplayRequest, until: datetime) -> None:
        self._work, self._request, self._until = work, request, until
        self._agreement = Agreement(request.window.tolerance)
        self._versions: Counter[str] = Counter()
        self._reasons, self._skipped = _Reasons(), _Reasons()
        self._answer_schema: pa.Schema | None = None
        self._read = self._failed = self._dropped = self._unfit = 0
        self._failures = self._pass_now = 0
        self._stopped = ""

    def over(self, total: int) -> dict[str, Any]:
        """Replay the window, of which `total` rows are known; the statistics."""
        self._report(total)
        with (
            ResultFiles(self._work.folder, self._work.most_bytes) as files,
            Asking(self._work, by_request=self._request.by_request) as asking,
        ):
            for topic, answered in topics_of(self._request):
                for rows in self._pages(topic, asking):
                    self._page(rows, answered, asking, files)
                    self._report(max(total, self._read))
                if self._stopped:
                    break
        return self._result()

    def _pages(self, topic: str, asking: Asking) -> Iterator[pa.Table]:
        """The log's rows, oldest first, as long as the replay goes on; each page is of one schema."""
        pages = self._log_pages(topic, asking)
        for rows in _whole_requests(pages) if self._request.by_request else pages:
            if rows.num_rows:
                yield rows

    def _log_pages(self, topic: str, asking: Asking) -> Iterator[pa.Table]:
        reader = self._work.logs()
        query: LogQuery | None = query_of(topic, self._request, self._until)
        while query is not None and (left := left_of(self._request, self._read)) > 0:
            if self._must_stop():
                return
            page = reader.page(replace(query, limit=min(asking.rows_at_once, left)))
            self._read += page.table.num_rows
            yield page.table
            query = None if page.cursor is None else replace(query, cursor=page.cursor)

    def _must_stop(self) -> bool:
        if self._work.cancelled:
            self._stopped = CANCELLED
        elif self._failed >= MAX_FAILED:
            self._stopped = f"{self._failed} rows failed, which is enough to know"
        return bool(self._stopped)

    def _page(self, rows: pa.Table, answered: bool, asking: Asking, files: ResultFiles) -> None:
        if not answered:
            rows = _without_challengers(rows)
            self._failures += rows.num_rows
        rows, found = self._replayable(rows)
        if not rows.num_rows:
            return
        inputs = pa.table([rows.column(name) for name, _ in found.columns], [name for _, name in found.columns])
        answers = asking.about(inputs, _requests(rows))
        if left_out := int(np.count_nonzero(~answers.asked)):
            rows = rows.filter(pa.array(answers.asked))
            self._stopped = CANCELLED
            self._read -= left_out
            self._failures -= 0 if answered else left_out
        for reason in answers.reasons:
            self._reasons.add(reason)
        before = _answer_columns(rows) if answered else None
        differs = self._compare(before, answers)
        if answered:
            self._failed += len(answers.reasons)
            self._versions.update(_texts(rows, _VERSION))
        else:
            self._pass_now += int(np.count_nonzero(answers.answered))
        files.write(self._result_rows(rows, before, answers, differs))

    def _replayable(self, rows: pa.Table) -> tuple[pa.Table, Fit]:
        """The rows that have all that the version takes, and how they go into it; others are counted."""
        found = fit(rows.schema, dropped_names(rows), self._request.takes, self._request.keys)
        if found.fits:
            return rows, found
        if found.missing:
            self._unfit += rows.num_rows
        else:
            self._dropped += rows.num_rows
        self._skipped.add(found.problem, rows.num_rows)
        return rows.slice(0, 0), found

    def _compare(self, before: pa.Table | None, answers: Answers) -> NDArray[np.bool_]:
        """Shape (rows,): which rows have another answer than before, or none any more."""
        differs = np.ones(len(answers.answered), np.bool_)
        if answers.table is None:
            return differs if before is not None else np.zeros_like(differs)
        after = _answer_columns(answers.table)
        self._answer_schema = after.schema
        if before is None:
            return answers.answered.copy()  # it failed, and has an answer now
        same = self._agreement.add(before.filter(pa.array(answers.answered)), after)
        differs[answers.answered] = ~same
        return differs

    def _result_rows(
        self, rows: pa.Table, before: pa.Table | None, answers: Answers, differs: NDArray[np.bool_]
    ) -> pa.Table:
        columns: dict[str, Any] = {TIME: rows.column(TIME)}
        if self._request.window.inputs:
            columns |= {name: rows.column(name) for name in rows.column_names if name.startswith("in.")}
        if before is not None:
            columns |= {f"{BEFORE}{name}": before.column(name) for name in before.column_names}
        columns |= {f"{AFTER}{name}": column for name, column in self._spread(answers).items()}
        if before is None:
            columns[ERROR_BEFORE] = rows.column("error")
        reasons = np.full(rows.num_rows, None, object)
        reasons[~answers.answered] = answers.reasons
        columns[ERROR_AFTER] = pa.array(reasons, pa.string())
        columns[DIFFERS] = pa.array(differs)
        return pa.table(columns)

    def _spread(self, answers: Answers) -> dict[str, Any]:
        """The columns of the answers with null where a row has none."""
        if answers.table is None:
            schema = self._answer_schema or pa.schema([])
            return {field.name: pa.nulls(len(answers.answered), field.type) for field in schema}
        after = _answer_columns(answers.table)
        if answers.answered.all():
            return {name: after.column(name) for name in after.column_names}
        at = np.cumsum(answers.answered) - 1
        after = after.combine_chunks().take(pa.array(at, mask=~answers.answered))
        return {name: after.column(name) for name in after.column_names}

    def _report(self, total: int) -> None:
        self._work.report(
            {
                "rows_read": self._read,
                "rows_written": self._agreement.rows + self._pass_now,
                "rows_rejected": self._failed,
                "rows_total": total,
            }
        )

    def _result(self) -> dict[str, Any]:
        told = self._agreement.document()
        window = self._request.window
        return {
            "pipeline_version": self._request.pipeline_version,
            "before_versions": dict(self._versions.most_common()),
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
            "tolerance": window.tolerance,
            "rows": self._read,
            "compared": told.pop("rows"),
            "equal": told.pop("equal"),
            "share": told.pop("share"),
            "failed": self._failed,
            "reasons": self._reasons.document(),
            "not_replayable": {"dropped": self._dropped, "unfit": self._unfit, "reasons": self._skipped.document()},
            "failures": {"rows": self._failures, "pass_now": self._pass_now} if window.failed else None,
            "stopped": self._stopped,
            **told,
        }


class _Reasons:
    """How often each reason came up; of very many different ones the first."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, rows: int = 1) -> None:
        if reason in self._counts or len(self._counts) < MAX_REASONS:
            self._counts[reason] += rows
        else:
            self._counts["other reasons"] += rows

    def document(self) -> list[dict[str, Any]]:
        return [{"reason": reason, "rows": rows} for reason, rows in self._counts.most_common(SHOWN_REASONS)]


def _answer_columns(rows: pa.Table) -> pa.Table:
    names = [name for name in rows.column_names if is_answer(name)]
    return rows.select(names).rename_columns([short_name(name) for name in names])


def _texts(rows: pa.Table, name: str) -> list[str]:
    return [text for text in rows.column(name).to_pylist() if text] if name in rows.column_names else []


def _requests(rows: pa.Table) -> NDArray[np.int64]:
    """Shape (rows,): numbers that change where another request begins."""
    if _REQUEST_ID not in rows.column_names:  # logged by an early release
        return np.arange(rows.num_rows)
    texts = pa.concat_arrays(rows.column(_REQUEST_ID).chunks)
    return np.asarray(texts.dictionary_encode().indices.to_numpy(zero_copy_only=False), np.int64)


def _without_challengers(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.invert(pc.starts_with(rows.column("error"), CHALLENGER)))


def _whole_requests(pages: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, cut where requests end: what may go on at the next page waits for it."""
    held: pa.Table | None = None
    for page in pages:
        if not page.num_rows:
            continue
        rows = page
        if held is not None and held.schema == page.schema:
            rows = pa.concat_tables([held, page])
        elif held is not None:
            yield held
        begins = np.flatnonzero(np.diff(_requests(rows)))
        cut = int(begins[-1]) + 1 if begins.size else 0
        yield rows.slice(0, cut)
        held = rows.slice(cut)
    if held is not None:
        yield held
