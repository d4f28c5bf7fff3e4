"""An ONNX model in the replica: what it computes, how its rows are cut, and where its work is done."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_models as models
import onnxruntime
import pyarrow as pa
import pytest
from inference_builders import model_spec
from onnx import TensorProto, helper

from bettong.domain.deployments import State
from bettong.engine.one_row import OneRow
from bettong.engine.runners import onnx as runners
from bettong.engine.runners.onnx import OnnxRunner, graph_of
from bettong.engine.sessions import Sessions, open_session, providers
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.deployments import ModelSpec


def spec(
    folder: Path, data: bytes, inputs: pa.Schema | None = None, outputs: pa.Schema | None = None, **more: Any
) -> ModelSpec:
    """A version of the model, its schemas the graph's own unless given."""
    folder.mkdir(exist_ok=True)
    (folder / "model.onnx").write_bytes(data)
    graph = graph_of(open_session(folder / "model.onnx", 1))
    texts = [
        base64.b64encode(s.serialize()).decode() for s in (inputs or graph.input_schema, outputs or graph.output_schema)
    ]
    return model_spec(
        "house",
        framework="onnx",
        folder=str(folder),
        environment="",
        input_schema=texts[0],
        output_schema=texts[1],
        **more,
    )


@pytest.fixture
def sessions() -> Iterator[Sessions]:
    made = Sessions()
    yield made
    made.close()


def answers(model: ModelSpec, sessions: Sessions, *requests: pa.Table) -> list[pa.Table]:
    async def go() -> list[pa.Table]:
        runner = OnnxRunner(model, sessions)
        await runner.start()
        try:
            return [await runner.predict(rows) for rows in requests]
        finally:
            await runner.close()

    return asyncio.run(go())


def houses(values: np.ndarray[Any, Any]) -> pa.Table:
    return pa.table({"tensor": pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])})


def random(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@contextmanager
def inline_ns(most: float) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runners, "INLINE_NS", most)
        yield


@pytest.mark.parametrize("most_inline_ns", [-1, float("inf")], ids=["in a thread", "on the loop"])
def test_it_answers_what_onnxruntime_does(tmp_path: Path, sessions: Sessions, most_inline_ns: float) -> None:
    values = random(500, 18)
    with inline_ns(most_inline_ns):
        (answer,) = answers(spec(tmp_path, models.mlp()), sessions, houses(values))

    (expected,) = onnxruntime.InferenceSession(models.mlp()).run(None, {"tensor": values})
    assert np.array_equal(np.array(answer["variable"].to_pylist(), np.float32), expected)
    assert str(answer.schema.field("variable")) == "pyarrow.Field<variable: list<inner: float not null> not null>"


def test_images_go_in_nested_and_several_outputs_come_back(tmp_path: Path, sessions: Sessions) -> None:
    images = random(3, 3, 8, 8)
    model = spec(tmp_path, models.conv())
    kind = pa.list_(pa.list_(pa.list_(pa.float32(), 8), 8), 3)
    (answer,) = answers(model, sessions, pa.table({"image": pa.array(images.tolist(), kind)}))

    features, logits = onnxruntime.InferenceSession(models.conv()).run(None, {"image": images})
    assert np.array_equal(np.array(answer["features"].to_pylist(), np.float32), features)
    assert np.array_equal(np.array(answer["logits"].to_pylist(), np.float32), logits)


def test_inputs_of_every_kind_are_told_apart_by_their_order_whatever_they_are_called(
    tmp_path: Path, sessions: Sessions
) -> None:
    kinds: dict[str, pa.DataType] = {
        "amount": pa.float64(),
        "who": pa.string(),
        "pair": pa.list_(pa.int64(), 2),
        "flag": pa.list_(pa.bool_(), 1),
    }
    model = spec(tmp_path, models.several(), pa.schema(list(kinds.items())))
    columns: dict[str, list[Any]] = {
        "amount": [1.0, 3.0],
        "who": ["a", "ö"],
        "pair": [[1, 2], [2**50, 1]],
        "flag": [[True], [False]],
    }
    (answer,) = answers(model, sessions, pa.table({n: pa.array(columns[n], k) for n, k in kinds.items()}))

    assert answer.to_pydict() == {
        "half": [[0.5], [1.5]],
        "same": [["a"], ["ö"]],
        "sums": [[3], [2**50 + 1]],
        "off": [[False], [True]],
    }


