"""The packaging queue: claim an unfinished model version, package it, apply what came of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bettong.jobs.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

AT_ONCE = 2
LOOK_EVERY_S = 30.0


class PackagingQueue:
    """Works through unfinished model versions, oldest first, `AT_ONCE` at a time.

    What is unfinished stands in the database alone, so a version that a killed server was working on is claimed again
    by the next one. Within one server a version is worked on once at a time.
    """

    def __init__(self, unfinished: Callable[[], Iterable[int]], package: Callable[[int], object]) -> None:
        self._unfinished, self._package = unfinished, package
        self._claimed: set[int] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bettong-packaging")
        self._loop = Loop("packaging-queue", self._claim, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        self._loop.start()

    def wake(self) -> None:
        """There is a new version."""
        self._loop.wake()

    def stop(self) -> None:
        """Claim nothing more. A version in work is left as it is: the next server claims it again."""
        self._loop.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _claim(self) -> None:
        for version_id in self._unfinished():
            with self._lock:
                if version_id in self._claimed:
                    continue
                self._claimed.add(version_id)
            self._pool.submit(self._work, version_id)

    def _work(self, version_id: int) -> None:
        try:
            self._package(version_id)
        finally:
            with self._lock:
                self._claimed.discard(version_id)
