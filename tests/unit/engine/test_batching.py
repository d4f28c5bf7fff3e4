"""Who goes when is decided without a clock; the shell around it is tried on both event loops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
import uvloop

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import ObservedWorker, State
from bettong.engine.batching import MAX_BATCH_BYTES, Batching, Go, Waiting, WakeAt, decide
from bettong.errors import BadInput, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

RULE = DynamicBatching(max_batch_delay_ms=10, batch_size_target=4)
LIMITED = DynamicBatching(max_batch_delay_ms=10, batch_size_target=4, batch_size_limit=6)
HOUR = DynamicBatching(max_batch_delay_ms=60_000, batch_size_target=1000)


def waiting(*rows: int, since_s: float = 100.0, size: int = 8) -> list[Waiting]:
    """One caller per number, a millisecond apart."""
    return [Waiting(n, size, since_s + i / 1000) for i, n in enumerate(rows)]


@pytest.mark.parametrize(
    ("rule", "rows", "now_s", "then"),
    [
        (RULE, [], 100.0, None),
        (RULE, [1], 100.0, WakeAt(100.010)),
        (RULE, [1, 1, 1], 100.009, WakeAt(100.010)),
        (RULE, [1, 1, 1], 100.010, Go(3)),
        (RULE, [1, 1, 1, 1], 100.003, Go(4)),
        (RULE, [2, 1, 1, 1, 1], 100.003, Go(5)),
        (RULE, [5000], 100.0, Go(1)),
        (LIMITED, [1, 1, 1, 1, 1, 1, 1, 1], 100.0, Go(6)),
        (LIMITED, [3, 4], 100.0, Go(1)),
        (LIMITED, [7], 100.0, Go(1)),
        (LIMITED, [7, 1], 100.0, Go(1)),
        (LIMITED, [1, 7], 100.0, Go(1)),
        (LIMITED, [1, 1], 100.005, WakeAt(100.010)),
    ],
    ids=lambda value: str(value) if not isinstance(value, DynamicBatching) else "",
)
def test_a_batch_goes_when_it_is_large_or_old_enough_and_never_above_its_limit(
    rule: DynamicBatching, rows: list[int], now_s: float, then: object
) -> None:
    assert decide(waiting(*rows), now_s, rule) == then


def test_so_many_bytes_that_they_could_not_be_joined_go_in_two_batches() -> None:
    assert decide(waiting(1, 1, 1, size=MAX_BATCH_BYTES // 2), 100.0, RULE) == Go(2)
    assert decide(waiting(1, 1, size=MAX_BATCH_BYTES), 100.0, RULE) == Go(1)


# --- the shell ------------------------------------------------------------------------------------------------------


class Doubler:
    """Doubles `x`, and remembers what it was given at once. Held back until `go` is set; `bad` values fail."""

    def __init__(self, *bad: int, failure: Exception | None = None) -> None:
        self.input_schema = pa.schema([pa.field("x", pa.int64())])
        self.output_schema = pa.schema([pa.field("y", pa.int64())])
        self.batches: list[list[int]] = []
        self.cancelled = 0
        self.go, self.begun = asyncio.Event(), asyncio.Event()
        self._bad, self._failure = set(bad), failure or ModelFailed("Model 'doubler' failed: bad value")
        self._closed = False

    async def start(self) -> None:
        self.go.set()

    async def predict(self, rows: pa.Table) -> pa.Table:
        if self._closed:
            raise Unavailable("The doubler was stopped.")
        values: list[Any] = rows["x"].to_pylist()
        self.batches.append(values)
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self._closed or self._bad & set(values):
            raise self._failure
        return pa.table({"y": [2 * x for x in values]}, schema=self.output_schema)

    async def close(self) -> None:
        self._closed = True
        self.go.set()

    def observed(self) -> ObservedWorker:
        return ObservedWorker("doubler-1", 7, State.RUNNING)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def bounded(story: Coroutine[Any, Any, None]) -> None:
        request.param(asyncio.wait_for(story, 30))

    return bounded


def rows(*values: int) -> pa.Table:
    return pa.table({"x": pa.array(values, pa.int64())})


def asked(batching: Batching, *values: int) -> asyncio.Task[list[int]]:
    async def ask() -> list[int]:
        answer: list[Any] = (await batching.predict(rows(*values)))["y"].to_pylist()
        return answer

    return asyncio.create_task(ask())


def test_callers_go_together_and_each_gets_what_it_is_owed(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, RULE)
        await batching.start()

        answers = await asyncio.gather(*(asked(batching, *x) for x in ([1], [2, 3], [4])))

        assert answers == [[2], [4, 6], [8]]
        assert model.batches == [[1, 2, 3, 4]]
        await batching.close()

    run(story())


def test_a_lonely_caller_goes_when_the_delay_is_over(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, RULE)
        await batching.start()

        assert await asked(batching, 1) == [2]
        assert await asked(batching, 2) == [4]
        assert model.batches == [[1], [2]]
        await batching.close()

    run(story())


def test_what_comes_while_the_model_is_busy_goes_together_when_it_is_free(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, DynamicBatching(batch_size_target=1, batch_size_limit=3))
        first = asked(batching, 1)
        await model.begun.wait()
        later = [asked(batching, x) for x in (2, 3, 4, 5)]
        await asyncio.sleep(0)
        assert batching.waiting == 4

        model.go.set()

        assert await asyncio.gather(first, *later) == [[2], [4], [6], [8], [10]]
        assert model.batches == [[1], [2, 3, 4], [5]]
        await batching.close()

    run(story())


@pytest.mark.parametrize(
    ("limit", "batches"), [(None, [[1, 2, 3, 4, 5, 6, 7]]), (4, [[1, 2, 3, 4], [5, 6, 7]])], ids=["no limit", "limit"]
)
def test_a_single_larger_request_goes_whole_or_in_pieces_that_are_put_together(
    run: Callable[..., None], limit: int | None, batches: list[list[int]]
) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, DynamicBatching(batch_size_target=4, batch_size_limit=limit))
        await batching.start()

        answer = await batching.predict(rows(1, 2, 3, 4, 5, 6, 7))

        assert answer == pa.table({"y": [2, 4, 6, 8, 10, 12, 14]})
        assert answer["y"].num_chunks == 1
        assert model.batches == batches
        await batching.close()

    run(story())


def test_no_rows_wait_for_nobody(run: Callable[..., None]) -> None:
    async def story() -> None:
        batching = Batching(Doubler(), HOUR)
        await batching.start()
        assert (await batching.predict(rows())).num_rows == 0
        await batching.close()

    run(story())


@pytest.mark.parametrize("failure", [ModelFailed("Model 'doubler' failed: bad value"), BadInput("a bad value")])
def test_a_caller_whose_rows_fail_fails_nobody_else(run: Callable[..., None], failure: Exception) -> None:
    async def story() -> None:
        model = Doubler(2, failure=failure)
        batching = Batching(model, RULE)
        await batching.start()

        answers = await asyncio.gather(*(asked(batching, x) for x in (1, 2, 3, 4)), return_exceptions=True)

        assert answers[0] == [2]
        assert answers[2:] == [[6], [8]]
        with pytest.raises(type(failure), match="bad value"):
            raise answers[1]  # type: ignore[misc]
        assert model.batches == [[1, 2, 3, 4], [1], [2], [3], [4]]
        await batching.close()

    run(story())


@pytest.mark.parametrize("failure", [Unavailable("being started", "Try again."), RuntimeError("a fault of ours")])
def test_what_is_no_fault_of_the_rows_is_told_to_all_and_not_tried_again(
    run: Callable[..., None], failure: Exception
) -> None:
    async def story() -> None:
        model = Doubler(2, failure=failure)
        batching = Batching(model, RULE)
        await batching.start()

        answers = await asyncio.gather(*(asked(batching, x) for x in (1, 2, 3, 4)), return_exceptions=True)

        assert [(type(a), str(a)) for a in answers] == [(type(failure), str(failure))] * 4
        assert len(model.batches) == 1
        await batching.close()

    run(story())


def test_a_caller_who_leaves_while_it_waits_is_not_run(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, RULE)
        await batching.start()
        gone = asked(batching, 1)
        await asyncio.sleep(0)
        gone.cancel()

        answers = await asyncio.gather(*(asked(batching, x) for x in (2, 3, 4, 5)))

        assert answers == [[4], [6], [8], [10]]
        assert model.batches == [[2, 3, 4, 5]]
        await batching.close()

    run(story())


def test_a_run_goes_on_while_one_of_its_callers_is_there_and_ends_with_the_last(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, RULE)
        callers = [asked(batching, x) for x in (1, 2, 3, 4)]
        await model.begun.wait()
        for gone in callers[:3]:
            gone.cancel()
        await asyncio.wait(callers[:3])
        assert model.cancelled == 0

        callers[3].cancel()
        await asyncio.wait(callers)
        model.go.set()

        assert await asked(batching, 5) == [10]
        assert model.cancelled == 1
        await batching.close()

    run(story())


def test_a_close_leaves_nobody_waiting(run: Callable[..., None]) -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, DynamicBatching(60_000, 2, 2))
        under_way = [asked(batching, x) for x in (1, 2)]
        await model.begun.wait()
        queued = asked(batching, 3)
        await asyncio.sleep(0)

        await batching.close()
        await batching.close()

        told = await asyncio.gather(*under_way, queued, return_exceptions=True)
        assert [type(t) for t in told] == [Unavailable] * 3
        with pytest.raises(Unavailable):
            await batching.predict(rows(1))

    run(story())


class EarlyLoop(asyncio.SelectorEventLoop):
    """Its timers fire before their time, as uvloop's do by up to a millisecond."""

    def call_at(self, when: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        return super().call_at(when - 0.001, callback, *args, **more)


def test_a_timer_that_fires_early_is_taken_at_its_word() -> None:
    async def story() -> None:
        model = Doubler()
        batching = Batching(model, RULE)
        await batching.start()
        looks = 0
        look = batching._look

        def counted(now_s: float) -> None:
            nonlocal looks
            looks += 1
            look(now_s)

        batching._look = counted  # type: ignore[method-assign]
        assert await asked(batching, 1) == [2]
        assert looks <= 3  # as it came, at its time, and when the model was free again
        await batching.close()

    with asyncio.Runner(loop_factory=EarlyLoop) as loop:
        loop.run(story())
