"""What becomes of challengers: those that failed are told of in the failures log, late ones have a log of their own.

A challenger for which answers do not wait starts once the answer is out and its row is in the log. What it gives is
then written to the pipeline's challengers topic, under the time and the request id of that row. A replica that is
killed in between has lost it: the promise that nothing answered is missing is one of the inference log.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from bettong.engine.answer import challengers_batch, failed_batch, last_model_text
from bettong.engine.step_state import Failure
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from bettong.domain.deployments import ModelSpec
    from bettong.domain.ports import LogWriter
    from bettong.engine.answer import Answer, Origin
    from bettong.engine.plan import Plan

log = logging.getLogger("bettong.engine")


class Challengers:
    """Those of one replica.

    Args:
        late_log: takes what late ones gave; None: that is not kept.
        origin: of the replica's answers.
        models: in the order of the plan's parts.
        most: how many requests may have late challengers running; those of any more do not run, and are told of so.
    """

    def __init__(self, late_log: LogWriter | None, origin: Origin, models: Sequence[ModelSpec], most: int) -> None:
        self._late_log, self._origin, self._models, self._most = late_log, origin, models, most
        self._running: set[asyncio.Task[None]] = set()

    async def done(self) -> None:
        """Return once none runs any more."""
        while self._running:
            await asyncio.wait(self._running)

    def start(self, answer: Answer, inputs: pa.Table, plan: Plan, failures: LogWriter) -> None:
        """Run the late challengers of an answer that is out."""
        if len(self._running) >= self._most:
            reason = f"It did not run: {self._most} requests wait for their challengers (max_queued_requests)."
            missed = [Failure(self._models[other.model], reason) for other in plan.late]
            self.tell(missed, answer, inputs, failures)
            return
        task = asyncio.create_task(self._run(answer, inputs, plan, failures))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def tell(self, failed: Sequence[Failure], answer: Answer, inputs: pa.Table, failures: LogWriter) -> None:
        """Write failed challengers to the failures log. The answer stands, whatever becomes of that."""
        for failure in failed:
            origin = replace(self._origin, last_model=last_model_text(failure.model))
            text = f"Challenger '{failure.model.name}' failed: {failure.reason}"
            text = text.encode("utf-8", "replace").decode()
            elapsed = answer.elapsed_ns
            try:
                failures.append(
                    failed_batch(answer.time_ms, inputs, text, elapsed, answer.request_id, origin), failed=True
                )
            except Exception as lost:
                _not_kept("failure", answer, lost)

    async def _run(self, answer: Answer, inputs: pa.Table, plan: Plan, failures: LogWriter) -> None:
        assert answer.beside is not None
        assert answer.beside.later is not None
        try:
            later = await answer.beside.later()
        except Exception as lost:
            _not_kept("result", answer, lost)
            return
        self.tell(later.failures, answer, inputs, failures)
        if self._late_log is None or all(table is None for table in later.others):
            return
        others = list(zip(plan.late, later.others, strict=True))
        try:
            self._late_log.append(
                challengers_batch(answer.time_ms, inputs, others, answer.elapsed_ns, answer.request_id, self._origin)
            )
        except Exception as lost:
            _not_kept("result", answer, lost)


def _not_kept(what: str, answer: Answer, lost: Exception) -> None:
    log.warning(
        "%s of a challenger is not in the log request_id=%s cause=%s",
        what,
        answer.request_id,
        type(lost).__name__,
        exc_info=None if isinstance(lost, BettongError) else lost,
    )
