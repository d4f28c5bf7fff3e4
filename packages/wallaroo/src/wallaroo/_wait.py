"""Waiting: look often at first, show a dot for every second that passed, and stop when it is too late."""

from __future__ import annotations

import functools
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

P = ParamSpec("P")
T = TypeVar("T")

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
GROWTH = 1.3
LONG_S = 3.0  # a wait that a script's log has to explain


@dataclass(frozen=True)
class Clock:
    """Time as waits see it; tests pass another."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Screen:
    """Where waits are shown.

    Attributes:
        shown: to a person, step by step, on stdout.
        logged: to whoever reads what a script left behind: two lines on stderr for each long wait.
    """

    shown: bool
    logged: bool = False

    def write(self, text: str) -> None:
        if self.shown and text:
            sys.stdout.write(text)
            sys.stdout.flush()

    def log(self, line: str) -> None:
        if self.logged:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


class LongWait:
    """A line when a wait has become long, and one when it is over. A short wait leaves none."""

    def __init__(self, screen: Screen, clock: Clock, opening: str) -> None:
        self._screen, self._clock, self._opening = screen, clock, opening
        self._started_s = clock.now_s()
        self._told = False

    def goes_on(self) -> None:
        if not self._told and self._clock.now_s() - self._started_s >= LONG_S:
            self._told = True
            self._screen.log(self._opening)

    def is_over(self, ending: str) -> None:
        if self._told:
            self._screen.log(f"{ending} after {self._clock.now_s() - self._started_s:.0f} s.")


def poll(
    look: Callable[[], T | None],
    *,
    timeout_s: float,
    clock: Clock,
    screen: Screen,
    dot_every_s: float = 1.0,
) -> T | None:
    """Call `look` until it returns something, and return that; None when `timeout_s` passed without.

    The first look is immediate, the last one at the end of the time. What `look` raises ends the wait.
    """
    started_s = clock.now_s()
    pause_s, dots = FIRST_PAUSE_S, 0
    while True:
        elapsed_s = clock.now_s() - started_s
        due = int(elapsed_s / dot_every_s)
        screen.write("." * (due - dots))
        dots = due
        if (found := look()) is not None:
            return found
        if elapsed_s >= timeout_s:
            return None
        clock.sleep(min(pause_s, timeout_s - elapsed_s))
        pause_s = min(pause_s * GROWTH, LONGEST_PAUSE_S)


def quiet_when_interrupted(call: Callable[P, T]) -> Callable[P, T]:
    """The same call; an interrupt (Ctrl-C) leaves it with one frame of ours, however deep it came."""

    @functools.wraps(call)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except KeyboardInterrupt as interrupt:
            raise interrupt.with_traceback(None) from None

    return quiet


def watched() -> bool:
    """Whether a person sees what is printed: in an IPython kernel or shell, or in a terminal."""
    return _in_ipython() or sys.stdout.isatty()


def red(text: str) -> str:
    """The text for stderr, in red where that is a colour and not six strange characters."""
    return f"\033[31m{text}\033[0m" if _in_ipython() or sys.stderr.isatty() else text


def _in_ipython() -> bool:
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None
