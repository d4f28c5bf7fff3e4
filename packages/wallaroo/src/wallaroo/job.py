"""Jobs: work that the platform goes on with when the notebook is closed."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo._wait import LongWait, Screen, poll, quiet_when_interrupted
from wallaroo.object import (
    CommunicationError,
    EntityNotFoundError,
    JobError,
    Object,
    WaitForError,
    WallarooAPIError,
    refused_as,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from wallaroo._row_streams import Form
    from wallaroo.client import Client

_ROOT = "/v1/api/jobs"
_ENDED = ("succeeded", "failed", "cancelled")
_ROWS_TIMEOUT_S = 120.0  # to each batch
_BAR_WIDTH = 30
_PAGE = 1000  # jobs of an answer
_SHORTEST_ID, _WHOLE_ID = 4, 36
_KINDS = {"infer_batch": "batch inference", "infer_stream": "stream inference", "replay": "replay"}
_AWAY_S = 120.0  # for how long the platform may not answer while a job is waited for


class JobProgress(dict[str, Any]):
    """How far a job is: `rows_read`, `rows_written`, `rows_rejected`, `rows_total` (None when nobody knows), and what
    else its kind counts, such as messages of a stream; `lag` is how many of its topic wait, as of a few seconds ago,
    None where nobody can tell, and `waiting_for` what it waits for itself. Shows itself as a bar."""

    def __init__(self, known: Mapping[str, Any] | None, state: str) -> None:
        super().__init__(known or {})
        self.state = state

    @property
    def share(self) -> float | None:
        """Of the rows, from 0 to 1; None while nobody knows how many there are."""
        if self.state == "succeeded":
            return 1.0
        total, done = self.get("rows_total"), max(self.get("rows_written") or 0, self.get("rows_read") or 0)
        return min(1.0, done / total) if total else None

    def __str__(self) -> str:
        share = self.share
        if share is None:
            bar = self.state
        else:
            full = int(share * _BAR_WIDTH)
            bar = f"[{'#' * full}{'.' * (_BAR_WIDTH - full)}] {share:4.0%}"
        return "  ".join((bar, *self._counts()))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        counts = html.escape(", ".join((self.state, *self._counts())))
        share = self.share
        return f"{counts}" if share is None else f'<progress value="{share:.4f}" max="1"></progress> {counts}'

    def _counts(self) -> Sequence[str]:
        if self and not any(name.startswith("rows_") for name in self):
            numbers = ((name, value) for name, value in self.items() if isinstance(value, (int, float)))
            return [f"{value:,} {name.replace('_', ' ')}" for name, value in numbers]
        if "messages_in" in self:
            return [*self._messages(), *self._waits()]
        written, total, rejected = self.get("rows_written"), self.get("rows_total"), self.get("rows_rejected")
        done = (self.get("rows_read") or 0) if written is None else written
        rows = f"{done:,} of {total:,} rows" if total else f"{done:,} {'row' if done == 1 else 'rows'}"
        return [rows, *([f"{rejected:,} rejected"] if rejected else []), *self._waits()]

    def _messages(self) -> Sequence[str]:
        """What became of those of a stream."""
        topic, before = self.get("dead_letter"), self.get("answered_before")
        dead = f"{self.get('dead_lettered') or 0:,} dead-lettered to '{topic}'"
        return [
            f"{self.get('predictions_out') or 0:,} answered",
            *([dead] if topic else []),
            f"{self.get('rejected') or 0:,} rejected",
            *([f"{before:,} answered before"] if before else []),
        ]

    def _waits(self) -> Sequence[str]:
        """What a job waits for, or how many messages wait for it."""
        if self.state in _ENDED:
            return []
        if waited := self.get("waiting_for"):
            refused = ", which refuses the login," if waited["login_refused"] else ""
            return [f"waiting for {waited['what']}{refused} since {waited['since'][11:19]} UTC"]
        lag = self.get("lag")
        return [] if lag is None else [f"{lag:,} waiting"]


class Job(Object):
    """A job of the platform, as of the last look; `state()`, `progress()` and `refresh()` look again."""

    def id(self) -> str:
        return str(self._record["id"])

    def kind(self) -> str:
        """ "infer_batch", "infer_stream" or "replay"."""
        return str(self._get("kind"))

    def state(self) -> str:
        """Just now: "pending", "running", "succeeded", "failed" or "cancelled"."""
        self.rehydrate()
        return str(self._get("state"))

    def pipeline_name(self) -> str:
        return str(self._get("pipeline_name"))

    def guarantee(self) -> str:
        """What holds for what it writes: exactly once, or at least once, and why."""
        return str(self._get("guarantee"))

    def attempts(self) -> int:
        """How often the platform has begun it."""
        return int(self._get("attempts"))

    def created_at(self) -> datetime | None:
        return self._time("created_at")

    def ended_at(self) -> datetime | None:
        """None while it has not."""
        return self._time("ended_at")

    def request(self) -> dict[str, Any]:
        """What it was asked to do: names and ids, never a secret."""
        return dict(self._get("request"))

    def error(self) -> str:
        """Why it failed, and what to do; "" while it has not."""
        return str(self._get("error"))

    def result(self) -> dict[str, Any] | None:
        """What came of it; None before its end."""
        self._look_unless_ended()
        found = self._get("result")
        return None if found is None else dict(found)

    def progress(self) -> JobProgress:
        """How far it is just now."""
        self._look_unless_ended()
        return JobProgress(self._get("progress"), str(self._get("state")))

    @quiet_when_interrupted
    def wait(self, timeout: float | None = None) -> Job:
        """Wait until it has ended, with a bar where somebody watches. Interrupt it as you like: the job goes on.

        Args:
            timeout: seconds; None waits as long as it takes. A stream goes on until it is cancelled.

        Raises:
            JobError: it failed.
            WaitForError: it has not ended in time.
            CommunicationError: the platform does not answer for two minutes. Less is no error: a job survives that.
        """
        return self._wait(timeout, f"The job is as it was: wl.get_job('{self.id()}') finds it, its cancel() stops it.")

    def _wait(self, timeout: float | None, if_interrupted: str) -> Job:
        waiting = _Waiting(self)
        limit_s = math.inf if timeout is None else timeout
        try:
            ended = poll(waiting.look, timeout_s=limit_s, clock=self._client._clock, screen=Screen(shown=False))
        except KeyboardInterrupt:
            waiting.is_interrupted(if_interrupted)
            raise
        waiting.is_over()
        if ended is None:
            raise WaitForError(f"Job {self.id()} has not ended within {timeout:g} s; it goes on.", waiting.progress)
        if ended.state == "failed":
            raise JobError(self.id(), self.error())
        if rejected := self._rejected():
            self._client._screen.write(f"Warning: {rejected}\n")
            self._client._screen.log(f"Warning: job {self.id()}: {rejected}")
        return self

    def logs(self, limit: int = 1000) -> list[str]:
        """The last lines that it has said, oldest first."""
        with refused_as(f"Failed to read the log of job {self.id()}:"):
            lines = self._client._transport.get(f"{_path(self.id())}/log?limit={int(limit)}")["lines"]
        return [str(line["text"]) for line in lines]

    def cancel(self) -> Job:
        """Have it stop where it is safe, a moment later; what it has written stays. Harmless when it has ended."""
        with refused_as(f"Failed to cancel job {self.id()}:"):
            self._record.update(self._client._transport.post(f"{_path(self.id())}/cancel")["job"])
        return self

    def rejects(self, as_: Form = "pandas") -> Any:
        """The rows that it could not do so far, with the reason of each; `as_` is that of `Connection.read`."""
        found, progress = self._rows("rejects", as_), self._record.get("progress") or {}
        if topic := progress.get("dead_letter"):
            said = (
                f"Messages without an answer are in topic '{topic}', each with the reason in its header bettong-error."
            )
            self._client._screen.write(f"{said}\n")
        return found

    def rows(self, as_: Form = "pandas") -> Any:
        """The rows that came of it, where its kind leaves some: those of a replay."""
        return self._rows("result", as_)

    def refresh(self) -> Job:
        """Look again."""
        self.rehydrate()
        return self

    def _rows(self, what: str, as_: Form) -> Any:
        from wallaroo import _row_streams  # pyarrow takes longer to import than all else of this package

        progress = _row_streams.Progress(self._client._screen, "Reading")
        path = f"{_path(self.id())}/{what}"
        with refused_as(f"Failed to read the rows of job {self.id()}:"):
            return _row_streams.read(self._client._transport, path, None, as_, _ROWS_TIMEOUT_S, progress)

    def _look_unless_ended(self) -> None:
        if self._record.get("state") not in _ENDED:
            self.rehydrate()

    def _fetch(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = _get_record(self._client, self.id())
        return found

    def _rejected(self) -> str:
        """What a person should know of the rows or messages that it could not do; "" where there are none."""
        progress = self._get("progress") or {}
        if self.kind() == "infer_stream":
            return _unanswered(progress)
        count = progress.get("rows_rejected")
        if self.kind() != "infer_batch" or not count:
            return ""
        were, them = ("was", "it, with its reason") if count == 1 else ("were", "them, with their reasons")
        return f"{count:,} of {progress['rows_read']:,} rows {were} rejected: job.rejects() has {them}."

    def _facts(self) -> Sequence[Row]:
        progress = JobProgress(self._get("progress"), str(self._get("state")))
        rejected = [("Rejected", self._rejected())] if self._rejected() else []
        error = [("Error", self.error())] if self.error() else []
        return [
            ("Id", self.id()),
            ("Kind", self.kind()),
            ("Pipeline", self.pipeline_name()),
            ("State", progress.state),
            ("Progress", str(progress)),
            *rejected,
            ("Guarantee", self.guarantee()),
            ("Created at", show_time(self._client, self.created_at())),
            ("Ended at", show_time(self._client, self.ended_at())),
            ("Attempts", self.attempts()),
            *error,
        ]

    def _repr_html_(self) -> str:
        self._look_unless_ended()
        return fields(self._facts())

    def __repr__(self) -> str:
        self._look_unless_ended()
        return text_fields("Job", self._facts())


class _Waiting:
    """A wait for a job: a bar for a person, two lines for a script, patience with a platform that restarts."""

    def __init__(self, job: Job) -> None:
        self._job, self._screen, self._clock = job, job._client._screen, job._client._clock
        self._long = LongWait(self._screen, self._clock, f"Waiting for job {job.id()}.")
        self._line = ""
        self._away_since_s: float | None = None
        self.progress: JobProgress | None = None  # as of the last look

    def look(self) -> JobProgress | None:
        """The progress of one that has ended."""
        self._long.goes_on()
        try:
            self.progress = self._job.progress()
        except (CommunicationError, WallarooAPIError) as error:
            if isinstance(error, WallarooAPIError) and error.code < 500:
                raise
            now_s = self._clock.now_s()
            if self._away_since_s is None:
                self._away_since_s = now_s
            if now_s - self._away_since_s >= _AWAY_S:
                raise
            self._put(f"The platform does not answer; waiting for it for up to {_AWAY_S:.0f} s. The job survives that.")
            return None
        self._away_since_s = None
        self._show(self.progress)
        return self.progress if self.progress.state in _ENDED else None

    def is_over(self) -> None:
        self._end_line()
        self._long.is_over(f"Job {self._job.id()} {'' if self.progress is None else self.progress.state}".rstrip())

    def is_interrupted(self, told: str) -> None:
        self._end_line()
        self._screen.write(f"{told}\n")

    def _show(self, progress: JobProgress) -> None:
        says_its_state = progress.share is None  # where a bar cannot say how far it is
        ended = progress.state in _ENDED and not says_its_state
        self._put(f"{progress}  {progress.state}" if ended else str(progress))

    def _end_line(self) -> None:
        self._screen.write("\n" if self._line else "")

    def _put(self, line: str) -> None:
        if line != self._line:
            self._screen.write(f"\r{line.ljust(len(self._line))}")
            self._line = line


def _unanswered(progress: Mapping[str, Any]) -> str:
    """Of the messages of a stream."""
    dead, kept = progress.get("dead_lettered") or 0, progress.get("rejected") or 0
    if not dead and not kept:
        return ""
    were, them = ("was", "it") if dead + kept == 1 else ("were", "them")
    where = f"dead-lettered to '{progress.get('dead_letter')}'" if dead else f"rejected: job.rejects() has {them}"
    last = f" The last: {reason}" if (reason := progress.get("last_reason")) else ""
    return f"{dead + kept:,} of {progress['messages_in']:,} messages {were} {where}.{last}"


_OLDER = "(there are older ones: pass a higher limit, or limit=None for all)"


class JobList(ObjectList[Job]):
    columns = ("id", "kind", "pipeline", "state", "progress", "created at")
    empty = "(no jobs)"
    more = False  # whether there are older ones, which it was not asked for

    def _row(self, item: Job) -> Sequence[Any]:
        record = item._record
        progress = JobProgress(record["progress"], record["state"])
        rows = ", ".join(progress._counts())
        return (item.id(), item.kind(), item.pipeline_name(), progress.state, rows, self._date(item.created_at()))

    def _repr_html_(self) -> str:
        return super()._repr_html_() + (f"<p>{html.escape(_OLDER)}</p>" if self.more else "")

    def __repr__(self) -> str:
        return super().__repr__() + (f"\n{_OLDER}" if self.more else "")


def make(client: Client, kind: str, request: Mapping[str, Any]) -> Job:
    """Have the platform make a job. Raises RequestRefused: it refuses, and says why."""
    with refused_as(f"Failed to start the {_KINDS[kind]}:"):
        made = Job(client, client._transport.post(f"{_ROOT}/{kind}", request)["job"])
    if warning := made._record.get("warning"):
        client._screen.write(f"Warning: {warning}\n")
        client._screen.log(f"Warning: job {made.id()}: {warning}")
    return made


def get(client: Client, job_id: str) -> Job:
    """The job with that id, or the only one whose id begins so. Raises EntityNotFoundError, ValueError, TypeError."""
    if not isinstance(job_id, str):
        raise TypeError(f"The id is of type {type(job_id).__name__}. Give it as a text, or its first characters.")
    if len(job_id) < _SHORTEST_ID:
        raise _not_found(job_id, f"Give at least the first {_SHORTEST_ID} characters of its id; ")
    if len(job_id) >= _WHOLE_ID:
        return Job(client, _get_record(client, job_id))
    named = [each for each in list_all(client) if each.id().startswith(job_id)]
    if len(named) > 1:
        raise ValueError(
            f"The ids of {len(named)} jobs begin with '{job_id}'. Give more of it: wl.list_jobs() has them."
        )
    if not named:
        raise _not_found(job_id)
    return named[0]


def list_all(
    client: Client,
    *,
    unended: bool = False,
    kind: str | None = None,
    workspace_id: int | None = None,
    limit: int | None = None,
    after: str | Job | None = None,
) -> JobList:
    """Newest first, as many as `limit` says, from behind `after`."""
    known = {"workspace_id": workspace_id, "kind": kind, "after": after.id() if isinstance(after, Job) else after}
    request = {"unended": unended, **{name: value for name, value in known.items() if value is not None}}
    found = JobList(client)
    while True:
        page = _PAGE if limit is None else min(limit - len(found), _PAGE)
        with refused_as("Failed to list jobs:"):
            answer = client._transport.post(f"{_ROOT}/list", {**request, "limit": page})
        found.extend(Job(client, record) for record in answer["jobs"])
        found.more = answer["more"]
        if not found.more or len(found) == limit:
            return found
        request["after"] = found[-1].id()


def _get_record(client: Client, job_id: str) -> Any:
    try:
        return client._transport.get(_path(job_id))["job"]
    except WallarooAPIError as error:
        if error.code == 404:
            raise _not_found(job_id) from None
        raise


def _not_found(job_id: str, next_step: str = "") -> EntityNotFoundError:
    key = {"id": job_id}
    text = f"Job not found: {key}. {next_step}wl.list_jobs() shows those that you may see."
    return EntityNotFoundError("Job", key, text)


def _path(job_id: str) -> str:
    return f"{_ROOT}/{quote(job_id, safe='')}"
