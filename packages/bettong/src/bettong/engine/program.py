"""A pipeline's steps, compiled once: each takes a table and hands a table on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.models import is_native
from bettong.engine.faults import Fault
from bettong.engine.joints import fits, handed_on
from bettong.errors import BadInput, ModelFailed, Unavailable

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
        for at, (runner, place) in enumerate(zip(self._runners, self._places, strict=True)):
            try:
                outputs = await runner.predict(rows if at == 0 else _select(rows, runner.input_schema))
            except (ModelFailed, Unavailable) as error:
                raise type(error)(f"{place}: {error.problem}", error.next_step) from error
            except BadInput as error:
                if at == 0:
                    raise
                raise ModelFailed(f"{place}: {error.problem}", error.next_step) from error  # not the caller's rows
            if outputs.num_rows != rows.num_rows or outputs.schema != runner.output_schema:
                raise ModelFailed(
                    f"{place}: it returned {outputs.num_rows} rows of {_shown(outputs.schema)} for {rows.num_rows}.",
                    f"Return one row per row that came in, with {_shown(runner.output_schema)}.",
                )
            rows = outputs
            now = time.perf_counter_ns()
            elapsed.append(now - started)
            started = now
        return Ran(rows, tuple(elapsed))


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
