"""An event loop in a thread of its own: plain code asks asynchronous libraries through it, with a deadline."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class LoopThread:
    """Runs from the start. Close it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]], within_s: float) -> Any:
        """What the coroutine gives that `work` makes. Raises what it raises, and TimeoutError when it is not done in
        time: it is cancelled then."""
        future = asyncio.run_coroutine_threadsafe(_made(work), self._loop)
        try:
            return future.result(within_s)
        except BaseException:
            future.cancel()
            raise

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine run beside, until the loop is closed."""
        asyncio.run_coroutine_threadsafe(_made(work), self._loop)

    def close(self, last: Callable[[], Coroutine[Any, Any, None]], within_s: float) -> None:
        """Run `last`, cancel whatever else runs, and end the thread."""

        async def ended() -> None:
            await last()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(ended(), self._loop).result(within_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _made(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return await work()
