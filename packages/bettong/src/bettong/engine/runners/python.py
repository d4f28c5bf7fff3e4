"""A model of any framework that is not native, run by a worker process in the model's own environment."""

from __future__ import annotations

import asyncio
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from bettong.domain.schema import check_model_schema, decode_schema_text
from bettong.engine.made_up import made_up_row
from bettong.engine.workers.frames import BadFrame, decode, encode, type_tree
from bettong.engine.workers.lifecycle import Patience
from bettong.engine.workers.process import Plan
from bettong.engine.workers.supervisor import Supervisor
from bettong.engine.workers.team import Team
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.deployments import ModelSpec, ObservedWorker

WARM_UP_S = 10.0

log = logging.getLogger("bettong.engine")


class PythonRunner:
    """Implements `runners.base.Runner`."""

    def __init__(
        self,
        model: ModelSpec,
        *,
        log_file: Path,
        scratch: Path,
        threads: int,
        workers: int = 1,
        deadline_s: float = math.inf,
        warm_up: bool = False,
    ) -> None:
        """A runner whose workers are not started yet.

        Args:
            log_file: takes what the model prints.
            scratch: takes a temporary folder for each worker while it runs.
            threads: of each worker.
            workers: processes that run the model at the same time.
            deadline_s: how long requests are waited for; a worker that is later than this is started again.
            warm_up: whether a made-up row goes through each worker before the start is over, so that what the model
                imports late is there when the first request comes. What comes of that row is of no interest.

        Raises:
            BadInput: a schema of the model is not one that models can take.
        """
        self._name, self._uid, self._row_by_row = model.name, model.uid, model.row_by_row
        self._input = check_model_schema("input schema", decode_schema_text(model.input_schema))
        self._output = check_model_schema("output schema", decode_schema_text(model.output_schema))
        plan = Plan(Path(model.environment), Path(model.folder), scratch, log_file, threads, model.env)
        load = {
            "framework": model.framework,
            "config": model.framework_config,
            "folder": model.folder,
            "input": _fields(self._input),
            "output": _fields(self._output),
        }
        patience = Patience(load_s=model.load_timeout_s, deadline_s=deadline_s)
        self._team = Team([Supervisor(model.name, model.uid, plan, load, patience) for _ in range(workers)])
        self._warms_up = warm_up

    @property
    def input_schema(self) -> pa.Schema:
        return self._input

    @property
    def output_schema(self) -> pa.Schema:
        return self._output

    @property
    def waiting(self) -> int:
        return self._team.waiting

    async def start(self) -> None:
        await self._team.start()
        if self._warms_up:
            await self._warm_up()

    async def predict(self, rows: pa.Table) -> pa.Table:
        if not self._row_by_row or rows.num_rows < 2:
            return await self._predict(rows)
        parts = [await self._predict(rows.slice(at, 1)) for at in range(rows.num_rows)]
        return pa.concat_tables(parts).combine_chunks()

    async def _predict(self, rows: pa.Table) -> pa.Table:
        try:
            encoded = encode(rows)
        except ValueError as wrong:
            raise BadInput(f"Model '{self._name}' cannot take these rows. {wrong}") from wrong
        answer = await self._team.call(rows.num_rows, encoded)
        try:
            return decode(answer.columns, answer.body, self._output, rows.num_rows)
        except BadFrame as wrong:
            raise ModelFailed(f"Model '{self._name}' answered what it should not. {wrong}") from wrong

    async def close(self) -> None:
        await self._team.close()

    def observed(self) -> ObservedWorker:
        return self._team.observed()

    def workers(self) -> Sequence[ObservedWorker]:
        """Implements `runners.base.Staffed`."""
        return self._team.workers()

    async def _warm_up(self) -> None:
        """Let the start wait for a made-up row, but not for long: what takes longer goes on while requests wait."""
        try:
            async with asyncio.timeout(WARM_UP_S):
                for came in await self._team.call_each(1, encode(made_up_row(self._input))):
                    if isinstance(came, BaseException):
                        log.info("warm_up_failed model=%s error=%s", self._uid, type(came).__name__)
        except TimeoutError:
            log.info("warm_up_late model=%s after_s=%s", self._uid, WARM_UP_S)


def _fields(schema: pa.Schema) -> list[dict[str, object]]:
    return [{"name": field.name, "type": type_tree(field.type)} for field in schema]