def test_other_widths_of_the_config_are_cast_on_both_ways(tmp_path: Path, sessions: Sessions) -> None:
    inputs = pa.schema([pa.field("tensor", pa.list_(pa.float64()))])
    outputs = pa.schema([pa.field("variable", pa.float64())])
    values = random(2, 18)
    rows = pa.table({"tensor": pa.array(values.astype(np.float64).tolist(), pa.list_(pa.float64()))})

    (answer,) = answers(spec(tmp_path, models.mlp(), inputs, outputs), sessions, rows)

    (expected,) = onnxruntime.InferenceSession(models.mlp()).run(None, {"tensor": values})
    assert answer.schema == outputs
    assert answer["variable"].to_pylist() == expected.ravel().tolist()


@pytest.mark.parametrize(("batch", "row_by_row"), [("batch", True), (1, False)])
def test_rows_go_one_by_one_when_the_config_or_the_graph_says_so(
    tmp_path: Path, sessions: Sessions, batch: int | str, row_by_row: bool
) -> None:
    values = random(5, 18)
    model = spec(tmp_path, models.mlp(batch=batch), row_by_row=row_by_row)

    (answer,) = answers(model, sessions, houses(values))

    (expected,) = onnxruntime.InferenceSession(models.mlp()).run(None, {"tensor": values})
    assert np.allclose(np.array(answer["variable"].to_pylist(), np.float32), expected, rtol=1e-5)


def test_a_fixed_number_of_rows_takes_its_multiples_and_refuses_others_by_name(
    tmp_path: Path, sessions: Sessions
) -> None:
    model = spec(tmp_path, models.mlp(batch=4))

    (answer,) = answers(model, sessions, houses(random(8, 18)))
    assert answer.num_rows == 8
    with pytest.raises(BadInput, match="Model 'house' takes 4 rows at a time, and the request has 6"):
        answers(model, sessions, houses(random(6, 18)))


def test_ragged_rows_are_the_callers_to_mend_and_named(tmp_path: Path, sessions: Sessions) -> None:
    rows = pa.table({"x": pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))})

    with pytest.raises(BadInput, match="Column 'x', row 1: found a list of 1 values, the first one has 2"):
        answers(spec(tmp_path, models.identity(TensorProto.FLOAT, ["N", "k"])), sessions, rows)


def test_outputs_that_do_not_have_the_rows_of_the_inputs_are_never_given_out(
    tmp_path: Path, sessions: Sessions
) -> None:
    """This graph says one thing of its output and does another."""
    outputs = pa.schema([pa.field("y", pa.list_(pa.field("inner", pa.float32(), nullable=False)), nullable=False)])
    inputs = pa.schema([pa.field("x", pa.list_(pa.float32(), 2))])
    nodes_sum = models.model(
        [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)],
        [models.tensor("x", TensorProto.FLOAT, ["N", 2])],
        [models.tensor("y", TensorProto.FLOAT, None)],
    )
    rows = pa.table({"x": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2))})

    with pytest.raises(ModelFailed, match=r"its output 'y' has the shape \[1, 1\] for 2 rows"):
        answers(spec(tmp_path, nodes_sum, inputs, outputs), sessions, rows)


def test_a_file_that_does_not_load_is_told_in_onnxruntimes_words_without_its_codes(
    tmp_path: Path, sessions: Sessions
) -> None:
    model = spec(tmp_path, models.mlp())
    (tmp_path / "model.onnx").write_bytes(models.with_operator(models.mlp(), "Frobnicate"))

    with pytest.raises(ModelFailed, match=r"Model 'house' does not load: .*No Op registered for Frobnicate") as failed:
        answers(model, sessions)
    assert "ONNXRuntimeError" not in str(failed.value)


