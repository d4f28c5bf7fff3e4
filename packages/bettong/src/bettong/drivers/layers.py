"""A test in layers: each is timed, the first that fails ends it, and what it says leads to the next step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bettong.domain.drivers import Stage, StageResult
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Work = Callable[[], str]

NOT_HERE = "does not apply"
HANDSHAKE_S = 5.0  # for TLS: who speaks it answers at once, and who does not waits for more
_SHARE = 0.85  # of the time of a test, for one layer: then it can still say what it met
ORDER = tuple(Stage)


def climb(steps: Iterable[tuple[Stage, Work | None]]) -> Iterator[StageResult]:
    """Run the steps in order, each as far as the ones before held. A step's work gives what is said of its success;
    None stands for a layer that this kind of source does not have."""
    for stage, work in steps:
        if work is None:
            yield StageResult(stage, None, said=NOT_HERE)
            continue
        began = time.perf_counter()
        try:
            said = work()
        except BettongError as failed:
            yield StageResult(stage, False, _ms(began), failed.problem, failed.next_step)
            return
        yield StageResult(stage, True, _ms(began), said)


def patience_s(timeout_s: float) -> float:
    """How long one layer of a test may wait that has so long in all."""
    return timeout_s * _SHARE


def silent(stage: Stage, kind: str, timeout_s: float) -> StageResult:
    """What is said of a layer that had nothing to say before the time was over."""
    return StageResult(
        stage,
        False,
        timeout_s * 1000,
        f"The {kind} connection did not answer within {timeout_s:g} s.",
        "The layers before this one hold: see that what listens there is of this type and not stopped or busy, "
        "or allow more time.",
    )


def after(stages: Iterable[StageResult]) -> Stage | None:
    """The layer that comes next after these; None after the last. It is the one that a call without an end hangs in."""
    last = -1
    for result in stages:
        last = max(last, ORDER.index(result.stage))
    return ORDER[last + 1] if last + 1 < len(ORDER) else None


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
