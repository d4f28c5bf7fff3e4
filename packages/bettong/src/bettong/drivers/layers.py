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


def after(stages: Iterable[StageResult]) -> Stage | None:
    """The layer that comes next after these; None after the last. It is the one that a call without an end hangs in."""
    last = -1
    for result in stages:
        last = max(last, ORDER.index(result.stage))
    return ORDER[last + 1] if last + 1 < len(ORDER) else None


def _ms(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
