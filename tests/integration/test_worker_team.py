"""Several real workers of one model, models that import late, and requests that nobody waits for any more."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from worker_builders import artifact, environment_of_this_python, model_spec, runner_of, table

from bettong.domain.deployments import State
from bettong.engine.workers import lifecycle
from bettong.errors import ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bettong.engine.runners.python import PythonRunner

TEXT = {"say": pa.string()}
# Says who it is. "wait NAME" waits until the file NAME in the artifact is there; "loop" never ends.
WHO = """
    import os, time
    import numpy as np
    from mac.types import InferenceData

    def process_data(input_data: InferenceData) -> InferenceData:
        order, _, name = input_data["say"][0].partition(" ")
        print("began", order, flush=True)
        while order == "loop" or (order == "wait" and not os.path.exists(name)):
            time.sleep(0.005)
        if order == "die":
            os._exit(7)
        return {"say": np.array([str(os.getpid())])}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


def runner_for(code: str, environment: Path, folder: Path, **more: Any) -> PythonRunner:
    return runner_of(model_spec(artifact(folder / "artifact", code), environment, TEXT, TEXT), folder, **more)


async def ask(runner: PythonRunner, text: str) -> Any:
    return (await runner.predict(table(TEXT, {"say": [text]})))["say"][0].as_py()


def asked(runner: PythonRunner, text: str) -> asyncio.Task[Any]:
    return asyncio.create_task(ask(runner, text))


async def until(holds: Callable[[], bool]) -> None:
    """Files and processes raise no event on this loop."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def has_begun(folder: Path, order: str, times: int = 1) -> None:
    await until(lambda: (folder / "worker.log").read_text().count(f"began {order}") >= times)


def test_requests_run_at_the_same_time_in_workers_of_their_own(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for(WHO, environment, tmp_path, workers=2)
        await runner.start()
        pids = {str(worker.pid) for worker in runner.workers()}
        held = asked(runner, "wait go")
        await has_begun(tmp_path, "wait")

        others = {await ask(runner, "who") for _ in range(5)}
        (tmp_path / "artifact" / "go").touch()

        assert {await held, *others} == pids
        assert len(others) == 1
        await runner.close()

    asyncio.run(story())


def test_what_waits_behind_a_slow_request_is_taken_by_the_worker_that_is_free(
    environment: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        runner = runner_for(WHO, environment, tmp_path, workers=2)
        await runner.start()
        slow, short = asked(runner, "wait slow"), asked(runner, "wait short")
        await has_begun(tmp_path, "wait", 2)
        queued = [asked(runner, "who") for _ in range(6)]
        await asyncio.sleep(0)
        assert runner.waiting == 6

        (tmp_path / "artifact" / "short").touch()

        assert set(await asyncio.gather(*queued)) == {await short}
        assert not slow.done()
        (tmp_path / "artifact" / "slow").touch()
        assert await slow not in {await short, None}
        await runner.close()

    asyncio.run(story())


def test_one_that_dies_comes_back_alone_and_its_queue_goes_to_the_other(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for(WHO, environment, tmp_path, workers=2)
        await runner.start()
        first, second = runner.workers()
        held = [asked(runner, "wait go") for _ in range(2)]
        await has_begun(tmp_path, "wait", 2)
        queued = [asked(runner, "who") for _ in range(4)]
        await asyncio.sleep(0)

        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(ModelFailed, match=r"ended \(signal 9\) while it ran this request"):
            await held[0]
        assert runner.observed().state is State.PENDING
        await until(lambda: runner.observed().state is State.RUNNING)
        (tmp_path / "artifact" / "go").touch()

        assert await held[1] == str(second.pid)
        now = runner.workers()
        assert now[1] == second
        assert (now[0].restarts, runner.observed().restarts) == (1, 1)
        assert set(await asyncio.gather(*queued)) <= {str(worker.pid) for worker in now}
        await runner.close()

    asyncio.run(story())


def test_a_model_that_does_not_load_leaves_no_worker_running(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for("import nothing_of_that_name", environment, tmp_path, workers=3)
        with pytest.raises(ModelFailed, match="nothing_of_that_name"):
            await runner.start()
        assert [worker.pid for worker in runner.workers()] == [0, 0, 0]
        assert list((tmp_path / "scratch").iterdir()) == []

    asyncio.run(story())


LATE = """
    import sys
    import numpy as np
    from mac.types import InferenceData
    seen = []

    def process_data(input_data: InferenceData) -> InferenceData:
        seen.append("colorsys" in sys.modules)
        import colorsys
        if input_data["say"][0] == "text" and {fails}:
            raise ValueError("unknown word")
        return {{"say": np.array([str(seen)])}}
"""


@pytest.mark.parametrize("fails", [False, True], ids=["answered", "fails"])
def test_what_a_model_imports_late_is_there_when_the_first_request_comes(
    environment: Path, tmp_path: Path, fails: bool
) -> None:
    async def story() -> None:
        runner = runner_for(LATE.format(fails=fails), environment, tmp_path, workers=2, warm_up=True)
        await runner.start()
        assert [worker.state for worker in runner.workers()] == [State.RUNNING] * 2
        assert await ask(runner, "first") == "[False, True]"
        await runner.close()

    asyncio.run(story())
    log = (tmp_path / "worker.log").read_text()
    assert "Traceback" not in log
    assert log.count("A made-up row to warm up with failed (ValueError); that is no error.") == (2 if fails else 0)


def test_a_start_does_not_wait_for_a_made_up_row_for_ever(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bettong.engine.runners.python.WARM_UP_S", 0.05)
    code = WHO.replace('order == "wait"', 'order == "text"').replace("exists(name)", 'exists("go")')

    async def story() -> None:
        runner = runner_for(code, environment, tmp_path, warm_up=True)
        await runner.start()
        first = asked(runner, "who")
        await has_begun(tmp_path, "text")
        (tmp_path / "artifact" / "go").touch()
        assert await first == str(runner.observed().pid)
        assert runner.observed().restarts == 0
        await runner.close()

    asyncio.run(story())


def test_a_worker_that_a_dead_request_holds_is_started_again_and_the_next_one_works(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = lifecycle.Patience
    monkeypatch.setattr("bettong.engine.runners.python.Patience", lambda **more: plain(late_s=0.05, **more))

    async def story() -> None:
        runner = runner_for(WHO, environment, tmp_path, deadline_s=0.05)
        await runner.start()
        before = runner.observed()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await ask(runner, "loop")

        after = await ask(runner, "who")

        assert after not in (None, str(before.pid))
        assert runner.observed().restarts == 1
        await runner.close()

    asyncio.run(story())
