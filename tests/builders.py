"""Builders fill in what a test is not about."""

from __future__ import annotations

import zipfile
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from bettong.domain.connections import Connection
from bettong.domain.logs import LogShape
from bettong.domain.models import NewModelVersion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def python_model_zip(path: Path, code: str, requirements: str = "", **more: str) -> Path:
    """Zip a Python step: `code` as step.py, its requirements, and other files by name (`data_txt` is data.txt)."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("step.py", code)
        archive.writestr("requirements.txt", requirements)
        for name, content in more.items():
            archive.writestr(name.replace("_", "."), content)
    return path


def connection(name: str = "warehouse", *, type: str = "HTTP", created_by: str = "u-ann") -> Connection:
    """A connection that no store has seen yet."""
    return Connection(str(uuid4()), name, type, created_by, datetime.now(UTC))


def new_model_version(name: str = "forecast", *, workspace_id: int = 1, sha: str = "ab" * 32) -> NewModelVersion:
    """What an upload of a Python model says about itself."""
    return NewModelVersion(
        name=name,
        workspace_id=workspace_id,
        visibility="private",
        framework="python",
        python_version="3.11",
        requirements=("statsmodels==0.14.1",),
        arch="x86",
        accel="none",
        file_name="forecast.zip",
        file_size=2**33,
        sha=sha,
        input_schema=b"in",
        output_schema=b"out",
    )


def log_rows(times_ms: Sequence[int], numbers: Sequence[int] | None = None, output: str = "forecast") -> pa.RecordBatch:
    """Rows of an inference log, one per time; `numbers` (else 0, 1, …) stand in `in.number` and tell rows apart."""
    numbers = range(len(times_ms)) if numbers is None else numbers
    schema = pa.schema(
        [
            pa.field("time", pa.timestamp("ms")),
            pa.field("in.number", pa.int64()),
            pa.field("in.tensor", pa.list_(pa.float32())),
            pa.field(f"out.{output}", pa.list_(pa.field("inner", pa.float32(), nullable=False)), nullable=False),
            pa.field("anomaly.count", pa.uint32(), nullable=False),
            pa.field("metadata.last_model", pa.string()),
            pa.field("metadata.elapsed", pa.list_(pa.uint64())),
            pa.field("metadata.dropped", pa.list_(pa.string())),
        ]
    )
    columns = [
        pa.array(times_ms, pa.timestamp("ms")),
        pa.array(numbers, pa.int64()),
        pa.array([[float(n)] * 3 for n in numbers], schema.field(2).type),
        pa.array([[float(n)] for n in numbers], schema.field(3).type),
        pa.array([0] * len(times_ms), pa.uint32()),
        pa.array(["{}"] * len(times_ms)),
        pa.array([[1, 2]] * len(times_ms), schema.field(6).type),
        pa.array([[]] * len(times_ms), schema.field(7).type),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def request_rows(numbers: Sequence[int], *, partition: str = "engine-a") -> tuple[LogShape, list[Any], pa.RecordBatch]:
    """A shape, its shared values, and rows that tell themselves by `numbers`: what `append_request` takes."""
    by_row = pa.schema(
        [
            pa.field("in.number", pa.int64()),
            pa.field("in.tensor", pa.list_(pa.float32())),
            pa.field("out.price", pa.list_(pa.field("inner", pa.float32(), nullable=False)), nullable=False),
        ]
    )
    schema = pa.schema(
        [
            pa.field("time", pa.timestamp("ms"), nullable=False),
            *by_row,
            pa.field("anomaly.count", pa.uint32(), nullable=False),
            pa.field("metadata.elapsed", pa.list_(pa.uint64()), nullable=False),
            pa.field("metadata.dropped", pa.list_(pa.string()), nullable=False),
            pa.field("metadata.partition", pa.string(), nullable=False),
            pa.field("metadata.request_id", pa.string(), nullable=False),
        ]
    )
    shape = LogShape(
        schema,
        {"anomaly.count": 0, "metadata.partition": partition},
        ("metadata.elapsed", "metadata.dropped", "metadata.request_id"),
        by_row,
    )
    columns = [
        pa.array(numbers, pa.int64()),
        pa.array([[float(n), float("nan"), None] for n in numbers], by_row.field(1).type),
        pa.array([[float(n)] for n in numbers], by_row.field(2).type),
    ]
    shared: list[Any] = [[2**64 - 1, len(numbers)], ["in.image"], f"ü-{numbers[0]}"]
    return shape, shared, pa.RecordBatch.from_arrays(columns, schema=by_row)


def whole_rows(shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> pa.RecordBatch:
    """What a reader of the log gets for the rows of one request."""
    values = {**shape.constant, **dict(zip(shape.shared, shared, strict=True)), "time": time_ms}
    columns = [
        pa.array([values[field.name]] * rows.num_rows, field.type) if field.name in values else rows.column(field.name)
        for field in shape.schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=shape.schema)
