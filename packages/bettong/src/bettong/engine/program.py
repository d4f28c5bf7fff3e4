"""A pipeline's steps, compiled once: each takes a table and hands a table on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa

from bettong.domain.models import is_native
from bettong.engine.faults import Fault
from bettong.engine.joints import fits, handed_on
from bettong.engine.runners.base import Prompt, PromptRow
from bettong.errors import BadInput, BettongError, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.deployments import DeploymentSpec
    from bettong.engine.arrow_types import Array
    from bettong.engine.runners.base import Runner


@dataclass(frozen=True, slots=True)
class Ran:
    """What came out of a program, and the nanoseconds that each step took."""

    outputs: pa.Table
    elapsed_ns: tuple[int, ...]


class Program:
    """The steps of one pipeline over their runners, `runners` in step order and one per model of `spec`.

    Raises:
        BadInput: there is no step, the runners are not one per model, or a step's outputs do not cover the next one's
            inputs; the text names the column.
    """

    def __init__(self, spec: DeploymentSpec, runners: Sequence[Runner]) -> None:
        if not runners or len(runners) != len(spec.models):
            raise BadInput(
                f"Pipeline '{spec.name}' has {len(spec.models)} models and {len(runners)} runners.",
                "Deploy at least one model step, and give one runner per step.",
            )
        self._runners = tuple(runners)
        prompt = tuple(runner for runner in runners if isinstance(runner, Prompt))
        self._prompt = prompt if len(prompt) == len(runners) else ()
        only = runners[0]  # asking an object for all that a Protocol has takes microseconds: once
        self._row_runner = only if len(runners) == 1 and isinstance(only, PromptRow) else None
        self._places = tuple(
            f"Step {at} of pipeline '{spec.name}', model '{model.name}'" for at, model in enumerate(spec.models, 1)
        )
        for at in range(1, len(runners)):
            outputs, inputs = runners[at - 1].output_schema, runners[at].input_schema
            _check_joint(outputs, inputs, self._places[at - 1 : at + 1], native=is_native(spec.models[at].framework))

    @property
    def input_schema(self) -> pa.Schema:
        return self._runners[0].input_schema

    @property
    def output_schema(self) -> pa.Schema:
        return self._runners[-1].output_schema

    @property
    def prompt(self) -> bool:
        """Whether `run_now` may give something."""
        return bool(self._prompt)

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
        elapsed = []
        started = time.perf_counter_ns()
        for at, runner in enumerate(self._runners):
            try:
                outputs = await runner.predict(rows if at == 0 else _select(rows, runner.input_schema))
            except BettongError as error:
                self._raise(at, error)
            rows = self._checked(at, outputs, rows.num_rows)
            now = time.perf_counter_ns()
            elapsed.append(now - started)
            started = now
        return Ran(rows, tuple(elapsed))

    def run_now(self, rows: pa.Table) -> Ran | None:
        """What `run` gives and raises, at once; None when some step takes longer than the event loop can wait."""
        elapsed = []
        started = time.perf_counter_ns()
        for at, runner in enumerate(self._prompt):
            try:
                outputs = runner.predict_now(rows if at == 0 else _select(rows, self._runners[at].input_schema))
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
                f"{self._places[at]}: it returned {outputs.num_rows} rows of {_shown(outputs.schema)} for {rows}.",
                f"Return one row per row that came in, with {_shown(schema)}.",
            )
        return outputs


def _check_joint(outputs: pa.Schema, inputs: pa.Schema, places: Sequence[str], *, native: bool) -> None:
    given = {field.name: field.type for field in outputs}
    for field in inputs:
        if field.name not in given:
            raise BadInput(
                f"{places[1]} takes the column '{field.name}', which the step before it does not give.",
                f"{places[0]} gives: {_shown(outputs)}.",
            )
        if not fits(given[field.name], field.type, native=native):
            raise BadInput(
                f"{places[1]} takes the column '{field.name}' as {field.type}, "
                f"and the step before it gives {given[field.name]}.",
                "Make the two schemas agree.",
            )


def _select(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns that the next step takes. Types fit; nulls are refused here as they are from callers."""
    columns: list[pa.ChunkedArray[Any] | Array] = []
    for field in schema:
        column = rows.column(field.name)
        if column.null_count:
            raise ModelFailed(
                f"The column '{field.name}' has nulls on its way to the next step.",
                "Return a value in every row, or add a step that fills them.",
            )
        if column.type == field.type:
            columns.append(column)
            continue
        try:
            columns.append(
                handed_on(column.chunk(0) if column.num_chunks == 1 else column.combine_chunks(), field.type)
            )
        except Fault as fault:
            raise ModelFailed(f"{fault.as_bad_input(field.name).problem}", fault.next_step) from None
    return pa.Table.from_arrays(columns, schema=schema)


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
