"""A model of any framework that is not native, run by a worker process in the model's own environment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bettong.domain.schema import check_model_schema, decode_schema_text
from bettong.engine.workers.frames import BadFrame, decode, encode, type_tree
from bettong.engine.workers.lifecycle import Patience
from bettong.engine.workers.process import Plan
from bettong.engine.workers.supervisor import Supervisor
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    import pyarrow as pa

    from bettong.domain.deployments import ModelSpec, ObservedWorker


class PythonRunner:
    """Implements `runners.base.Runner`."""

    def __init__(self, model: ModelSpec, *, log_file: Path, scratch: Path, threads: int) -> None:
        """`log_file` takes what the model prints. `scratch` takes a temporary folder while a worker runs.

        Raises:
            BadInput: a schema of the model is not one that models can take.
        """
        self._name = model.name
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
        self._supervisor = Supervisor(model.name, model.uid, plan, load, Patience(load_s=model.load_timeout_s))

    @property
    def input_schema(self) -> pa.Schema:
        return self._input

    @property
    def output_schema(self) -> pa.Schema:
        return self._output

    async def start(self) -> None:
        await self._supervisor.start()

    async def predict(self, rows: pa.Table) -> pa.Table:
        try:
            encoded = encode(rows)
        except ValueError as wrong:
            raise BadInput(f"Model '{self._name}' cannot take these rows. {wrong}") from wrong
        answer = await self._supervisor.call(rows.num_rows, encoded)
        try:
            return decode(answer.columns, answer.body, self._output, rows.num_rows)
        except BadFrame as wrong:
            raise ModelFailed(f"Model '{self._name}' answered what it should not. {wrong}") from wrong

    async def close(self) -> None:
        await self._supervisor.close()

    def observed(self) -> ObservedWorker:
        return self._supervisor.observed()


def _fields(schema: pa.Schema) -> list[dict[str, object]]:
    return [{"name": field.name, "type": type_tree(field.type)} for field in schema]
