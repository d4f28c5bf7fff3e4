"""What becomes of a job when an attempt at it has ended: decided here, without a process, a store or a clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.jobs import JobState
from bettong.errors import BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_FAILURES = 3  # in a row, without getting further
FIRST_PAUSE_S = 2.0
MOST_CHARS = 4_000  # of what a job says or fails with: names of 100,000 columns help nobody


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended: with a `result`, whole or because the kind stopped where it was told to, or of an `error`.

    `advanced`: it came to a place to go on from, beyond the one it began at.
    """

    result: Mapping[str, Any] | None = None
    stopped: bool = False
    error: BettongError | None = None
    advanced: bool = False


@dataclass(frozen=True, slots=True)
class Finish:
    state: JobState
    result: Mapping[str, Any] | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Again:
    """Another attempt, not before so many seconds."""

    after_s: float
    failures: int
    why: str


@dataclass(frozen=True, slots=True)
class Leave:
    """The job stays as it is, for whoever claims it next."""


def verdict(ended: Ended, failures: int, *, cancel_asked: bool, going_down: bool) -> Finish | Again | Leave:
    """What follows.

    Args:
        failures: how many attempts before this one failed in a row without getting further.
        cancel_asked: whether somebody asked the job to end.
        going_down: whether the server does.
    """
    if ended.error is None and not ended.stopped:
        return Finish(JobState.SUCCEEDED, ended.result)
    if cancel_asked:
        return Finish(JobState.CANCELLED, ended.result)
    if going_down:
        return Leave()
    if ended.error is None:
        return Finish(JobState.SUCCEEDED, ended.result)  # a kind that stopped of its own has stopped where it is safe
    if not isinstance(ended.error, Unavailable):
        return Finish(JobState.FAILED, error=str(ended.error))
    failures = 1 if ended.advanced else failures + 1
    if failures >= MOST_FAILURES:
        more = f" It was tried {failures} times in a row without getting further; make it anew to try again."
        return Finish(JobState.FAILED, error=f"{_without_advice(ended.error)}{more}")
    return Again(FIRST_PAUSE_S * 2 ** (failures - 1), failures, _without_advice(ended.error))


def _without_advice(error: BettongError) -> str:
    """Its words, but not to try again, which the platform does."""
    return error.problem if error.next_step.startswith("Try again") else str(error)


def shortened(text: str) -> str:
    """The text, or as much of it as people read."""
    return text if len(text) <= MOST_CHARS else f"{text[:MOST_CHARS]} … ({len(text)} characters in all)"
