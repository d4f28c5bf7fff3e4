"""What every Runner promises (`engine.runners.base`), on both event loops."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx_models
import pyarrow as pa
import pytest
import uvloop
from worker_builders import artifact, environment_of_this_python, model_spec, runner_of, table

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import State
from bettong.engine.batching import Batching
from bettong.engine.runners.onnx import OnnxRunner
from bettong.engine.sessions import Sessions
from bettong.errors import BadInput, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator
    from pathlib import Path

    from bettong.engine.runners.base import Runner

INPUT: dict[str, pa.DataType] = {"numbers": pa.list_(pa.int32()), "name": pa.string()}
OUTPUT: dict[str, pa.DataType] = {"total": pa.int64(), "name": pa.string()}
TOTALS = """
    import numpy
    from mac.types import InferenceData

    def process_data(input_data: InferenceData) -> InferenceData:
        if "trouble" in input_data["name"]:
            raise KeyError("no such key")
        return {
            "name": input_data["name"],
            "total": numpy.array([row.sum() for row in input_data["numbers"]]),
            "more": numpy.zeros(99),
        }
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def python(environment: Path, tmp_path: Path) -> Callable[[], Runner]:
    model = model_spec(artifact(tmp_path / "artifact", TOTALS), environment, INPUT, OUTPUT)
    return lambda: runner_of(model, tmp_path)


@pytest.fixture
def onnx(tmp_path: Path) -> Iterator[Callable[[], Runner]]:
    (tmp_path / "model.onnx").write_bytes(onnx_models.picky())
    model = replace(model_spec(tmp_path, tmp_path, INPUT, OUTPUT), framework="onnx", environment="")
    sessions: list[Sessions] = []

    def make() -> Runner:
        sessions.append(Sessions())
        return OnnxRunner(model, sessions[-1])

    yield make
    for made in sessions:
        made.close()


@pytest.fixture
def several(environment: Path, tmp_path: Path) -> Callable[[], Runner]:
    """The same in three worker processes."""
    model = model_spec(artifact(tmp_path / "artifact", TOTALS), environment, INPUT, OUTPUT)
    return lambda: runner_of(model, tmp_path, workers=3, warm_up=True)


@pytest.fixture
def gathered(several: Callable[[], Runner]) -> Callable[[], Runner]:
    """The same with requests of several callers together."""
    return lambda: Batching(several(), DynamicBatching(max_batch_delay_ms=1, batch_size_target=8))


@pytest.fixture(params=["python", "onnx", "several", "gathered"])
def make(request: pytest.FixtureRequest) -> Callable[[], Runner]:
    """Makes a runner of a model that sums two numbers; called on the loop that it is to live on."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    return request.param  # type: ignore[no-any-return]


def rows(*named: tuple[str, list[int]]) -> pa.Table:
    return table(INPUT, {"name": [name for name, _ in named], "numbers": [numbers for _, numbers in named]})


def test_outputs_are_of_the_output_schema_one_per_row_in_order(
    make: Callable[[], Runner], run: Callable[..., None]
) -> None:
    async def promise() -> None:
        runner = make()
        await runner.start()
        answer = await runner.predict(rows(("a", [1, 2]), ("b", [0, 0]), ("c", [3, 0])))
        await runner.close()

        assert answer.schema == runner.output_schema
        assert answer.to_pydict() == {"total": [3, 0, 3], "name": ["a", "b", "c"]}

    run(promise())


def test_requests_at_the_same_time_each_get_their_own_answer(
    make: Callable[[], Runner], run: Callable[..., None]
) -> None:
    async def promise() -> None:
        runner = make()
        await runner.start()
        answers = await asyncio.gather(*(runner.predict(rows((str(i), [i, i]))) for i in range(50)))
        await runner.close()

        assert [a.to_pydict() for a in answers] == [{"total": [2 * i], "name": [str(i)]} for i in range(50)]

    run(promise())


def test_a_model_that_raises_is_told_with_its_words_and_the_next_request_works(
    make: Callable[[], Runner], run: Callable[..., None]
) -> None:
    async def promise() -> None:
        runner = make()
        await runner.start()
        with pytest.raises(ModelFailed, match=r"Model 'tried' failed: .*(KeyError: 'no such key'|node)"):
            await runner.predict(rows(("trouble", [1, 1])))
        answer = await runner.predict(rows(("a", [1, 1])))
        observed = runner.observed()
        await runner.close()

        assert answer.num_rows == 1
        assert (observed.state, observed.restarts) == (State.RUNNING, 0)

    run(promise())


def test_no_rows_give_no_rows(make: Callable[[], Runner], run: Callable[..., None]) -> None:
    async def promise() -> None:
        runner = make()
        await runner.start()
        answer = await runner.predict(rows())
        await runner.close()

        assert (answer.num_rows, answer.schema) == (0, runner.output_schema)

    run(promise())


def test_a_null_is_the_callers_mistake(make: Callable[[], Runner], run: Callable[..., None]) -> None:
    async def promise() -> None:
        runner = make()
        await runner.start()
        with pytest.raises(BadInput, match=r"'name'.*: tensor values may not be null"):
            await runner.predict(table(INPUT, {"name": [None], "numbers": [[1, 1]]}))
        await runner.close()

    run(promise())


def test_it_is_seen_running_only_while_it_runs(make: Callable[[], Runner], run: Callable[..., None]) -> None:
    async def promise() -> None:
        runner = make()
        before = runner.observed()
        await runner.start()
        during = runner.observed()
        await runner.close()
        after = runner.observed()

        assert [before.state, during.state, after.state] == [State.PENDING, State.RUNNING, State.FAILED]
        assert during.pid > 0
        assert during.sandbox
        assert during.uid == "tried-1"
        assert during.native is isinstance(runner, OnnxRunner)

    run(promise())


def test_a_close_may_come_twice_or_before_the_start_and_nothing_is_taken_after_it(
    make: Callable[[], Runner], run: Callable[..., None]
) -> None:
    async def promise() -> None:
        await make().close()
        runner = make()
        await runner.start()
        await runner.close()
        await runner.close()
        with pytest.raises(Unavailable, match=r"[Mm]odel 'tried' was stopped"):
            await runner.predict(rows(("a", [1, 1])))

    run(promise())
