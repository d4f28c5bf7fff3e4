"""A process that has started before its call comes: what it imports takes longer than most calls do."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.drivers.child_process import ChildProcess

log = logging.getLogger("bettong.drivers")


class Ready:
    """At most one process that waits, for `keep_s` at most; with 0 none ever does. Safe to use from many threads."""

    def __init__(self, start: Callable[[], ChildProcess], keep_s: float) -> None:
        self._start, self._keep_s = start, keep_s
        self._lock = threading.Lock()
        self._waiting: tuple[ChildProcess, threading.Timer] | None = None

    def take(self) -> ChildProcess:
        """The one that waits, or a new one. It is the caller's to end. Raises Unavailable when none can be started."""
        child = self._out()
        if child is not None and child.alive:
            return child
        if child is not None:
            child.end()
        return self._start()

    def refill(self, driver: str = "") -> None:
        """Have one wait, unless one does; the next call is likely to be of the same `driver`."""
        if not self._keep_s:
            return
        with self._lock:
            if self._waiting is not None:
                return
            try:
                child = self._start()
            except Unavailable as refused:
                log.warning("driver process ready=no problem=%s", refused)
                return
            if driver:
                child.expect(driver)
            timer = threading.Timer(self._keep_s, self.close, [child])
            timer.daemon = True
            self._waiting = child, timer
            timer.start()

    def close(self, child: ChildProcess | None = None) -> None:
        """End the one that waits; with `child`, only if it is that one."""
        if (found := self._out(child)) is not None:
            found.end()

    def _out(self, only: ChildProcess | None = None) -> ChildProcess | None:
        with self._lock:
            if self._waiting is None or (only is not None and self._waiting[0] is not only):
                return None
            (child, timer), self._waiting = self._waiting, None
            timer.cancel()
            return child
