"""One time limit for every request, watched by one timer.

`asyncio.timeout` arms a timer for each request and takes it back (8 µs of CPU); requests that all have the same limit
run out in the order in which they began, so that watching the oldest is enough (1 µs).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Deadlines:
    """Requests of one event loop that may each take `limit_s`; `async with` is not needed, entering never waits:

    with deadlines.watch():
        await work()  # cancelled when the limit is reached; then TimeoutError leaves the block

    As with `asyncio.timeout`, a cancellation from elsewhere stays a cancellation.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._watched: dict[_Watch, None] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> _Watch:
        return _Watch(self)

    def begin(self, watch: _Watch) -> float:
        """Take a request on; when it runs out, on the loop's clock."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._limit_s
        self._watched[watch] = None
        if self._timer is None:
            self._timer = loop.call_at(ends_at, self._look)
        return ends_at

    def end(self, watch: _Watch) -> None:
        self._watched.pop(watch, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._watched:
            oldest = next(iter(self._watched))
            if oldest.ends_at > now:
                self._timer = loop.call_at(oldest.ends_at, self._look)
                return
            del self._watched[oldest]
            oldest.run_out()


class _Watch:
    __slots__ = ("_all", "_cancelling", "_ran_out", "_task", "ends_at")

    def __init__(self, all_: Deadlines) -> None:
        self._all, self._ran_out = all_, False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("Only a task can be given a deadline.")
        self._task, self._cancelling = task, task.cancelling()
        self.ends_at = self._all.begin(self)
        return self

    def run_out(self) -> None:
        self._ran_out = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._ran_out:
            self._all.end(self)
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
