"""One answered request: its columns, as the log keeps them and as callers get them (spec 7.3, 7.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True)
class Origin:
    """What every answer of one replica has in common."""

    last_model: str  # JSON text
    pipeline_version: str
    partition: str  # the replica's name

    @classmethod
    def of(cls, spec: DeploymentSpec, name: str) -> Origin:
        return cls(_last_model(spec.models[-1]), spec.pipeline_version, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that went through: `inputs` and `outputs` have the same number of rows, at least one.

    `time_ms` is since the epoch; `elapsed_ns` holds the parse time and then one number per step.
    """

    time_ms: int
    inputs: pa.Table
    outputs: pa.Table
    elapsed_ns: tuple[int, ...]
    request_id: str
    origin: Origin

    def batch(self) -> pa.RecordBatch:
        """All columns, flat: time, in.*, out.*, anomaly.*, metadata.*; `metadata.request_id` is the last."""
        rows = self.inputs.num_rows
        fields = [TIME, *_named("in", self.inputs), *_named("out", self.outputs), ANOMALY_COUNT, *METADATA, REQUEST_ID]
        arrays = [
            _times(self.time_ms, rows),
            *_columns(self.inputs),
            *_columns(self.outputs),
            pa.array(np.zeros(rows, np.uint32)),
            *_metadata(self.origin, self.elapsed_ns, self.request_id, rows),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def failed_batch(
    time_ms: int, inputs: pa.Table | None, error: str, elapsed_ns: tuple[int, ...], request_id: str, origin: Origin
) -> pa.RecordBatch:
    """A failed request for the failures log: time, in.*, error, metadata.*. One row when no row could be read."""
    rows = 1 if inputs is None else inputs.num_rows
    fields = [TIME, *(_named("in", inputs) if inputs is not None else ()), ERROR, *METADATA, REQUEST_ID]
    arrays = [
        _times(time_ms, rows),
        *(_columns(inputs) if inputs is not None else ()),
        pa.repeat(pa.scalar(error, pa.string()), rows),
        *_metadata(origin, elapsed_ns, request_id, rows),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _last_model(model: ModelSpec) -> str:
    return orjson.dumps({"model_name": model.name, "model_sha": model.sha}).decode()


def _named(group: str, table: pa.Table) -> list[Any]:
    return [field.with_name(f"{group}.{field.name}") for field in table.schema]


def _columns(table: pa.Table) -> list[Array]:
    return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]


def _times(time_ms: int, rows: int) -> Array:
    return pa.array(np.full(rows, time_ms, np.int64)).cast(TIME.type)


def _metadata(origin: Origin, elapsed_ns: tuple[int, ...], request_id: str, rows: int) -> list[Array]:
    values: tuple[Any, ...] = (origin.last_model, origin.pipeline_version, elapsed_ns, [], origin.partition, request_id)
    kinds: list[Kind] = [field.type for field in (*METADATA, REQUEST_ID)]
    return [pa.repeat(pa.scalar(value, kind), rows) for value, kind in zip(values, kinds, strict=True)]
