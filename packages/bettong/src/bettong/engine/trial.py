"""Loads a model once, in the same sandbox as in a deployment, to see whether it will load there."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.engine.made_up import made_up_row
from bettong.engine.runners.python import PythonRunner
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.deployments import ModelSpec

ROW_TIMEOUT_S = 30.0
LOG_LINES = 200


class WorkerTrial:
    """Implements `domain.ports.Trial`."""

    def __init__(self, scratch: Path) -> None:
        """`scratch` is a folder for temporary files, made when it is not there."""
        self._scratch = scratch

    def try_model(self, model: ModelSpec, report: Callable[[str], None]) -> None:
        """Load the model and try one made-up row. Blocks; nothing runs any more when it returns.

        A row that fails is reported and no error: a made-up one may not suit the model.

        Raises:
            ModelFailed: the model did not load; with its own last words.
            BadInput: a schema is not one that models can take.
        """
        self._scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="trial-", dir=self._scratch) as folder:
            log_file = Path(folder) / "worker.log"
            runner = PythonRunner(model, log_file=log_file, scratch=Path(folder), threads=1)
            try:
                asyncio.run(_try(runner, report))
            finally:
                for line in _lines(log_file):
                    report(line)


async def _try(runner: PythonRunner, report: Callable[[str], None]) -> None:
    began = time.monotonic()
    await runner.start()
    try:
        report(f"The model loaded in {time.monotonic() - began:.1f} s, held by: {runner.observed().sandbox}.")
        report(await _try_row(runner))
    finally:
        await runner.close()


async def _try_row(runner: PythonRunner) -> str:
    began = time.monotonic()
    try:
        async with asyncio.timeout(ROW_TIMEOUT_S):
            await runner.predict(made_up_row(runner.input_schema))
    except TimeoutError:
        return f"A made-up row was not answered within {ROW_TIMEOUT_S:g} s; it may not suit the model."
    except BettongError as failed:
        return f"A made-up row failed; it may not suit the model. {failed.problem}"
    return f"A made-up row was answered in {(time.monotonic() - began) * 1000:.0f} ms."


def _lines(log_file: Path) -> list[str]:
    try:
        return log_file.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
