"""Which function does the work of which kind of job. It is imported in the job's own process alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bettong.domain.jobs import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Mapping[JobKind, str] = {
    JobKind.INFER_BATCH: "bettong.jobs.infer_batch:infer_batch",
    JobKind.INFER_STREAM: "bettong.jobs.infer_stream:infer_stream",
    JobKind.REPLAY: "bettong.jobs.replay:replay",
}


@dataclass(frozen=True, slots=True)
class Programs:
    """`kinds` has "module:function" for each kind; `folders` are looked through besides what is installed."""

    kinds: Mapping[JobKind, str] = field(default_factory=lambda: KINDS)
    folders: tuple[str, ...] = ()
