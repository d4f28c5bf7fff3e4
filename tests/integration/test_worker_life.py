"""Real workers under real misfortune: nothing hangs, every request is told, the next one works."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import pytest
from worker_builders import artifact, environment_of_this_python, model_spec, runner_of, table

from bettong.domain.deployments import State
from bettong.engine.trial import WorkerTrial
from bettong.errors import BettongError, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.engine.runners.python import PythonRunner

TEXT = {"say": pa.string()}
OBEDIENT = """
    import os, sys, time
    import numpy as np
    from mac.types import InferenceData

    def process_data(input_data: InferenceData) -> InferenceData:
        order = input_data["say"][0]
        if order == "hang":
            print("hanging", flush=True)
            while True:
                time.sleep(60)
        if order == "exit":
            sys.exit(3)
        if order == "os._exit":
            os._exit(7)
        if order == "close":
            os.closerange(3, 256)
            while True:
                time.sleep(60)
        if order == "none":
            return None
        if order == "few":
            return {"say": np.array([], object)}
        if order == "child":
            import subprocess
            return {"say": np.array([str(subprocess.Popen(["/bin/sleep", "600"]).pid)])}
        return {"say": input_data["say"]}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


def runner_for(
    code: str,
    environment: Path,
    folder: Path,
    inputs: Mapping[str, pa.DataType] = TEXT,
    outputs: Mapping[str, pa.DataType] = TEXT,
    *,
    load_timeout_s: float = 60.0,
    more: Mapping[str, str] | None = None,
) -> PythonRunner:
    model = model_spec(
        artifact(folder / "artifact", code, more), environment, inputs, outputs, load_timeout_s=load_timeout_s
    )
    return runner_of(model, folder)


def say(text: str) -> pa.Table:
    return table(TEXT, {"say": [text]})


async def has_started_hanging(runner_folder: Path) -> None:
    """Returns when the model has said in its log that it hangs: the request is running then."""
    log = runner_folder / "worker.log"
    async with asyncio.timeout(30):
        while "hanging" not in log.read_text():  # noqa: ASYNC110  a file raises no event
            await asyncio.sleep(0.005)


def test_a_worker_killed_in_the_middle_fails_that_request_and_serves_the_next(
    environment: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path)
        await runner.start()
        first = runner.observed()
        hanging = asyncio.create_task(runner.predict(say("hang")))
        queued = asyncio.create_task(runner.predict(say("queued")))
        await has_started_hanging(tmp_path)

        os.kill(first.pid, signal.SIGKILL)

        with pytest.raises(
            ModelFailed, match=r"worker of model 'tried' ended \(signal 9\) while it ran this request\..*again"
        ):
            await hanging
        assert (await queued).equals(say("queued"))
        assert (await runner.predict(say("next"))).equals(say("next"))
        second = runner.observed()
        assert (second.state, second.restarts) == (State.RUNNING, 1)
        assert second.pid != first.pid
        await runner.close()

    asyncio.run(story())


class EarlyLoop(asyncio.SelectorEventLoop):
    """Its timers fire before their time, as uvloop's do by up to a millisecond."""

    def call_at(self, when: float, callback: Any, *args: Any, **more: Any) -> asyncio.TimerHandle:  # type: ignore[override]
        return super().call_at(when - 0.01, callback, *args, **more)


def test_a_timer_that_fires_early_does_not_lose_the_restart(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path)
        await runner.start()
        try:
            with pytest.raises(ModelFailed):
                await runner.predict(say("os._exit"))
            assert (await runner.predict(say("back"))).equals(say("back"))
        finally:
            await runner.close()

    with asyncio.Runner(loop_factory=EarlyLoop) as loop:
        loop.run(story())


@pytest.mark.parametrize(
    ("order", "how"),
    [("exit", r"ended \(exit code 3\)"), ("os._exit", r"ended \(exit code 7\)"), ("close", r"ended \(signal 9\)")],
)
def test_a_model_that_ends_its_process_or_socket_fails_its_own_request_only(
    environment: Path, tmp_path: Path, order: str, how: str
) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path)
        await runner.start()
        with pytest.raises(ModelFailed, match=how):
            await runner.predict(say(order))
        assert (await runner.predict(say("next"))).equals(say("next"))
        await runner.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("none", "Model 'tried' failed: process_data returned None"),
        ("few", r"'say' \(string\): 0 rows were returned for 1 rows"),
    ],
)
def test_a_model_that_returns_what_it_should_not_is_told_and_lives(
    environment: Path, tmp_path: Path, order: str, words: str
) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path)
        await runner.start()
        with pytest.raises(ModelFailed, match=words):
            await runner.predict(say(order))
        assert (await runner.predict(say("next"))).equals(say("next"))
        assert runner.observed().restarts == 0
        await runner.close()

    asyncio.run(story())


def test_what_a_model_raised_is_told_with_the_command_that_shows_its_traceback(
    environment: Path, tmp_path: Path
) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path / "rental-forecast-1")
        await runner.start()
        with pytest.raises(ModelFailed, match="bettong logs --deployment rental-forecast-1 --model tried"):
            await runner.predict(say("none"))
        await runner.close()

    asyncio.run(story())


