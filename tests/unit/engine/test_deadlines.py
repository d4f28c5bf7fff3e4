"""One time limit for all requests: who runs out, and who does not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from bettong.engine.deadlines import Deadlines, Left

if TYPE_CHECKING:
    from collections.abc import Coroutine


class Hours(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as nothing else is left to do."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def live(story: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Hours) as runner:
        runner.run(story)


async def takes(deadlines: Deadlines, seconds: float) -> str:
    try:
        with deadlines.watch():
            await asyncio.sleep(seconds)
    except TimeoutError:
        return f"ran out at {asyncio.get_running_loop().time():g}"
    return f"done at {asyncio.get_running_loop().time():g}"


def test_each_request_has_the_limit_from_its_own_beginning() -> None:
    async def story() -> None:
        deadlines = Deadlines(10)

        async def later(start: float, seconds: float) -> str:
            await asyncio.sleep(start)
            return await takes(deadlines, seconds)

        answers = await asyncio.gather(
            later(0, 9), later(0, 11), later(3, 9), later(4, 99), later(5, 1), later(40, 9), later(50, 99)
        )
        assert answers == [
            "done at 9", "ran out at 10", "done at 12", "ran out at 14", "done at 6", "done at 49", "ran out at 60",
        ]  # fmt: skip

    live(story())


def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def story() -> None:
        deadlines = Deadlines(10)
        task = asyncio.create_task(takes(deadlines, 99))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    live(story())


def test_when_both_come_at_once_the_cancellation_wins() -> None:
    async def story() -> None:
        deadlines = Deadlines(10)
        task = asyncio.create_task(takes(deadlines, 99))
        asyncio.get_running_loop().call_later(10, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    live(story())


def test_another_error_leaves_as_it_is_and_a_task_that_ran_out_can_go_on() -> None:
    async def story() -> None:
        deadlines = Deadlines(10)
        with pytest.raises(KeyError), deadlines.watch():
            raise KeyError
        assert await takes(deadlines, 11) == "ran out at 10"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        assert await takes(deadlines, 5) == "done at 15"

    live(story())


def test_who_leaves_is_cancelled_at_once_and_a_leave_after_the_end_does_nothing() -> None:
    async def story() -> None:
        deadlines, entered = Deadlines(10), asyncio.Event()
        watches: list[Any] = []

        async def request(seconds: float) -> str:
            try:
                with deadlines.watch() as watch:
                    watches.append(watch)
                    entered.set()
                    await asyncio.sleep(seconds)
            except Left:
                return "left"
            except TimeoutError:
                return "ran out"
            return "done"

        leaving = asyncio.create_task(request(5))
        await entered.wait()
        watches[0].leave()
        watches[0].leave()
        assert await leaving == "left"
        assert leaving.cancelling() == 0

        assert await request(1) == "done"
        watches[1].leave()
        assert await request(20) == "ran out"

    live(story())
