"""Work that goes on beside the requests: one thread per kind of work, woken by events or by the clock."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("bettong.jobs")


class Loop:
    """Runs `work` in a thread of its own: at the start, whenever it is woken, and every `every_s` seconds.

    An error in `work` is logged and does not end the loop: the next round may work. `work` is never run twice at once.
    """

    def __init__(self, name: str, work: Callable[[], object], *, every_s: float) -> None:
        self._work, self._every_s = work, every_s
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"bettong-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Run soon, also when it is running just now."""
        self._wake.set()

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Ask the loop to end after the round it is in; True when it has ended within `timeout_s`."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._work()
            except Exception:
                log.exception("job_failed job=%s", self._thread.name)
            self._wake.wait(self._every_s)