def test_rows_of_ten_megabytes_go_there_and_back(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        kinds = {"say": pa.large_string(), "numbers": pa.list_(pa.float64())}
        identity = """
            from mac.types import InferenceData
            def process_data(input_data: InferenceData) -> InferenceData:
                return input_data
        """
        runner = runner_for(identity, environment, tmp_path, kinds, kinds)
        await runner.start()
        numbers = [float(i) for i in range(1_300_000)]
        rows = table(kinds, {"say": ["x" * 10_000_001, "y"], "numbers": [numbers, numbers[:-1]]})
        assert (await runner.predict(rows)).equals(rows)
        await runner.close()

    asyncio.run(story())


def test_more_columns_than_one_system_call_takes_go_there_and_back(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        kinds = {f"c{i}": pa.list_(pa.int64()) for i in range(1100)}
        identity = """
            from mac.types import InferenceData
            def process_data(input_data: InferenceData) -> InferenceData:
                return input_data
        """
        runner = runner_for(identity, environment, tmp_path, kinds, kinds)
        await runner.start()
        rows = table(kinds, {name: [[i, 2, 3], [], [i]] for i, name in enumerate(kinds)})
        assert (await runner.predict(rows)).equals(rows)
        await runner.close()

    asyncio.run(story())


def test_an_answer_too_large_for_a_frame_is_a_named_failure(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        giant = """
            import numpy as np
            from mac.types import InferenceData
            def process_data(input_data: InferenceData) -> InferenceData:
                return {"y": np.broadcast_to(np.zeros(1, "u1"), (1, 2**31 + 8))}
        """
        runner = runner_for(giant, environment, tmp_path, TEXT, {"y": pa.large_list(pa.uint8())})
        await runner.start()
        with pytest.raises(ModelFailed, match="at most 2147483648 can be returned"):
            await runner.predict(say("go"))
        await runner.close()

    asyncio.run(story())


def test_a_load_that_hangs_ends_at_its_time_limit(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for("import time\nwhile True: time.sleep(60)", environment, tmp_path, load_timeout_s=1.0)
        with pytest.raises(ModelFailed, match=r"worker of model 'tried' did not load within 1 s\."):
            await runner.start()
        assert runner.observed().pid == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("code", "more", "words"),
    [
        ("x = 1", {}, r"No function 'process_data' found in the given files \(step.py\)"),
        (OBEDIENT, {"other.py": OBEDIENT}, r"Multiple pre/post-processing steps found in the given files\."),
        ("import nowhere_to_be_found", {}, r"No module named 'nowhere_to_be_found'\. Add what provides it"),
        ("def process_data(data): return data", {}, r"has the parameters \(data\)"),
        ("def process_data(input_data): return input_data", {}, "no annotation for its parameter input_data"),
        (
            "print('last cry', flush=True)\nimport os\nos._exit(4)",
            {},
            r"exit code 4\) while it loaded; its last words: last cry",
        ),
        ("raise SystemExit('not today')", {}, "SystemExit: not today"),
        ("def process_data(:", {}, "SyntaxError"),
    ],
    ids=["none", "several", "import", "parameter", "annotation", "os._exit", "sys.exit", "syntax"],
)
def test_a_model_that_does_not_load_says_why_and_leaves_nothing_running(
    environment: Path, tmp_path: Path, code: str, more: Mapping[str, str], words: str
) -> None:
    async def story() -> None:
        runner = runner_for(code, environment, tmp_path, more=more)
        with pytest.raises(ModelFailed, match=words):
            await runner.start()
        assert (runner.observed().state, runner.observed().pid) == (State.FAILED, 0)
        assert list((tmp_path / "scratch").iterdir()) == []

    asyncio.run(story())


def test_an_environment_without_an_interpreter_is_named(tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, tmp_path / "gone", tmp_path)
        with pytest.raises(ModelFailed, match=r"gone has no interpreter\. Build it again"):
            await runner.start()

    asyncio.run(story())


def test_an_async_step_keeps_one_loop_and_files_beside_it_can_be_read(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        code = """
            from __future__ import annotations
            import asyncio
            from typing import Dict
            import numpy as np
            from helper import suffix

            loops = set()

            async def process_data(input_data: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
                loops.add(asyncio.get_running_loop())
                await asyncio.sleep(0)
                text = open("data/words.txt").read()
                return {"say": np.array([text + suffix + str(len(loops))])}
        """
        runner = runner_for(code, environment, tmp_path, more={"helper.py": "suffix = '!'", "json.py": "broken = 1"})
        (tmp_path / "artifact" / "data").mkdir()
        (tmp_path / "artifact" / "data" / "words.txt").write_text("hello")
        await runner.start()
        await runner.predict(say("a"))
        assert (await runner.predict(say("b"))).equals(say("hello!1"))
        await runner.close()

    asyncio.run(story())


def test_a_request_given_up_in_the_queue_never_runs(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        counting = """
            import numpy as np
            from mac.types import InferenceData
            seen = []
            def process_data(input_data: InferenceData) -> InferenceData:
                seen.append(input_data["say"][0])
                return {"say": np.array([",".join(seen)])}
        """
        runner = runner_for(counting, environment, tmp_path)
        await runner.start()
        first = asyncio.create_task(runner.predict(say("a")))
        second = asyncio.create_task(runner.predict(say("b")))
        await asyncio.sleep(0)
        second.cancel()
        await first
        assert (await runner.predict(say("c"))).equals(say("a,c"))
        await runner.close()

    asyncio.run(story())


def test_rows_go_one_by_one_to_a_model_that_is_configured_so(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        counting = """
            import numpy as np
            from mac.types import InferenceData
            def process_data(input_data: InferenceData) -> InferenceData:
                return {"say": np.array([word + str(len(input_data["say"])) for word in input_data["say"]], object)}
        """
        model = model_spec(artifact(tmp_path / "artifact", counting), environment, TEXT, TEXT)
        runner = runner_of(replace(model, row_by_row=True), tmp_path)
        await runner.start()
        answer = await runner.predict(table(TEXT, {"say": ["a", "b", "c"]}))
        assert answer["say"].to_pylist() == ["a1", "b1", "c1"]
        assert answer["say"].num_chunks == 1
        assert (await runner.predict(table(TEXT, {"say": []}))).num_rows == 0
        await runner.close()

    asyncio.run(story())


def test_what_a_model_started_ends_with_it(environment: Path, tmp_path: Path) -> None:
    async def story() -> None:
        runner = runner_for(OBEDIENT, environment, tmp_path)
        await runner.start()
        pid = int((await runner.predict(say("child")))["say"][0].as_py())
        child = psutil.Process(pid)
        await runner.close()
        child.wait(timeout=10)
        assert not child.is_running()

    asyncio.run(story())


REPLICA = """
import asyncio, pathlib, sys
folder, environment, tests = map(pathlib.Path, sys.argv[1:])
sys.path.append(str(tests))
import pyarrow
from worker_builders import model_spec, runner_of

async def serve():
    kinds = {"say": pyarrow.string()}
    runner = runner_of(model_spec(folder / "artifact", environment, kinds, kinds), folder)
    await runner.start()
    print(runner.observed().pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(serve())
"""


def test_a_worker_dies_when_its_replica_is_killed(environment: Path, tmp_path: Path) -> None:
    artifact(tmp_path / "artifact", OBEDIENT)
    command = [sys.executable, "-c", REPLICA, str(tmp_path), str(environment), str(Path(__file__).parents[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout
        worker = psutil.Process(int(replica.stdout.readline()))

        replica.kill()

        worker.wait(timeout=10)


def trial(code: str, environment: Path, tmp_path: Path, kinds: Mapping[str, pa.DataType]) -> tuple[list[str], str]:
    """What a trial reports, and the error it ends with."""
    model = model_spec(artifact(tmp_path / "artifact", code), environment, kinds, kinds)
    lines: list[str] = []
    try:
        WorkerTrial(tmp_path / "trials").try_model(model, lines.append)
    except BettongError as failed:
        return lines, str(failed)
    finally:
        assert list((tmp_path / "trials").iterdir()) == []
    return lines, ""


def test_a_trial_loads_the_model_and_answers_a_made_up_row_of_every_type(environment: Path, tmp_path: Path) -> None:
    kinds = {
        "list": pa.list_(pa.int32()),
        "fixed": pa.list_(pa.float16(), 3),
        "text": pa.string(),
        "when": pa.timestamp("us", tz="UTC"),
        "day": pa.date32(),
        "price": pa.decimal128(5, 2),
        "flag": pa.bool_(),
        "small": pa.int8(),
        "bytes": pa.binary(),
        "struct": pa.struct([("x", pa.float64())]),
    }
    identity = """
        from mac.types import InferenceData
        print("loading")
        def process_data(input_data: InferenceData) -> InferenceData:
            assert input_data["list"].shape == (1, 32)
            return input_data
    """

    lines, error = trial(identity, environment, tmp_path, kinds)

    assert error == ""
    assert any(line.startswith("The model loaded in") for line in lines)
    assert any(line.startswith("A made-up row was answered in") for line in lines)
    assert "loading" in lines


def test_a_trial_whose_made_up_row_fails_is_no_error_but_a_report(environment: Path, tmp_path: Path) -> None:
    picky = """
        from mac.types import InferenceData
        def process_data(input_data: InferenceData) -> InferenceData:
            raise ValueError("unknown word")
    """

    lines, error = trial(picky, environment, tmp_path, TEXT)

    assert error == ""
    assert any("A made-up row failed; it may not suit the model." in line and "unknown word" in line for line in lines)
    assert not any("bettong logs" in line for line in lines), "nothing is deployed that would have such a log"


def test_a_trial_of_a_model_that_does_not_load_fails_with_its_words_and_reports_its_log(
    environment: Path, tmp_path: Path
) -> None:
    lines, error = trial("print('so far')\nraise RuntimeError('weights are missing')", environment, tmp_path, TEXT)

    assert "RuntimeError: weights are missing" in error
    assert "so far" in lines
    assert any(line.startswith("Traceback") for line in lines)
