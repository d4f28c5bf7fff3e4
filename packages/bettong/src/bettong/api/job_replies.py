"""What callers get of jobs, and how it is built from the services' values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.api.answers import iso
from bettong.api.replies import Reply

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bettong.domain.jobs import Job, JobLine

    Record = dict[str, Any]


class JobRecord(Reply):
    """A job. `guarantee` says what holds for what it writes, `warning` what else its maker should know; `error` names
    problem and next step of one that failed."""

    id: str
    kind: str
    state: str
    workspace_id: int
    pipeline_name: str
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    attempts: int
    cancel_asked: bool
    guarantee: str
    warning: str
    progress: dict[str, Any] | None
    result: dict[str, Any] | None
    error: str
    request: dict[str, Any]


class One(Reply):
    job: JobRecord


class Many(Reply):
    jobs: list[JobRecord]
    more: bool


class LineRecord(Reply):
    seq: int
    at: str
    text: str


class Lines(Reply):
    lines: list[LineRecord]


def one(job: Job) -> Record:
    return {"job": record(job)}


def many(jobs: Iterable[Job], more: bool) -> Record:
    return {"jobs": [record(job) for job in jobs], "more": more}


def lines(said: Iterable[JobLine]) -> Record:
    return {"lines": [{"seq": line.seq, "at": iso(line.at), "text": line.text} for line in said]}


def record(job: Job) -> Record:
    request = dict(job.request)
    pipeline_name, guarantee = request.pop("pipeline_name", ""), request.pop("guarantee", "")
    warning = request.pop("warning", "")
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "workspace_id": job.workspace_id,
        "pipeline_name": pipeline_name,
        "created_by": job.created_by,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at) if job.started_at else None,
        "ended_at": iso(job.ended_at) if job.ended_at else None,
        "attempts": job.attempts,
        "cancel_asked": job.cancel_asked,
        "guarantee": guarantee,
        "warning": warning,
        "progress": None if job.progress is None else dict(job.progress),
        "result": None if job.result is None else dict(job.result),
        "error": job.error,
        "request": request,
    }
