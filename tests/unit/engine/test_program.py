from __future__ import annotations

import asyncio
from typing import Any

import pyarrow as pa
import pytest
from inference_builders import InProcessRunner, deployment_spec, model_spec

from bettong.engine.program import Program
from bettong.errors import BadInput, ModelFailed, Unavailable

A = pa.schema([pa.field("a", pa.int64())])
B = pa.schema([pa.field("b", pa.float32())])
AB = pa.unify_schemas([A, B])

Rows = list[dict[str, Any]]


async def widen(rows: Rows) -> Rows:
    return [{"a": row["a"] + 1, "b": row["a"] / 2} for row in rows]


async def keep_b(rows: Rows) -> Rows:
    assert all(row.keys() == {"b"} for row in rows), "a step sees its own columns only"
    return rows


def two_steps(first: InProcessRunner, second: InProcessRunner) -> Program:
    return Program(deployment_spec(models=(model_spec("pre"), model_spec("main"))), [first, second])


def test_a_steps_outputs_are_the_next_ones_inputs_and_each_step_is_timed() -> None:
    program = two_steps(InProcessRunner(widen, A, AB), InProcessRunner(keep_b, B, B))

    ran = asyncio.run(program.run(pa.table({"a": [4, 6]}, schema=A)))

    assert ran.outputs.to_pylist() == [{"b": 2.0}, {"b": 3.0}]
    assert len(ran.elapsed_ns) == 2
    assert all(ns > 0 for ns in ran.elapsed_ns)
    assert (program.input_schema, program.output_schema) == (A, B)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            pa.schema([pa.field("c", pa.int64())]),
            "model 'main' takes the column 'c', which the step before it does not",
        ),
        (
            pa.schema([pa.field("b", pa.float64())]),
            "takes the column 'b' as double, and the step before it gives float",
        ),
    ],
)
def test_steps_that_do_not_fit_together_are_noticed_before_any_request(inputs: pa.Schema, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        two_steps(InProcessRunner(widen, A, AB), InProcessRunner(keep_b, inputs, B))


def test_a_native_step_takes_the_numbers_of_the_step_before_it_in_its_own_width() -> None:
    seen = []

    async def look(rows: Rows) -> Rows:
        seen.extend(rows)
        return [{"b": 1.0} for _ in rows]

    narrow = pa.schema([pa.field("c", pa.list_(pa.float32(), 2))])
    wide = pa.schema([pa.field("c", pa.list_(pa.field("inner", pa.float64(), nullable=False)))])

    async def give(rows: Rows) -> Rows:
        return [{"c": [float(row["a"])] * (2 if row["a"] else 1)} for row in rows]

    spec = deployment_spec(models=(model_spec("pre"), model_spec("main", framework="onnx")))
    program = Program(spec, [InProcessRunner(give, A, wide), InProcessRunner(look, narrow, B)])

    asyncio.run(program.run(pa.table({"a": [4, 6]}, schema=A)))
    assert seen == [{"c": [4.0, 4.0]}, {"c": [6.0, 6.0]}]
    with pytest.raises(ModelFailed, match="model 'main': Column 'c', row 1: found a list of 1 values, expected exact"):
        asyncio.run(program.run(pa.table({"a": [4, 0]}, schema=A)))


def test_rows_that_a_later_step_cannot_take_are_not_the_callers_mistake() -> None:
    async def refuse(rows: Rows) -> Rows:
        raise BadInput("Column 'b', row 0: too odd.", "Send even ones.")

    first = two_steps(InProcessRunner(refuse, A, AB), InProcessRunner(keep_b, B, B))
    second = two_steps(InProcessRunner(widen, A, AB), InProcessRunner(refuse, B, B))

    with pytest.raises(BadInput, match="too odd"):
        asyncio.run(first.run(pa.table({"a": [4]}, schema=A)))
    with pytest.raises(ModelFailed, match="Step 2 of pipeline 'rental-forecast', model 'main': Column 'b'"):
        asyncio.run(second.run(pa.table({"a": [4]}, schema=A)))


def test_a_pipeline_has_one_runner_per_step_and_at_least_one() -> None:
    for spec in (deployment_spec(models=()), deployment_spec()):
        with pytest.raises(BadInput, match="and 0 runners"):
            Program(spec, [])


@pytest.mark.parametrize("kind", [ModelFailed, Unavailable])
def test_an_error_names_step_and_model(kind: type[ModelFailed] | type[Unavailable]) -> None:
    async def fail(rows: Rows) -> Rows:
        raise kind("ValueError: too cold", "Read the model's log.")

    program = two_steps(InProcessRunner(widen, A, AB), InProcessRunner(fail, B, B))

    with pytest.raises(kind) as failed:
        asyncio.run(program.run(pa.table({"a": [4]}, schema=A)))
    assert str(failed.value) == (
        "Step 2 of pipeline 'rental-forecast', model 'main': ValueError: too cold Read the model's log."
    )


@pytest.mark.parametrize("wrong", ["rows", "schema"])
def test_a_runner_that_breaks_its_promise_is_the_models_failure(wrong: str) -> None:
    class Liar(InProcessRunner):
        async def predict(self, rows: pa.Table) -> pa.Table:
            return pa.table({"a": [1]}, schema=A) if wrong == "rows" else rows.rename_columns(["z"])

    program = Program(deployment_spec(), [Liar(keep_b, A, A)])

    with pytest.raises(ModelFailed, match=r"Step 1 of pipeline 'rental-forecast'.* Return one row per row"):
        asyncio.run(program.run(pa.table({"a": [4, 6]}, schema=A)))


def test_nulls_do_not_pass_from_one_step_to_the_next() -> None:
    async def forget(rows: Rows) -> Rows:
        return [{"a": 1, "b": None} for _ in rows]

    program = two_steps(InProcessRunner(forget, A, AB), InProcessRunner(keep_b, B, B))

    with pytest.raises(ModelFailed, match=r"Step 2 .*'b' has nulls"):
        asyncio.run(program.run(pa.table({"a": [4]}, schema=A)))
