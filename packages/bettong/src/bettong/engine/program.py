"""A pipeline's steps, compiled once: each takes a table and hands a table on."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from bettong.domain.models import is_native
from bettong.domain.steps import ModelRef, ModelStep, parse_steps
from bettong.engine.joints import selected, shown
from bettong.engine.plan import Part
from bettong.engine.planner import plan_of
from bettong.engine.runners.base import Prompt, PromptRow
from bettong.engine.steps import Steps
from bettong.errors import BadInput, BettongError, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pyarrow as pa

    from bettong.domain.deployments import DeploymentSpec, ModelSpec
    from bettong.domain.steps import Step
    from bettong.engine.plan import Plan
    from bettong.engine.runners.base import Runner
    from bettong.engine.step_state import Beside


@dataclass(frozen=True, slots=True)
class Ran:
    """What came out of a program, and the nanoseconds that each step took.

    `beside` has what only steps other than single models give; None when there are none.
    """

    outputs: pa.Table
    elapsed_ns: tuple[int, ...]
    beside: Beside | None = None


class Program:
    """The steps of one pipeline over their runners, which are one per model of `spec`, in its order.

    A chain of single models keeps a form of its own: it may answer at once, without a task.

    Args:
        draw: numbers of [0, 1) for random splits; by default from a generator of this program's own.

    Raises:
        BadInput: there is no step with a model, the runners are not one per model, or a step's outputs do not cover the
            next one's inputs; the text names the column.
    """

    def __init__(
        self, spec: DeploymentSpec, runners: Sequence[Runner], *, draw: Callable[[], float] | None = None
    ) -> None:
        if not runners or len(runners) != len(spec.models):
            raise BadInput(
                f"Pipeline '{spec.name}' has {len(spec.models)} models and {len(runners)} runners.",
                "Deploy at least one model step, and give one runner per model.",
            )
        parts = [
            Part(m.name, m.version, is_native(m.framework), runner.input_schema, runner.output_schema)
            for m, runner in zip(spec.models, runners, strict=True)
        ]
        self._name, self._models = spec.name, spec.models
        steps, parts = _steps_of(spec, parts)
        self.plan: Plan = plan_of(spec.name, steps, parts, waits=spec.shadow_waits)
        chain = self.plan.chain
        self._runners = tuple(runners[model] for model in chain or ())
        self._places = tuple(self._place(at, model) for at, model in enumerate(chain or ()))
        prompt = tuple(runner for runner in self._runners if isinstance(runner, Prompt))
        self._prompt = prompt if chain and len(prompt) == len(self._runners) else ()
        only = self._runners[0] if len(self._runners) == 1 else None
        # asking an object for all that a Protocol has takes microseconds: once
        self._row_runner = only if isinstance(only, PromptRow) else None
        self._steps: Steps | None = None
        if chain is None:
            # made after the fork, so that each replica draws for itself
            chance = draw or random.Random().random
            self._steps = Steps(self.plan, spec.models, runners, self._place, chance, spec.request_timeout_s)

    @property
    def input_schema(self) -> pa.Schema:
        return self.plan.inputs

    @property
    def output_schema(self) -> pa.Schema:
        return self.plan.outputs

    @property
    def last_model(self) -> ModelSpec:
        """The model that gives `out.*`; of several among which a step chooses, the first."""
        return self._models[self.plan.first_model]

    @property
    def prompt(self) -> bool:
        """Whether `run_now` may give something."""
        return bool(self._prompt) or (self._steps is not None and self._steps.prompt)

    @property
    def row_runner(self) -> PromptRow | None:
        """The one runner, if it takes single rows as arrays."""
        return self._row_runner

    async def run(self, rows: pa.Table) -> Ran:
        """Take rows of the input schema through every step.

        Raises:
            BadInput: the first step cannot take these rows.
            ModelFailed: a model raised, or returned other than what its output schema says or the next step takes;
                names step and model.
            Unavailable: a step's worker is not there at the moment; names step and model.
        """
        if self._steps is not None:
            return Ran(*await self._steps.run(rows))
        elapsed = []
        started = time.perf_counter_ns()
        for at, runner in enumerate(self._runners):
            try:
                outputs = await runner.predict(rows if at == 0 else selected(rows, runner.input_schema))
            except BettongError as error:
                self._raise(at, error)
            rows = self._checked(at, outputs, rows.num_rows)
            now = time.perf_counter_ns()
            elapsed.append(now - started)
            started = now
        return Ran(rows, tuple(elapsed))

    def run_now(self, rows: pa.Table) -> Ran | None:
        """What `run` gives and raises, at once; None when some step takes longer than the event loop can wait."""
        if self._steps is not None:
            ran = self._steps.run_now(rows) if self._steps.prompt else None
            return None if ran is None else Ran(*ran)
        elapsed = []
        started = time.perf_counter_ns()
        for at, runner in enumerate(self._prompt):
            try:
                outputs = runner.predict_now(rows if at == 0 else selected(rows, self._runners[at].input_schema))
            except BettongError as error:
                self._raise(at, error)
            if outputs is None:
                if at:
                    self._prompt = ()  # else the steps before it would run twice for every request
                return None
            rows = self._checked(at, outputs, rows.num_rows)
            now = time.perf_counter_ns()
            elapsed.append(now - started)
            started = now
        return Ran(rows, tuple(elapsed)) if elapsed else None

    def _raise(self, at: int, error: BettongError) -> NoReturn:
        """Tell an error of step `at` to the caller."""
        if isinstance(error, BadInput) and at > 0:  # not the caller's rows
            raise ModelFailed(f"{self._places[at]}: {error.problem}", error.next_step) from error
        if isinstance(error, (ModelFailed, Unavailable)):
            raise type(error)(f"{self._places[at]}: {error.problem}", error.next_step) from error
        raise error

    def _checked(self, at: int, outputs: pa.Table, rows: int) -> pa.Table:
        schema = self._runners[at].output_schema
        if outputs.num_rows != rows or outputs.schema != schema:
            raise ModelFailed(
                f"{self._places[at]}: it returned {outputs.num_rows} rows of {shown(outputs.schema)} for {rows}.",
                f"Return one row per row that came in, with {shown(schema)}.",
            )
        return outputs

    def _place(self, at: int, model: int) -> str:
        return f"Step {at + 1} of pipeline '{self._name}', model '{self._models[model].name}'"


def _steps_of(spec: DeploymentSpec, parts: list[Part]) -> tuple[Sequence[Step], list[Part]]:
    """The steps of a deployment file. One without any has a step for each of its models, in order."""
    if spec.steps:
        return parse_steps({"steps": list(spec.steps)}), parts
    parts = [Part(p.name, f"{at}", p.native, p.inputs, p.outputs) for at, p in enumerate(parts)]
    return [ModelStep((ModelRef(part.name, part.version, ""),)) for part in parts], parts
