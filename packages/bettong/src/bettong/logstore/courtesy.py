"""How work in the background lets those go first who are waited for.

A low priority is not enough: a kernel that groups processes by session (autogroup, as desktops have it) weighs sessions
against each other, and two threads of one core take from each other whatever their priorities are.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_S = 0.1
BUSY_CORES = 0.25  # what others use before we rest
RESTS = 4  # times as long as we worked: a fifth of a core is left to us
FULL_SHARE = 0.5  # of all cores, used by others: before long somebody waits for every bit that we take
FULL_RESTS = 19  # a twentieth of a core then, and a fifth again once that has lasted
PATIENT_S = 600.0
MAX_REST_S = 4.0
_STAT = Path("/proc/stat")


class Courtesy:
    """Rests between two pieces of work of one thread as long as others use the machine. Where the system does not tell
    what others do, it never rests."""

    def __init__(
        self,
        *,
        busy_s: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        worked_s: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
        cores: int | None = None,
    ) -> None:
        """`busy_s` tells the CPU seconds that all of the machine's `cores` have used so far, `worked_s` those of this
        thread."""
        self._busy_s, self._clock, self._worked_s, self._sleep = busy_s or machine_busy_s, clock, worked_s, sleep
        self._cores = cores or os.cpu_count() or 1
        self._then: tuple[float, float, float] | None = None  # the three, when we looked last
        self._full_since: float | None = None  # on the clock

    def rest(self) -> None:
        """To be called after each piece of work."""
        busy_s = self._busy_s()
        if busy_s is None:
            return
        now = (self._clock(), busy_s, self._worked_s())
        if self._then is None:
            self._then = now
            return
        wall_s, all_s, ours_s = (new - old for new, old in zip(now, self._then, strict=True))
        if wall_s < LOOK_EVERY_S:
            return
        others = (all_s - ours_s) / wall_s  # cores that they used
        if others < FULL_SHARE * self._cores:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now[0]
        full = self._full_since is not None and now[0] - self._full_since < PATIENT_S
        if (pause_s := rest_s(ours_s, others, full=full)) > 0:
            self._sleep(pause_s)
        self._then = (self._clock(), self._busy_s() or 0.0, self._worked_s())


def rest_s(worked_s: float, others: float, *, full: bool) -> float:
    """How long to rest after `worked_s` while others use so many cores, which may be about all that there are."""
    return min((FULL_RESTS if full else RESTS) * worked_s, MAX_REST_S) if others > BUSY_CORES else 0.0


def machine_busy_s() -> float | None:
    """CPU seconds that the machine has used since it started; None where the system does not tell."""
    try:
        user, nice, system, _idle, _wait, irq, softirq = _STAT.read_text().split("\n", 1)[0].split()[1:8]
    except (OSError, ValueError):
        return None
    return sum(map(int, (user, nice, system, irq, softirq))) / os.sysconf("SC_CLK_TCK")
