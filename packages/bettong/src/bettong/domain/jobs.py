"""Jobs: work that the server does for a person over minutes or days, and that survives the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


class JobState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    INFER_BATCH = "infer_batch"
    INFER_STREAM = "infer_stream"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Job:
    """One job. `request` says what to do (names and ids, never a secret), `progress` how far it is, `position` where a
    new attempt goes on, `result` what came of it; `error` names problem and next step.

    A job whose server died is RUNNING without anyone at it: the next server claims it again and adds to `attempts`.
    `connection_ids` are the connections that it reads or writes: who would delete one is told of the job.
    """

    id: str
    kind: JobKind
    workspace_id: int
    created_by: str
    request: Mapping[str, Any]
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    attempts: int = 0
    cancel_asked: bool = False
    progress: Mapping[str, Any] | None = None  # {"rows_read", "rows_written", "rows_rejected", "rows_total" | None}
    position: str | None = None
    result: Mapping[str, Any] | None = None
    error: str = ""
    connection_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobLine:
    """One line of a job's log; `seq` grows, and is where a reader goes on."""

    seq: int
    at: datetime
    text: str
