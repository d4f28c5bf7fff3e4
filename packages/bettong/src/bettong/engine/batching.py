"""Requests of several callers gathered into one run of a model.

What goes when is decided by `decide`, from what waits and the time alone. `Batching` is the runner around a runner that
does it: it lets requests wait, cuts the answer into what each caller is owed, and watches who has left.

- While the model is busy nothing goes: what waits would wait inside the runner otherwise, and here it can still grow.
- A batch of several callers that fails is run again caller by caller, so that the rows of one fail nobody else.
- A caller who leaves (its time is up, its client is gone) leaves the batch; a run that nobody waits for is cancelled.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from bettong.engine.runners.base import Queueing, workers_of
from bettong.errors import BadInput, BettongError, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bettong.domain.batching import DynamicBatching
    from bettong.domain.deployments import ObservedWorker
    from bettong.engine.runners.base import Runner

MAX_BATCH_BYTES = 256 * 2**20  # of several callers: a column of 2 GiB could not be joined any more


@dataclass(frozen=True, slots=True)
class Waiting:
    """One caller's request. `since_s` is when it came."""

    rows: int
    size: int
    since_s: float


@dataclass(frozen=True, slots=True)
class Go:
    """The first `callers` of those that wait go now."""

    callers: int


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Nothing goes before this time, unless more comes."""

    at_s: float


def decide(waiting: Iterable[Waiting], now_s: float, rule: DynamicBatching) -> Go | WakeAt | None:
    """What follows for those that wait, the oldest first; None when nobody does.

    They go when there are rows enough or the oldest has waited long enough: as many as the limits on rows and bytes
    allow, at least one. A single request beyond the limit goes alone.
    """
    callers = rows = size = 0
    oldest_s = None
    most = rule.batch_size_limit
    full = False
    for one in waiting:
        oldest_s = one.since_s if oldest_s is None else oldest_s
        if callers and ((most is not None and rows + one.rows > most) or size + one.size > MAX_BATCH_BYTES):
            full = True
            break
        callers, rows, size = callers + 1, rows + one.rows, size + one.size
    if oldest_s is None:
        return None
    goes_at_s = oldest_s + rule.max_batch_delay_ms / 1000
    return Go(callers) if full or rows >= rule.batch_size_target or now_s >= goes_at_s else WakeAt(goes_at_s)


class Batching:
    """Implements `runners.base.Runner` around another one. Lives on one event loop."""

    def __init__(self, runner: Runner, rule: DynamicBatching) -> None:
        self._runner, self._rule = runner, rule
        self.input_schema, self.output_schema = runner.input_schema, runner.output_schema
        self._waiting: dict[_Caller, Waiting] = {}  # in order of arrival
        self._running: set[_Batch] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._at_once = 1  # how many runs the model takes at the same time
        self._closed = False

    async def start(self) -> None:
        await self._runner.start()
        self._at_once = len(self.workers())

    async def predict(self, rows: pa.Table) -> pa.Table:
        if self._closed or rows.num_rows == 0:
            return await self._runner.predict(rows)
        loop = asyncio.get_running_loop()
        caller = _Caller(rows, loop.create_future())
        self._waiting[caller] = Waiting(rows.num_rows, rows.nbytes, loop.time())
        self._look(loop.time())
        try:
            return await caller.answer
        finally:
            self._leave(caller)

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for caller in self._waiting:
            caller.fail(Unavailable("The model was stopped.", "This request did not run; send it again."))
        await self._runner.close()
        if self._running:
            await asyncio.wait([batch.task for batch in self._running])

    @property
    def waiting(self) -> int:
        """Implements `runners.base.Queueing`."""
        return len(self._waiting) + (self._runner.waiting if isinstance(self._runner, Queueing) else 0)

    def observed(self) -> ObservedWorker:
        return self._runner.observed()

    def workers(self) -> Sequence[ObservedWorker]:
        return workers_of(self._runner)

    # --- who goes, and who leaves

    def _look(self, now_s: float) -> None:
        """Let go what may go now, else see to it that somebody looks again in time."""
        while not self._closed and len(self._running) < self._at_once:
            match decide(self._waiting.values(), now_s, self._rule):
                case Go(count):
                    callers = [caller for caller, _ in zip(self._waiting, range(count), strict=False)]
                    for caller in callers:
                        del self._waiting[caller]
                    batch = _Batch(self, callers)
                    self._running.add(batch)
                case WakeAt(at_s):
                    if self._timer is None:
                        self._timer = asyncio.get_running_loop().call_at(at_s, self._wake, at_s)
                    return
                case None:
                    return

    def _wake(self, at_s: float) -> None:
        self._timer = None
        # uvloop's timers may come up to a millisecond early; asked again at once, they would do so again and again
        self._look(max(at_s, asyncio.get_running_loop().time()))

    def _leave(self, caller: _Caller) -> None:
        if caller.batch is None:
            self._waiting.pop(caller, None)
        else:
            caller.batch.left(caller)

    def ended(self, batch: _Batch) -> None:
        """The model is free again."""
        self._running.discard(batch)
        self._look(asyncio.get_running_loop().time())

    # --- a run

    async def run(self, callers: Sequence[_Caller]) -> None:
        """Run these callers' rows and settle each of them."""
        try:
            rows = [caller.rows for caller in callers]
            answer = await self._in_pieces(rows[0] if len(rows) == 1 else pa.concat_tables(rows).combine_chunks())
        except (ModelFailed, BadInput) as failed:
            if len(callers) == 1:
                callers[0].fail(failed)
                return
            for caller in callers:
                if not caller.answer.done():
                    await self.run([caller])
        except Exception as failed:  # whatever it is, the callers hear of it: nobody else awaits this
            for caller in callers:
                caller.fail(type(failed)(*failed.args) if isinstance(failed, BettongError) else failed)
        else:
            at = 0
            for caller in callers:
                caller.settle(answer if len(callers) == 1 else answer.slice(at, caller.rows.num_rows))
                at += caller.rows.num_rows

    async def _in_pieces(self, rows: pa.Table) -> pa.Table:
        """As `predict`, never with more rows at a time than the limit."""
        most = self._rule.batch_size_limit
        if most is None or rows.num_rows <= most:
            return await self._runner.predict(rows)
        parts = [await self._runner.predict(rows.slice(at, most)) for at in range(0, rows.num_rows, most)]
        return pa.concat_tables(parts).combine_chunks()


class _Caller:
    """A request, and the future that its `predict` waits for."""

    def __init__(self, rows: pa.Table, answer: asyncio.Future[pa.Table]) -> None:
        self.rows, self.answer = rows, answer
        self.batch: _Batch | None = None

    def settle(self, answer: pa.Table) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class _Batch:
    """Callers under way together."""

    def __init__(self, batching: Batching, callers: Sequence[_Caller]) -> None:
        self._batching, self._there = batching, set(callers)
        for caller in callers:
            caller.batch = self
        self.task = asyncio.create_task(batching.run(callers))
        self.task.add_done_callback(self._ended)

    def left(self, caller: _Caller) -> None:
        self._there.discard(caller)
        if not self._there:
            self.task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        fault = None if task.cancelled() else task.exception()
        for caller in self._there:  # who is answered already hears nothing of this
            caller.fail(
                fault if isinstance(fault, Exception) else Unavailable("The run was cancelled.", "Send it again.")
            )
        self._batching.ended(self)
