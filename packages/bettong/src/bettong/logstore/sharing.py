"""Records of rows that mostly say the same: what they share is written once, and given back to every row on reading.

    shape record:   length u32 | JSON {"constant": {column: value}, "shared": [column]} | Arrow schema message
    sharing batch:  length u32 | JSON [value of each shared column] | Arrow record batch message of the other columns
    sharing row:    length u32 | JSON [value of each shared column, [numbers of each other column]] | these numbers

The schema has all columns; `time` stands in the record's header. A shape holds for the batches and rows behind it, up
to the next shape or schema record. A sharing row is one row of numbers and lists of numbers, as they lie in memory
(little-endian): a batch of one row costs twice as much to write, its Arrow arrays not counted.
"""

from __future__ import annotations

import struct
from itertools import groupby
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
    RowForm = list[tuple[np.dtype[Any], int, int | None]]

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


def row_form(shape: LogShape) -> RowForm | None:
    """What a sharing row has for each column by row: type, dimensions, and the size of a list that has a fixed one.
    None when a column cannot be in one."""
    form: RowForm = []
    for field in shape.by_row:
        listed = _is_list(field.type)
        leaf = field.type.value_type if listed else field.type
        if not (pa.types.is_integer(leaf) or pa.types.is_floating(leaf)):
            return None
        size = field.type.list_size if pa.types.is_fixed_size_list(field.type) else None
        form.append((np.dtype(leaf.to_pandas_dtype()), 1 + listed, size))
    return form


def row_fits(form: RowForm, values: Sequence[NDArray[Any]]) -> bool:
    """Whether `values` are one row of that form."""
    if len(values) != len(form):
        return False
    for array, (dtype, dims, size) in zip(values, form, strict=True):
        shape = array.shape
        if array.dtype != dtype or len(shape) != dims or shape[0] != 1 or (size is not None and shape[1] != size):
            return False
    return True


def said_row(shared: Sequence[Any], values: Sequence[NDArray[Any]]) -> tuple[bytes, bytes]:
    """The payload of a sharing row, in two parts."""
    text = said_shared([*shared, [array.size for array in values]])
    return text, b"".join([array.tobytes() for array in values])


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


def rows_of(
    shape: LogShape,
    payloads: Sequence[bytes | memoryview],
    are_rows: Sequence[bool],
    counts: Ints,
    times: Ints,
    names: Sequence[str],
) -> pa.Table:
    """The rows of sharing batches and sharing rows, in order, with the columns `names`.

    Args:
        are_rows: which payloads are sharing rows.
        counts: rows of each payload, shape (payloads,).
        times: their time in epoch milliseconds, shape (payloads,).
    """
    parts = [_split(memoryview(payload)) for payload in payloads]
    wanted = pa.schema([shape.schema.field(name) for name in names])
    total = int(counts.sum())
    which = pa.array(np.repeat(np.arange(len(parts)), counts))
    shared = [orjson.loads(text) for text, _ in parts]
    by_row: pa.Table | None = None
    if not set(shape.by_row.names).isdisjoint(wanted.names):
        by_row = _by_row(shape.by_row, [body for _, body in parts], are_rows, shared)
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


def _by_row(
    schema: pa.Schema, bodies: Sequence[memoryview], are_rows: Sequence[bool], shared: Sequence[Any]
) -> pa.Table:
    """The columns that rows have of their own. Rows of one form that stand together are read in one go."""
    forms = [tuple(values[-1]) if row else None for row, values in zip(are_rows, shared, strict=True)]
    pieces = []
    for form, run in groupby(range(len(bodies)), key=forms.__getitem__):
        together = [bodies[at] for at in run]
        pieces.append(decode(schema, together) if form is None else _row_table(schema, form, together))
    return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()


def _row_table(schema: pa.Schema, sizes: Sequence[int], bodies: Sequence[memoryview]) -> pa.Table:
    count, at = len(bodies), 0
    rows = np.frombuffer(b"".join(bodies), np.uint8).reshape(count, len(bodies[0]))
    columns: list[Any] = []
    for field, size in zip(schema, sizes, strict=True):
        kind, listed = field.type, _is_list(field.type)
        leaf = kind.value_type if listed else kind
        width = size * np.dtype(leaf.to_pandas_dtype()).itemsize
        numbers = pa.py_buffer(rows[:, at : at + width].tobytes())
        array = pa.Array.from_buffers(leaf, count * size, [None, numbers], null_count=0)
        if listed:
            buffers: list[Any] = [None]
            if not pa.types.is_fixed_size_list(kind):
                offset = np.int64 if pa.types.is_large_list(kind) else np.int32
                buffers.append(pa.py_buffer((np.arange(count + 1) * size).astype(offset).tobytes()))
            array = pa.Array.from_buffers(kind, count, buffers, null_count=0, children=[array])
        columns.append(array)
        at += width
    return pa.Table.from_arrays(columns, schema=schema)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _split(payload: memoryview) -> tuple[memoryview, memoryview]:
    (length,) = _LENGTH.unpack_from(payload)
    start = _LENGTH.size
    return payload[start : start + length], payload[start + length :]
