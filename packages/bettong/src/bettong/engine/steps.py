"""Steps that are more than a chain of models: several models at once, splits, validations.

A request goes through a plan stage by stage. What it has so far are tables by slot. Models of one stage run at the
same time. A challenger that fails leaves nulls and a word for the failures log; all else that fails, fails the request.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.engine.joints import shown, whole
from bettong.engine.plan import REQUEST, Infer, Mark, Mean, Pick, Reshape, Route, Rowwise
from bettong.engine.routing import point_of, route_of, split_text
from bettong.engine.runners.base import Prompt
from bettong.engine.step_state import Beside, Failure, Later, State
from bettong.engine.step_tables import fed, in_schema, mean_of, reshaped
from bettong.errors import BadInput, BettongError, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bettong.domain.deployments import ModelSpec
    from bettong.engine.arrow_types import Array
    from bettong.engine.plan import Plan, Stage
    from bettong.engine.runners.base import Runner

    NDArray = np.ndarray[Any, np.dtype[Any]]

MANY_ROWS = 10_000  # for more, steps without models compute in a thread, so that the loop keeps answering others
PATIENCE = 0.8  # of a request's time limit: a challenger that takes longer is one that failed

log = logging.getLogger("bettong.engine")


class Steps:
    """Runs a plan.

    Args:
        models: in the order of the plan's parts, like `runners`.
        places: how errors name a model at a step: (step, model) → text.
        draw: a number of [0, 1) for splits by chance.
        limit_s: a request's time limit.

    `prompt` says whether `run_now` may give something.
    """

    def __init__(
        self,
        plan: Plan,
        models: Sequence[ModelSpec],
        runners: Sequence[Runner],
        places: Callable[[int, int], str],
        draw: Callable[[], float],
        limit_s: float,
    ) -> None:
        self._plan, self._models, self._runners = plan, tuple(models), tuple(runners)
        self._places, self._draw, self._patience_s = places, draw, limit_s * PATIENCE
        self._may_fail = frozenset(other.slot for other in plan.others if other.challenger)
        self._told = tuple(split_text(model) for model in models)
        self._prompts = tuple(runner for runner in runners if isinstance(runner, Prompt))
        self.prompt = len(self._prompts) == len(runners) and not any(isinstance(s, Rowwise) for s in plan.stages)

    async def run(self, rows: pa.Table) -> tuple[pa.Table, tuple[int, ...], Beside]:
        """The rows of `out.*`, nanoseconds per step, and what is beside them. Raises as `Program.run`."""
        state = self._begin(rows)
        for at, stage in enumerate(self._plan.stages):
            match stage:
                case Infer():
                    await self._infer(at, stage, state)
                case Route():
                    await self._route(at, stage, state)
                case Rowwise():
                    await self._rowwise(at, stage, state)
                case _ if rows.num_rows > MANY_ROWS:
                    await asyncio.to_thread(self._compute, at, stage, state)
                case _:
                    self._compute(at, stage, state)
            state.tick()
        return self._end(state)

    def run_now(self, rows: pa.Table) -> tuple[pa.Table, tuple[int, ...], Beside] | None:
        """What `run` gives and raises, at once; None when a model takes longer than the event loop can wait."""
        state = self._begin(rows)
        for at, stage in enumerate(self._plan.stages):
            if not self._take_now(at, stage, state):
                if any(state.models_ns):
                    self.prompt = False  # else models would run twice for every request
                return None
            state.tick()
        return self._end(state)

    def _begin(self, rows: pa.Table) -> State:
        return State(rows, time.monotonic() + self._patience_s, [0] * len(self._models))

    def _end(self, state: State) -> tuple[pa.Table, tuple[int, ...], Beside]:
        final = state.tables[self._plan.final]
        assert final is not None  # only what nobody needs may fail
        return final, tuple(state.elapsed_ns), self._beside(state)

    def _take_now(self, at: int, stage: Stage, state: State) -> bool:
        """Whether the stage was done at once."""
        match stage:
            case Infer():
                return self._infer_now(at, stage, state)
            case Route():
                model = self._decided(stage, state)
                given = self._call_now(at, model, stage.takes, state)
                if given is not None:
                    state.tables[stage.gives] = in_schema(given, stage.schema, self._places(at, model))
                return given is not None
            case Rowwise():
                return False
        self._compute(at, stage, state)
        return True

    def _compute(self, at: int, stage: Stage, state: State) -> None:
        """A stage without models."""
        match stage:
            case Mark():
                self._mark(stage, state)
            case Pick(takes, gives, schema):
                state.tables[gives] = state.of(takes).select(schema.names)
            case Reshape(takes, gives, schema):
                state.tables[gives] = reshaped(state.of(takes), schema)
            case Mean(takes, gives, schema):
                state.tables[gives] = self._mean(at, [state.of(slot) for slot in takes], schema)

    # --- models -------------------------------------------------------------------------------------------------------

    async def _infer(self, at: int, stage: Infer, state: State) -> None:
        now, rows = self._to_run(at, stage, state), state.of(stage.takes)
        if len(now) == 1:
            ((model, slot),) = now
            state.tables[slot] = await self._call(at, model, rows, stage.takes, state)
            return
        calls = {slot: asyncio.create_task(self._call(at, model, rows, stage.takes, state)) for model, slot in now}
        try:
            await asyncio.gather(*(call for slot, call in calls.items() if slot not in self._may_fail))
            challengers = [call for slot, call in calls.items() if slot in self._may_fail]
            if challengers:
                await asyncio.wait(challengers, timeout=max(0.0, state.patient_until - time.monotonic()))
            for model, slot in now:
                state.tables[slot] = self._given(model, calls[slot], state.failures)
        finally:
            await _ended(calls.values())

    def _infer_now(self, at: int, stage: Infer, state: State) -> bool:
        for model, slot in self._to_run(at, stage, state):
            try:
                given = self._call_now(at, model, stage.takes, state)
            except Exception as error:
                if slot not in self._may_fail:
                    raise
                state.tables[slot] = None
                state.failures.append(self._failure(model, error))
                continue
            if given is None:
                return False
            state.tables[slot] = given
        return True

    def _to_run(self, at: int, stage: Infer, state: State) -> list[tuple[int, int]]:
        """The models of a stage whose results the answer waits for, and their slots; the others are put aside."""
        pairs = list(zip(stage.models, stage.gives, strict=True))
        if not self._plan.aside:
            return pairs
        now = [pair for pair in pairs if pair[1] not in self._plan.aside]
        if len(now) < len(pairs):
            state.aside.append((at, stage, state.of(stage.takes)))
        return now

    def _given(self, model: int, call: asyncio.Task[pa.Table], failures: list[Failure]) -> pa.Table | None:
        """What a call gave, None when it failed: which only one of a challenger can have by now."""
        if not call.done():
            failures.append(Failure(self._models[model], f"It did not answer within {self._patience_s:g} s."))
            return None
        if (error := call.exception()) is None:
            return call.result()
        failures.append(self._failure(model, error))
        return None

    def _failure(self, model: int, error: BaseException) -> Failure:
        if isinstance(error, BettongError):
            return Failure(self._models[model], str(error))
        log.error("a challenger failed inside the engine model=%s", self._models[model].uid, exc_info=error)
        return Failure(self._models[model], f"{type(error).__name__} inside the engine")

    async def _call(self, at: int, model: int, rows: pa.Table, slot: int, state: State) -> pa.Table:
        """A model's answer for the rows of a slot, which errors of it name."""
        runner, began = self._runners[model], time.perf_counter_ns()
        try:
            given = await runner.predict(fed(rows, runner.input_schema, slot))
        except BettongError as error:
            raise self._named(at, model, error, slot == REQUEST) from error
        finally:
            state.models_ns[model] += time.perf_counter_ns() - began
        return self._checked(at, model, given, rows)

    def _call_now(self, at: int, model: int, slot: int, state: State) -> pa.Table | None:
        """The same at once, None when the model cannot."""
        rows, began = state.of(slot), time.perf_counter_ns()
        try:
            given = self._prompts[model].predict_now(fed(rows, self._runners[model].input_schema, slot))
        except BettongError as error:
            raise self._named(at, model, error, slot == REQUEST) from error
        if given is None:
            return None
        state.models_ns[model] += time.perf_counter_ns() - began
        return self._checked(at, model, given, rows)

    def _checked(self, at: int, model: int, given: pa.Table, rows: pa.Table) -> pa.Table:
        runner = self._runners[model]
        if given.num_rows != rows.num_rows or given.schema != runner.output_schema:
            raise ModelFailed(
                f"{self._places(at, model)}: it returned {given.num_rows} rows of {shown(given.schema)} "
                f"for {rows.num_rows}.",
                f"Return one row per row that came in, with {shown(runner.output_schema)}.",
            )
        return given

    def _named(self, at: int, model: int, error: BettongError, from_request: bool) -> BettongError:
        place = self._places(at, model)
        if isinstance(error, BadInput) and not from_request:  # not the caller's rows
            return ModelFailed(f"{place}: {error.problem}", error.next_step)
        if isinstance(error, (ModelFailed, Unavailable)):
            return type(error)(f"{place}: {error.problem}", error.next_step)
        return error

    async def _route(self, at: int, stage: Route, state: State) -> None:
        model = self._decided(stage, state)
        given = await self._call(at, model, state.of(stage.takes), stage.takes, state)
        state.tables[stage.gives] = in_schema(given, stage.schema, self._places(at, model))

    def _decided(self, stage: Route, state: State) -> int:
        """The model that takes the request, which the answer will say."""
        model = stage.models[self._chosen(stage, state)]
        state.models[stage.gives] = model
        state.splits.append(self._told[model])
        return model

    def _chosen(self, stage: Route, state: State) -> int:
        value: object = None
        found = False
        if stage.key is not None and stage.key.column in (rows := state.of(stage.key.slot)).schema.names:
            value, found = rows.column(stage.key.column)[0].as_py(), True
        if stage.weights is None:
            return route_of(value, stage.routes, 0) if found else 0
        return stage.weights.choose(point_of(value) if found and value is not None else self._draw())

    async def _rowwise(self, at: int, stage: Rowwise, state: State) -> None:
        rows = state.of(stage.takes)
        if beyond := [row for row in range(rows.num_rows) if row not in stage.rows]:
            raise BadInput(
                f"{self._places(at, next(iter(stage.rows.values())))}: row {beyond[0]} of the request has no model.",
                f"Its rows with models are: {', '.join(map(str, sorted(stage.rows)))}.",
            )
        by_model: dict[int, list[int]] = {}
        for row in range(rows.num_rows):
            by_model.setdefault(stage.rows[row], []).append(row)
        calls = [
            asyncio.create_task(self._call(at, model, rows.take(places), stage.takes, state))
            for model, places in by_model.items()
        ]
        try:
            given = await asyncio.gather(*calls)
        finally:
            await _ended(calls)
        parts = [
            in_schema(table, stage.schema, self._places(at, model))
            for table, model in zip(given, by_model, strict=True)
        ]
        order = np.argsort([row for places in by_model.values() for row in places])
        state.tables[stage.gives] = pa.concat_tables(parts).take(order).combine_chunks()

    # --- computing ----------------------------------------------------------------------------------------------------

    def _mark(self, stage: Mark, state: State) -> None:
        columns: dict[str, Array] = {}
        rows = state.request.num_rows
        schemas = {other.slot: other.schema for other in self._plan.others}
        for name, (slot, column) in stage.places.items():
            table = state.request if slot == REQUEST else state.tables[slot]
            if table is None:  # a challenger that failed: its values are not known
                columns[name] = pa.nulls(rows, schemas[slot].field(column).type)
            else:
                columns[name] = whole(table.column(column))
        state.marks.extend(zip(stage.names, stage.checks.marks(columns, rows), strict=True))

    def _mean(self, at: int, tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
        columns = []
        for field in schema:
            try:
                columns.append(mean_of([whole(table.column(field.name)) for table in tables], field.type))
            except ValueError:
                raise ModelFailed(
                    f"Step {at + 1}: the models gave nulls, or lists of different lengths, in the column "
                    f"'{field.name}'.",
                    "Average models that give a value everywhere, and lists of one length.",
                ) from None
        return pa.Table.from_arrays(columns, schema=schema)

    # --- what is beside -----------------------------------------------------------------------------------------------

    def _beside(self, state: State) -> Beside:
        plan = self._plan
        by_name = dict(state.marks)  # the same name twice: the column shows the last one, the count both
        anomalies: NDArray | None = None
        if state.marks:
            anomalies = np.zeros(state.request.num_rows, np.uint32)
            for _, mark in state.marks:
                anomalies += mark
        model = state.models[plan.origin] if plan.model is None else plan.model
        return Beside(
            self._models[model],
            tuple(state.splits),
            tuple(by_name[name] for name in plan.validations),
            anomalies,
            tuple(state.tables.get(other.slot) for other in plan.others),
            tuple(state.failures),
            tuple(state.models_ns),
            (lambda: self._run_aside(state)) if state.aside else None,
        )

    async def _run_aside(self, state: State) -> Later:
        """The challengers of an answer that is out."""
        failures: list[Failure] = []
        tables: dict[int, pa.Table | None] = {}
        calls = {
            slot: (model, asyncio.create_task(self._call(at, model, rows, stage.takes, state)))
            for at, stage, rows in state.aside
            for model, slot in zip(stage.models, stage.gives, strict=True)
            if slot in self._plan.aside
        }
        try:
            await asyncio.wait([call for _, call in calls.values()], timeout=self._patience_s)
            for slot, (model, call) in calls.items():
                tables[slot] = self._given(model, call, failures)
        finally:
            await _ended([call for _, call in calls.values()])
        return Later(tuple(tables[other.slot] for other in self._plan.late), tuple(failures))


async def _ended(calls: Any) -> None:
    """Cancel what still runs, and wait until it is over."""
    running = [call for call in calls if not call.done()]
    for call in running:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
