"""Loads a model once, in the same sandbox as in a deployment, to see whether it will load there."""

from __future__ import annotations

import asyncio
import datetime
import decimal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.types as types

from bettong.engine.runners.python import PythonRunner
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.deployments import ModelSpec

ROW_TIMEOUT_S = 30.0
LOG_LINES = 200
LIST_LENGTH = 32
_DAY = datetime.datetime(2024, 1, 1)


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
        return f"A made-up row failed; it may not suit the model. {failed}"
    return f"A made-up row was answered in {(time.monotonic() - began) * 1000:.0f} ms."


def made_up_row(schema: pa.Schema) -> pa.Table:
    """One row that fits the schema: lists hold 32 increasing numbers, texts say 'text'."""
    return pa.Table.from_arrays([pa.array([_value(f.type, 1)], f.type) for f in schema], schema=schema)


def _value(kind: pa.DataType, n: int) -> object:
    if types.is_list(kind) or types.is_large_list(kind):
        return [_value(kind.value_type, i + 1) for i in range(LIST_LENGTH)]
    if types.is_fixed_size_list(kind):
        return [_value(kind.value_type, i + 1) for i in range(kind.list_size)]
    if types.is_struct(kind):
        return {kind.field(i).name: _value(kind.field(i).type, n) for i in range(kind.num_fields)}
    if types.is_boolean(kind):
        return n % 2 == 1
    if types.is_integer(kind):
        return n % 128
    if types.is_floating(kind):
        return float(n)
    if types.is_decimal(kind):
        return decimal.Decimal(n % 10).scaleb(-kind.scale)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return b"bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    moment = _DAY + datetime.timedelta(days=n)
    return moment.date() if types.is_date(kind) else moment


def _lines(log_file: Path) -> list[str]:
    try:
        return log_file.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
