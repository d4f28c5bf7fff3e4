"""One answered request: its columns, as the log keeps them and as callers get them (spec 7.3, 7.5).

Most columns say the same in every row of a request. They stay values until somebody needs a column of them: as columns
they cost 60 µs for one row, and 2.6 ms for 10,000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from bettong.domain.logs import LogShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.deployments import DeploymentSpec, ModelSpec
    from bettong.engine.arrow_types import Array, Kind

TIME = pa.field("time", pa.timestamp("ms"), nullable=False)
ANOMALY_COUNT = pa.field("anomaly.count", pa.uint32(), nullable=False)
ERROR = pa.field("error", pa.string(), nullable=False)
METADATA = (
    pa.field("metadata.last_model", pa.string(), nullable=False),
    pa.field("metadata.pipeline_version", pa.string(), nullable=False),
    pa.field("metadata.elapsed", pa.list_(pa.uint64()), nullable=False),
    pa.field("metadata.dropped", pa.list_(pa.string()), nullable=False),
    pa.field("metadata.partition", pa.string(), nullable=False),
)
# In the log alone: a caller has it in the X-Request-Id header of the answer
REQUEST_ID = pa.field("metadata.request_id", pa.string(), nullable=False)
SHARED = ("metadata.elapsed", "metadata.dropped", "metadata.request_id")  # what all rows of one request share


@dataclass(frozen=True, slots=True)
class Origin:
    """What every answer of one replica has in common."""

    last_model: str  # JSON text
    pipeline_version: str
    partition: str  # the replica's name

    @classmethod
    def of(cls, spec: DeploymentSpec, name: str) -> Origin:
        return cls(_last_model(spec.models[-1]), spec.pipeline_version, name)

    def constants(self) -> dict[str, Any]:
        """The columns that never change."""
        return {
            "metadata.last_model": self.last_model,
            "metadata.pipeline_version": self.pipeline_version,
            "metadata.partition": self.partition,
        }


class AnswerShape:
    """The columns of one program's answers. Made once: schemas cost more to build than an answer.

    Args:
        inputs: the program's input schema.
        outputs: its output schema.
        origin: of all its answers.
        max_logged_row_bytes: an input column that takes more per row stays out of the log.
    """

    def __init__(self, inputs: pa.Schema, outputs: pa.Schema, origin: Origin, max_logged_row_bytes: int) -> None:
        self.rows = pa.schema([*_named("in", inputs), *_named("out", outputs)])
        self.schema = pa.schema([TIME, *self.rows, ANOMALY_COUNT, *METADATA])
        self.names: tuple[str, ...] = tuple(self.schema.names)
        self.constants = {"anomaly.count": 0, **origin.constants()}
        self._inputs = len(inputs)
        self.max_logged_row_bytes = max_logged_row_bytes
        self._logged: dict[tuple[str, ...], tuple[LogShape, list[int]]] = {}

    def dropped(self, inputs: pa.Table) -> tuple[str, ...]:
        """Names of the input columns that take more per row than the log is given, on the mean of these rows."""
        limit = self.max_logged_row_bytes * inputs.num_rows
        if inputs.get_total_buffer_size() <= limit:  # never less than nbytes, and at a fifteenth of its cost
            return ()
        columns = zip(self.rows.names[: self._inputs], inputs.columns, strict=True)
        return tuple(name for name, column in columns if column.nbytes > limit)

    def shared(self, time_ms: int, elapsed_ns: Sequence[int], dropped: tuple[str, ...]) -> dict[str, Any]:
        """What all rows of a request have in the columns that are neither `rows` nor `constants`."""
        return {"time": time_ms, "metadata.elapsed": elapsed_ns, "metadata.dropped": dropped}

    def logged(self, dropped: tuple[str, ...]) -> tuple[LogShape, list[int]]:
        """The shape of log rows without the dropped columns, and which columns of `rows` they have."""
        if (known := self._logged.get(dropped)) is None:
            at = [i for i, name in enumerate(self.rows.names) if name not in dropped]
            by_row = pa.schema([self.rows.field(i) for i in at])
            schema = pa.schema([TIME, *by_row, ANOMALY_COUNT, *METADATA, REQUEST_ID])
            known = self._logged[dropped] = LogShape(schema, self.constants, SHARED, by_row), at
        return known


class Answer:
    """A request that went through: `inputs` and `outputs` have the same number of rows, at least one.

    `time_ms` is since the epoch; `elapsed_ns` holds the parse time and then one number per step.
    """

    __slots__ = ("dropped", "elapsed_ns", "request_id", "rows", "shape", "time_ms")

    def __init__(
        self,
        shape: AnswerShape,
        time_ms: int,
        inputs: pa.Table,
        outputs: pa.Table,
        elapsed_ns: Sequence[int],
        request_id: str,
    ) -> None:
        self.shape, self.time_ms, self.elapsed_ns, self.request_id = shape, time_ms, elapsed_ns, request_id
        self.rows = pa.RecordBatch.from_arrays([*_columns(inputs), *_columns(outputs)], schema=shape.rows)
        self.dropped = shape.dropped(inputs)

    def logged(self) -> tuple[LogShape, int, list[Any], pa.RecordBatch]:
        """What `LogWriter.append_request` takes."""
        shape, at = self.shape.logged(self.dropped)
        rows = self.rows if not self.dropped else self.rows.select(at)
        return shape, self.time_ms, [self.elapsed_ns, self.dropped, self.request_id], rows

    def value(self, name: str) -> Any:
        """What all rows have in the column `name`, which is none of `rows`: as JSON has it."""
        shared = self.shape.shared(self.time_ms, self.elapsed_ns, self.dropped)
        return shared[name] if name in shared else self.shape.constants[name]

    def column(self, at: int) -> Array:
        """Column `at` of `shape.schema`, whole."""
        if 0 < at <= self.rows.num_columns:
            return self.rows.column(at - 1)
        field = self.shape.schema.field(at)
        return _repeated(self.value(field.name), field.type, self.rows.num_rows)


def failed_batch(
    time_ms: int, inputs: pa.Table | None, error: str, elapsed_ns: Sequence[int], request_id: str, origin: Origin
) -> pa.RecordBatch:
    """A failed request for the failures log: time, in.*, error, metadata.*. One row when no row could be read."""
    rows = 1 if inputs is None else inputs.num_rows
    facts: tuple[Any, ...] = (*METADATA, REQUEST_ID)
    fields = [TIME, *(_named("in", inputs.schema) if inputs is not None else ()), ERROR, *facts]
    values: tuple[Any, ...] = (origin.last_model, origin.pipeline_version, elapsed_ns, (), origin.partition, request_id)
    arrays = [
        pa.array(np.full(rows, time_ms, np.int64)).cast(TIME.type),
        *(_columns(inputs) if inputs is not None else ()),
        _repeated(error, ERROR.type, rows),
        *(_repeated(value, field.type, rows) for value, field in zip(values, facts, strict=True)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _repeated(value: Any, kind: Kind, rows: int) -> Array:
    scalar: Any = pa.scalar(value, kind)
    return pa.repeat(scalar, rows)


def _last_model(model: ModelSpec) -> str:
    return orjson.dumps({"model_name": model.name, "model_sha": model.sha}).decode()


def _named(group: str, schema: pa.Schema) -> list[Any]:
    return [field.with_name(f"{group}.{field.name}") for field in schema]


def _columns(table: pa.Table) -> list[Array]:
    return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]
