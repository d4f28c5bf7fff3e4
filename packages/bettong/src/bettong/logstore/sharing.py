"""Records of rows that mostly say the same: what they share is written once, and given back to every row on reading.

    shape record:   length u32 | JSON {"constant": {column: value}, "shared": [column]} | Arrow schema message
    sharing batch:  length u32 | JSON [value of each shared column] | Arrow record batch message of the other columns

The schema has all columns; `time` stands in the record's header. A shape holds for the batches behind it, up to the
next shape or schema record.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from bettong.domain.logs import LogShape
from bettong.errors import BadInput
from bettong.logstore.columns import TIME_COLUMN
from bettong.logstore.segment import decode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

_LENGTH = struct.Struct("<I")


def said_shape(shape: LogShape) -> bytes:
    """The payload of a shape record."""
    document = {"constant": dict(shape.constant), "shared": shape.shared}
    return said_shared(document) + bytes(shape.schema.remove_metadata().serialize())


def said_shared(document: object) -> bytes:
    """The beginning of either payload."""
    text = orjson.dumps(document)
    return _LENGTH.pack(len(text)) + text


def read_shape(payload: memoryview) -> LogShape:
    """The shape of a shape record. Raises ValueError (pa.ArrowInvalid is one) or KeyError when it is none."""
    text, rest = _split(payload)
    document = orjson.loads(text)
    schema = pa.ipc.read_schema(pa.py_buffer(rest))
    return LogShape(schema, document["constant"], tuple(document["shared"]), by_row_of(schema, document))


def by_row_of(schema: pa.Schema, document: Any) -> pa.Schema:
    """The columns that `document`, with its `constant` and `shared` ones, leaves to each row."""
    said = {TIME_COLUMN, *document["constant"], *document["shared"]}
    return pa.schema([field for field in schema if field.name not in said])


def check_shape(shape: LogShape) -> None:
    """Raises BadInput when rows of this shape could not be read back as they are."""
    document = {"constant": shape.constant, "shared": shape.shared}
    said = [TIME_COLUMN, *shape.constant, *shape.shared]
    if sorted([*said, *shape.by_row.names]) != sorted(shape.schema.names):
        raise BadInput(
            "The log shape does not have each of its columns exactly once.",
            "Give every column of its schema as time, constant, shared or by row.",
        )
    if not shape.by_row.equals(by_row_of(shape.schema, document)):
        raise BadInput("The log shape has columns by row that its schema has otherwise.", "Take them from the schema.")


def rows_of(shape: LogShape, payloads: Sequence[bytes], counts: Ints, times: Ints, names: Sequence[str]) -> pa.Table:
    """The rows of sharing batches, in order, with the columns `names`.

    Args:
        counts: rows of each payload, shape (payloads,).
        times: their time in epoch milliseconds, shape (payloads,).
    """
    parts = [_split(memoryview(payload)) for payload in payloads]
    wanted = pa.schema([shape.schema.field(name) for name in names])
    total = int(counts.sum())
    which = pa.array(np.repeat(np.arange(len(parts)), counts))
    shared: list[Any] = []
    if not set(shape.shared).isdisjoint(wanted.names):
        shared = [orjson.loads(text) for text, _ in parts]
    by_row: pa.Table | None = None
    if not set(shape.by_row.names).isdisjoint(wanted.names):
        by_row = decode(shape.by_row, [batch for _, batch in parts])
    columns: list[Any] = []
    for field in wanted:
        if field.name == TIME_COLUMN:
            columns.append(pa.array(np.repeat(times, counts)).cast(field.type))
        elif field.name in shape.constant:
            columns.append(pa.repeat(pa.scalar(shape.constant[field.name], field.type), total))
        elif field.name in shape.shared:
            at = shape.shared.index(field.name)
            columns.append(pa.array([values[at] for values in shared], field.type).take(which))
        else:
            assert by_row is not None
            columns.append(by_row[field.name])
    return pa.Table.from_arrays(columns, schema=wanted)


def shared_bytes(shape: LogShape) -> int:
    """Roughly what constant and shared values add to each row that is read."""
    return len(orjson.dumps(dict(shape.constant))) + 32 * (len(shape.shared) + 1)


def _split(payload: memoryview) -> tuple[memoryview, memoryview]:
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size
    return payload[start : start + length], payload[start + length :]
