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
    from bettong.engine.plan import Other, Plan
    from bettong.engine.step_state import Beside

TIME = pa.field("time", pa.timestamp("ms"), nullable=False)
ANOMALY_COUNT = pa.field("anomaly.count", pa.uint32(), nullable=False)
MODEL_SPLIT = pa.field("out._model_split", pa.list_(pa.string()), nullable=False)
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
    def of(cls, spec: DeploymentSpec, name: str, last: ModelSpec | None = None) -> Origin:
        """`last` is the model that gives `out.*`, by default the last one of `spec`."""
        return cls(last_model_text(last or spec.models[-1]), spec.pipeline_version, name)

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
        plan: of a program with other steps than single models: what its answers have beside `out.*`.

    `schema` has the columns of an answer and `rows` those that each row has of its own: of an answer and of the log,
    which may have more. Both stand in the order of spec 8.1.
    """

    def __init__(
        self,
        inputs: pa.Schema,
        outputs: pa.Schema,
        origin: Origin,
        max_logged_row_bytes: int,
        plan: Plan | None = None,
    ) -> None:
        marks: list[Any] = []
        others = [(other, _of_other(other)) for other in plan.others if other.slot not in plan.aside] if plan else []
        # which of the plan's others an answer has, and their fields
        self.others = tuple((plan.others.index(other), fields) for other, fields in others) if plan else ()
        if plan and plan.validations:
            marks = [ANOMALY_COUNT, *(pa.field(f"anomaly.{v}", pa.bool_(), nullable=False) for v in plan.validations)]
        split = [MODEL_SPLIT] if plan and plan.splits else []
        self.rows = pa.schema(
            [*_named("in", inputs), *_named("out", outputs), *marks, *(f for _, fields in others for f in fields)]
        )
        first = len(inputs) + len(outputs)
        self._before = [*self.rows][:first] + split + (marks or [ANOMALY_COUNT])
        self._logged_fields = [*self._before, *(f for _, fields in others for f in fields), *METADATA]
        answered = [f for other, fields in others if other.answered for f in fields]
        self.schema = pa.schema([TIME, *self._before, *answered, *METADATA])
        self.names: tuple[str, ...] = tuple(self.schema.names)
        self._row_at = [self.rows.get_field_index(name) for name in self.names]
        self.constants: dict[str, Any] = {"anomaly.count": 0, **origin.constants()}
        self._shared: tuple[str, ...] = SHARED
        if marks:
            del self.constants["anomaly.count"]
        if split:
            del self.constants["metadata.last_model"]
            self._shared = (*SHARED, MODEL_SPLIT.name, "metadata.last_model")
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
            kept = [f for f in self._logged_fields if f.name not in dropped]
            schema = pa.schema([TIME, *kept, REQUEST_ID])
            known = self._logged[dropped] = LogShape(schema, self.constants, self._shared, by_row), at
        return known

    def row_at(self, column: int) -> int:
        """Where column `column` of `schema` is in `rows`; below 0 when all rows share it."""
        return self._row_at[column]


class Answer:
    """A request that went through: `inputs` and `outputs` have the same number of rows, at least one.

    `time_ms` is since the epoch; `elapsed_ns` holds the parse time and then one number per step. `beside` is there when
    `shape` was made of a plan.
    """

    __slots__ = ("beside", "dropped", "elapsed_ns", "request_id", "rows", "shape", "time_ms")

    def __init__(
        self,
        shape: AnswerShape,
        time_ms: int,
        inputs: pa.Table,
        outputs: pa.Table,
        elapsed_ns: Sequence[int],
        request_id: str,
        beside: Beside | None = None,
    ) -> None:
        self.shape, self.time_ms, self.elapsed_ns, self.request_id = shape, time_ms, elapsed_ns, request_id
        self.beside = beside
        columns = [*_columns(inputs), *_columns(outputs)]
        if beside is not None:
            columns += _beside(beside, shape, inputs.num_rows)
        self.rows = pa.RecordBatch.from_arrays(columns, schema=shape.rows)
        self.dropped = shape.dropped(inputs)

    def logged(self) -> tuple[LogShape, int, list[Any], pa.RecordBatch]:
        """What `LogWriter.append_request` takes."""
        shape, at = self.shape.logged(self.dropped)
        rows = self.rows if not self.dropped else self.rows.select(at)
        shared: list[Any] = [self.elapsed_ns, self.dropped, self.request_id]
        if self.beside is not None and self.beside.splits:
            shared += [list(self.beside.splits), last_model_text(self.beside.model)]
        return shape, self.time_ms, shared, rows

    def value(self, name: str) -> Any:
        """What all rows have in the column `name`, which is none of `rows`: as JSON has it."""
        if self.beside is not None and self.beside.splits:
            if name == MODEL_SPLIT.name:
                return list(self.beside.splits)
            if name == "metadata.last_model":
                return last_model_text(self.beside.model)
        shared = self.shape.shared(self.time_ms, self.elapsed_ns, self.dropped)
        return shared[name] if name in shared else self.shape.constants[name]

    def column(self, at: int) -> Array:
        """Column `at` of `shape.schema`, whole."""
        if (row := self.shape.row_at(at)) >= 0:
            return self.rows.column(row)
        field = self.shape.schema.field(at)
        return _repeated(self.value(field.name), field.type, self.rows.num_rows)


def challengers_batch(
    time_ms: int,
    inputs: pa.Table,
    others: Sequence[tuple[Other, pa.Table | None]],
    elapsed_ns: Sequence[int],
    request_id: str,
    origin: Origin,
) -> pa.RecordBatch:
    """What challengers gave for a request that was answered before: time, in.*, out_<label>.*, metadata.*."""
    rows = inputs.num_rows
    by_row = [*_named("in", inputs.schema), *(field for other, _ in others for field in _of_other(other))]
    arrays = [*_columns(inputs)]
    for other, table in others:
        arrays += _columns(table) if table is not None else [pa.nulls(rows, field.type) for field in other.schema]
    return _flat_batch(time_ms, by_row, arrays, (), elapsed_ns, request_id, origin, rows)


def failed_batch(
    time_ms: int, inputs: pa.Table | None, error: str, elapsed_ns: Sequence[int], request_id: str, origin: Origin
) -> pa.RecordBatch:
    """A failed request for the failures log: time, in.*, error, metadata.*. One row when no row could be read."""
    rows = 1 if inputs is None else inputs.num_rows
    by_row = _named("in", inputs.schema) if inputs is not None else []
    arrays = _columns(inputs) if inputs is not None else []
    return _flat_batch(time_ms, by_row, arrays, ((ERROR, error),), elapsed_ns, request_id, origin, rows)


def last_model_text(model: ModelSpec) -> str:
    """What `metadata.last_model` says."""
    return orjson.dumps({"model_name": model.name, "model_sha": model.sha}).decode()


def _flat_batch(
    time_ms: int,
    by_row: Sequence[Any],
    arrays: Sequence[Array],
    more: Sequence[tuple[Any, str]],
    elapsed_ns: Sequence[int],
    request_id: str,
    origin: Origin,
    rows: int,
) -> pa.RecordBatch:
    """Columns of rows between the time and what they share."""
    facts: tuple[Any, ...] = (*METADATA, REQUEST_ID)
    values: tuple[Any, ...] = (origin.last_model, origin.pipeline_version, elapsed_ns, (), origin.partition, request_id)
    fields = [TIME, *by_row, *(field for field, _ in more), *facts]
    columns = [
        pa.array(np.full(rows, time_ms, np.int64)).cast(TIME.type),
        *arrays,
        *(_repeated(value, field.type, rows) for field, value in more),
        *(_repeated(value, field.type, rows) for value, field in zip(values, facts, strict=True)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _repeated(value: Any, kind: Kind, rows: int) -> Array:
    scalar: Any = pa.scalar(value, kind)
    return pa.repeat(scalar, rows)


def _of_other(other: Other) -> list[Any]:
    """The fields of another result; those of a challenger may be null, for it may fail."""
    fields = _named(f"out_{other.label}", other.schema)
    return [field.with_nullable(True) for field in fields] if other.challenger else fields


def _beside(beside: Beside, shape: AnswerShape, rows: int) -> list[Array]:
    """The columns of `shape.rows` behind inputs and outputs: marks, then other results."""
    columns: list[Array] = []
    if beside.anomalies is not None:
        columns += [pa.array(beside.anomalies), *(pa.array(mark) for mark in beside.marks)]
    for at, fields in shape.others:
        table = beside.others[at]
        columns += _columns(table) if table is not None else [pa.nulls(rows, field.type) for field in fields]
    return columns


def _named(group: str, schema: pa.Schema) -> list[Any]:
    return [field.with_name(f"{group}.{field.name}") for field in schema]


def _columns(table: pa.Table) -> list[Array]:
    return [column.chunk(0) if column.num_chunks == 1 else column.combine_chunks() for column in table.columns]