def test_steps_with_the_same_file_share_one_session(tmp_path: Path, sessions: Sessions) -> None:
    one, same = (spec(tmp_path / "a", models.mlp(), sha="1" * 64, uid=uid) for uid in ("a-1", "b-2"))
    other = spec(tmp_path / "b", models.mlp(seed=5), sha="2" * 64)

    async def go() -> list[Any]:
        return await asyncio.gather(*(sessions.of(m) for m in (one, same, other)))

    first, second, third = asyncio.run(go())
    assert first is second
    assert first is not third


def test_short_calls_run_on_the_loop_and_long_ones_beside_it(
    tmp_path: Path, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[threading.Thread] = []
    compute = OnnxRunner._compute

    def noted(self: OnnxRunner, *arguments: Any) -> pa.Table:
        where.append(threading.current_thread())
        return compute(self, *arguments)

    monkeypatch.setattr(OnnxRunner, "_compute", noted)
    model = spec(tmp_path, models.mlp())
    with inline_ns(float("inf")):
        answers(model, sessions, houses(random(1, 18)))
    with inline_ns(0):
        answers(model, sessions, houses(random(1, 18)))

    assert [t is threading.main_thread() for t in where] == [True, False]


def test_a_cancelled_call_stops_computing(tmp_path: Path, sessions: Sessions) -> None:
    """A loop in the graph that would go on for minutes."""
    model = spec(tmp_path, endless())

    async def go() -> None:
        runner = OnnxRunner(model, sessions)
        await runner.start()
        with inline_ns(-1):
            call = asyncio.create_task(runner.predict(pa.table({"x": pa.array([float(2**40)], pa.float32())})))
            await asyncio.sleep(0)  # it runs until it waits for its thread
            (options,) = runner._beside
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert options.terminate
        await asyncio.get_running_loop().run_in_executor(sessions.pool, int)  # there is room in the pool
        await runner.close()

    asyncio.run(go())
    sessions.pool.shutdown(wait=True)  # returns: nothing computes any more


def endless() -> bytes:
    """`x` float [N] → `y` float [N]: counts up to the first value of x, one by one."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "one"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            models.tensor("i", TensorProto.INT64, []),
            models.tensor("go", TensorProto.BOOL, []),
            models.tensor("sum", TensorProto.FLOAT, ["N"]),
        ],
        [models.tensor("go_on", TensorProto.BOOL, []), models.tensor("next", TensorProto.FLOAT, ["N"])],
        [models.weight("one", np.float32(1))],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
        helper.make_node("Sub", ["x", "x"], ["zero"]),
        helper.make_node("Loop", ["count", "yes", "zero"], ["y"], body=body),
    ]
    outputs = [models.tensor("y", TensorProto.FLOAT, ["N"])]
    inputs = [models.tensor("x", TensorProto.FLOAT, ["N"])]
    return models.model(nodes, inputs, outputs, [models.weight("yes", np.array(True))])


def test_it_says_what_executes_it_and_that_nothing_of_its_own_holds_it(tmp_path: Path, sessions: Sessions) -> None:
    async def go() -> None:
        runner = OnnxRunner(spec(tmp_path, models.mlp()), sessions)
        await runner.start()
        seen = runner.observed()
        await runner.close()
        assert (seen.state, seen.provider, seen.native) == (State.RUNNING, "CPUExecutionProvider", True)
        assert "no sandbox of its own" in seen.sandbox

    asyncio.run(go())


def test_the_device_is_taken_when_there_is_one_and_the_processor_always() -> None:
    both = ["TensorrtExecutionProvider", "CPUExecutionProvider", "CUDAExecutionProvider"]

    assert providers(both) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert providers(["AzureExecutionProvider", "CPUExecutionProvider"]) == ["CPUExecutionProvider"]


# --- one row as arrays ----------------------------------------------------------------------------------------------


def leaf(kind: Any) -> np.dtype[Any]:
    found: np.dtype[Any] = np.dtype(getattr(kind, "value_type", kind).to_pandas_dtype())
    return found


def row_of(schema: pa.Schema, row: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """One row as `predict_row` takes it."""
    return [np.array([row[field.name]], leaf(field.type)) for field in schema]


TEN = [0.5 * n for n in range(10)]
ROWS: list[tuple[bytes, dict[str, Any], pa.Schema | None]] = [
    (models.mlp(), {"tensor": [0.25] * 18}, None),
    (models.identity(TensorProto.DOUBLE, ["N", None]), {"x": [1.5, float("nan")]}, None),
    (models.identity(TensorProto.DOUBLE, ["N", None]), {"x": []}, None),
    (models.identity(TensorProto.FLOAT, ["N", 2, 5]), {"x": TEN}, pa.schema([pa.field("x", pa.list_(pa.float32()))])),
    (models.plus(7), {"x": 2**62}, None),
    (models.identity(TensorProto.FLOAT, ["N", 1]), {"x": 0.5}, pa.schema([pa.field("x", pa.float32())])),
]


@pytest.mark.parametrize(("data", "row", "inputs"), ROWS, ids=range(len(ROWS)))
def test_one_row_as_arrays_has_the_answer_of_a_table(
    tmp_path: Path, sessions: Sessions, data: bytes, row: dict[str, Any], inputs: pa.Schema | None
) -> None:
    outputs = pa.schema([pa.field("y", pa.list_(pa.float32()))]) if inputs is not None else None
    model = spec(tmp_path, data, inputs, outputs)

    async def go() -> tuple[Any, pa.Table]:
        runner = OnnxRunner(model, sessions)
        await runner.start()
        way = OneRow.of(runner.input_schema, runner.output_schema)
        short = runner.predict_row(row_of(runner.input_schema, row))
        assert way is not None
        assert short is not None
        assert way.takes(short)
        table = await runner.predict(pa.Table.from_pylist([row], schema=runner.input_schema))
        await runner.close()
        assert runner.predict_row(row_of(runner.input_schema, row)) is None, "it was stopped"
        return short, table

    with inline_ns(float("inf")):
        short, table = asyncio.run(go())

    assert repr([array.tolist() for array in short]) == repr([column.to_pylist() for column in table.columns])


@pytest.mark.parametrize(
    ("data", "row", "most_inline_ns", "inputs"),
    [
        (models.mlp(), {"tensor": [0.25] * 18}, -1, None),
        (models.mlp(batch=2), {"tensor": [0.25] * 18}, float("inf"), None),
        (models.mlp(), {"tensor": [0.25] * 17}, float("inf"), pa.schema([pa.field("tensor", pa.list_(pa.float32()))])),
        (models.mlp(), {"tensor": [0.25] * 18}, float("inf"), pa.schema([pa.field("tensor", pa.list_(pa.float64()))])),
        (models.identity(TensorProto.FLOAT, ["N", None, 2]), {"x": [1, 2]}, float("inf"),
         pa.schema([pa.field("x", pa.list_(pa.float32()))])),
    ],
    ids=["it takes long", "two rows at a time", "another length", "another width", "an open shape"],
)  # fmt: skip
def test_what_is_not_plain_is_not_taken_as_arrays(
    tmp_path: Path, sessions: Sessions, data: bytes, row: dict[str, Any], most_inline_ns: float, inputs: Any
) -> None:
    model = spec(tmp_path, data, inputs)

    async def go() -> Any:
        runner = OnnxRunner(model, sessions)
        await runner.start()
        return runner.predict_row(row_of(runner.input_schema, row))

    with inline_ns(most_inline_ns):
        assert asyncio.run(go()) is None


class Clocks:
    """In place of `time`: each look at the wall's clock is a step after the last, and CPU time comes in ticks of 10 ms,
    one of which falls into every call."""

    def __init__(self, wall_step_ns: int) -> None:
        self._wall, self._cpu = itertools.count(0, wall_step_ns), itertools.count(0, 10_000_000)

    def perf_counter_ns(self) -> int:
        return next(self._wall)

    def thread_time_ns(self) -> int:
        return next(self._cpu)


@pytest.mark.parametrize("as_table", [True, False], ids=["a table", "arrays"])
def test_a_tick_of_the_clock_does_not_make_a_quick_model_a_slow_one(
    tmp_path: Path, sessions: Sessions, monkeypatch: pytest.MonkeyPatch, as_table: bool
) -> None:
    monkeypatch.setattr(runners, "time", Clocks(wall_step_ns=5_000))
    monkeypatch.setattr(runners, "DOUBTED_NS", -1)  # rows are measured in CPU time, too

    async def go() -> list[object]:
        runner = OnnxRunner(spec(tmp_path / "m", models.mlp()), sessions)
        await runner.start()
        row = random(1, 18)
        return [runner.predict_now(houses(row)) if as_table else runner.predict_row([row]) for _ in range(30)]

    assert None not in asyncio.run(go())


def test_a_row_that_waited_long_is_measured_in_cpu_time_before_it_counts(
    tmp_path: Path, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> list[object]:
        runner = OnnxRunner(spec(tmp_path / "m", models.mlp()), sessions)
        await runner.start()
        monkeypatch.setattr(runners, "time", Clocks(wall_step_ns=50_000_000))  # the processor is others'
        runner._clock = lambda: 7_000  # and this row takes none of it
        return [runner.predict_row([random(1, 18)]) for _ in range(30)]

    assert None not in asyncio.run(go())


# --- rows through bound memory --------------------------------------------------------------------------------------


def run_rows(model: ModelSpec, sessions: Sessions, *rows: dict[str, Any]) -> tuple[list[Any], list[bool]]:
    """What `predict_row` gives for each row, or raises, and whether the runner had a binding before and after each."""

    async def go() -> tuple[list[Any], list[bool]]:
        runner = OnnxRunner(model, sessions)
        await runner.start()
        got: list[Any] = []
        bound = [runner._bound is not None]
        for row in rows:
            try:
                got.append(runner.predict_row(row_of(runner.input_schema, row)))
            except ModelFailed as failed:
                got.append(failed)
            bound.append(runner._bound is not None)
        await runner.close()
        assert runner._bound is None
        return got, bound

    with inline_ns(float("inf")):
        return asyncio.run(go())


def test_columns_of_numbers_and_lists_go_through_bound_memory_in_the_order_of_the_graph(
    tmp_path: Path, sessions: Sessions
) -> None:
    kinds = {"amount": pa.float64(), "pair": pa.list_(pa.int32(), 2), "flag": pa.bool_(), "image": pa.list_(pa.uint8())}
    rows = [
        {"amount": n + 0.5, "pair": [n, 2], "flag": n % 2 == 1, "image": [n, 1, 2, 3]} for n in range(3)
    ]  # the model's image is of 2 × 2
    model = spec(tmp_path, models.mixed(), pa.schema(list(kinds.items())))

    got, bound = run_rows(model, sessions, *rows)

    assert bound == [True] * 4
    with inline_ns(float("inf")):
        tables = answers(
            model, sessions, *(pa.Table.from_pylist([row], pa.schema(list(kinds.items()))) for row in rows)
        )
    for short, table in zip(got, tables, strict=True):
        assert [values.ravel().tolist() for values in short] == [
            np.array(column.to_pylist()).ravel().tolist() for column in table.columns
        ]


@pytest.mark.parametrize(
    ("data", "row"),
    [
        (models.identity(TensorProto.DOUBLE, ["N", None]), {"x": [1.5, 2.0]}),
        (models.identity(TensorProto.FLOAT, ["N", 2**14]), {"x": [1.0] * 2**14}),
    ],
    ids=["any length", "a large row"],
)
def test_rows_of_open_shapes_and_large_ones_are_answered_without(
    tmp_path: Path, sessions: Sessions, data: bytes, row: dict[str, Any]
) -> None:
    ((values,),), bound = run_rows(spec(tmp_path, data), sessions, row)

    assert values.tolist() == [row["x"]]
    assert bound == [False, False]


def test_rows_of_any_length_are_each_taken_whole(tmp_path: Path, sessions: Sessions) -> None:
    x, y = models.tensor("x", TensorProto.FLOAT, ["N", "k"]), models.tensor("y", TensorProto.FLOAT, ["N", 1])
    nodes = [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=1)]
    model = spec(tmp_path, models.model(nodes, [x], [y], [models.weight("axes", np.array([1]))]))

    got, bound = run_rows(model, sessions, {"x": [2.0]}, {"x": [1.0] * runners.FREE_SIZE}, {"x": [1.0, 2.0]})

    assert [values.tolist() for (values,) in got] == [[[2.0]], [[float(runners.FREE_SIZE)]], [[3.0]]]
    assert not any(bound)


def test_outputs_whose_length_is_found_in_the_values_have_it(tmp_path: Path, sessions: Sessions) -> None:
    x, y = models.tensor("x", TensorProto.FLOAT, [1, 3]), models.tensor("y", TensorProto.FLOAT, [1, "k"])
    nodes = [
        helper.make_node("Greater", ["x", "least"], ["up"]),
        helper.make_node("Reshape", ["up", "flat"], ["which"]),
        helper.make_node("Compress", ["x", "which"], ["y"], axis=1),
    ]
    weights = [models.weight("least", np.float32(-0.5)), models.weight("flat", np.array([-1]))]
    model = spec(tmp_path, models.model(nodes, [x], [y], weights))

    got, bound = run_rows(model, sessions, {"x": [1, -1, 2]}, {"x": [-1, 3, -1]})

    assert [values.tolist() for (values,) in got] == [[[1.0, 2.0]], [[3.0]]]
    assert not any(bound)


def test_a_row_that_fails_is_told_in_the_same_words_and_the_next_one_is_answered(
    tmp_path: Path, sessions: Sessions
) -> None:
    model = spec(tmp_path, models.of_items(3))

    (first, failed, last), bound = run_rows(model, sessions, {"x": 1}, {"x": 7}, {"x": 2})

    assert ([first[0].tolist(), last[0].tolist()], bound) == ([[[10]], [[20]]], [True] * 4)
    with pytest.raises(ModelFailed) as general:
        answers(model, sessions, pa.table({"x": pa.array([7], pa.int64())}))
    assert str(failed) == str(general.value)
    assert "indices element out of data bounds, idx=7" in str(failed)


def test_a_graph_that_denies_the_shape_of_an_output_loses_its_binding_and_not_its_answer(
    tmp_path: Path, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "bettong.engine")
    model = spec(tmp_path, models.branching("Concat"))

    got, bound = run_rows(model, sessions, {"x": [-1, -2]}, {"x": [1, 2]}, {"x": [-3, -4]})

    assert [values.tolist() for (values,) in got] == [[[-1.0, -2.0]], [[1.0, 2.0, 1.0, 2.0]], [[-3.0, -4.0]]]
    assert bound == [True, True, False, False]
    assert "row_not_bound model=" in caplog.text


def test_a_model_that_answers_by_chance_is_not_bound_and_says_why(
    tmp_path: Path, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "bettong.engine")

    (first, second), bound = run_rows(spec(tmp_path, models.noise()), sessions, {"x": [0, 0]}, {"x": [0, 0]})

    assert first[0].tolist() != second[0].tolist()
    assert not any(bound)
    assert "error=its output 'y' does not come again" in caplog.text
