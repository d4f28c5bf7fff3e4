"""Arrow tables as frames of raw buffers, and back: the parent's side of the worker socket.

The form is described in docs/design/architecture.md, and by `mac._frames` on the other side. What a worker sends is
not trusted: model code runs in that process. Its buffers are read by the schema that was agreed, never by what the
worker says of them, and checked before anyone sees them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.types as types

if TYPE_CHECKING:
    from collections.abc import Sequence

Tree = dict[str, Any]
Buffer = bytes | memoryview
Values = np.ndarray[Any, np.dtype[Any]]
Array = Any  # the stubs tell every class of array apart; here they are all handled alike

_INT64 = np.dtype("<i8")
_NUMBERS: dict[int, np.dtype[Any]] = {  # by Arrow's number of the type: asking for each kind of type takes longer
    kind.id: np.dtype(kind.to_pandas_dtype())
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
    )
}
_DAYS = np.dtype("<M8[D]")
_PAIR, _HALF_PAIR = struct.Struct("<qq"), struct.Struct("<ii")
_DAY_MS = 86_400_000
_MAX_INT32 = 2**31 - 1


class BadFrame(Exception):
    """What came over the socket is not the frame that was agreed."""


def type_tree(kind: pa.DataType) -> Tree:
    """How a type travels: agreed at load, and the form of each column. `of` names the type to people.

    Raises:
        ValueError: the type is not one that models can take (see `domain.schema`).
    """
    tree = _tree(kind)
    return {**tree, "of": str(kind)}


def _tree(kind: pa.DataType) -> Tree:
    if types.is_list(kind) or types.is_large_list(kind):
        return {"kind": "list", "child": type_tree(kind.value_type)}
    if types.is_fixed_size_list(kind):
        return {"kind": "fixed_list", "size": kind.list_size, "child": type_tree(kind.value_type)}
    if types.is_struct(kind):
        fields = [kind.field(i) for i in range(kind.num_fields)]
        return {"kind": "struct", "names": [f.name for f in fields], "children": [type_tree(f.type) for f in fields]}
    if types.is_string(kind) or types.is_large_string(kind):
        return {"kind": "utf8"}
    if types.is_binary(kind) or types.is_large_binary(kind):
        return {"kind": "binary"}
    if types.is_decimal128(kind):
        return {"kind": "fixed", "dtype": "|V16", "scale": kind.scale, "precision": kind.precision}
    return {"kind": "fixed", "dtype": _dtype(kind).str}


def _dtype(kind: pa.DataType) -> np.dtype[Any]:
    if (known := _NUMBERS.get(kind.id)) is not None:
        return known
    if types.is_date(kind):
        return _DAYS
    if types.is_timestamp(kind):
        return np.dtype(f"<M8[{kind.unit}]")
    if types.is_boolean(kind):
        return np.dtype("?")
    raise ValueError(f"Type {kind} cannot be sent to a model.")


# --- table to frame -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Encoded:
    """The columns of one frame. `buffers` are the body, padding included; they share the table's memory if they can."""

    columns: list[Tree]
    buffers: list[Buffer]
    body_bytes: int


def encode(rows: pa.Table) -> Encoded:
    """A table of any chunks and offsets as one frame's columns.

    Raises:
        ValueError: a column holds a null, or a type that cannot be sent.
    """
    writer = _Writer()
    columns = []
    for i, name in enumerate(rows.column_names):
        column = rows.column(i)
        try:
            columns.append(writer.column(column.chunk(0) if column.num_chunks == 1 else _one_chunk(column)))
        except ValueError as wrong:
            raise ValueError(f"Column '{name}': {wrong}") from None
    return Encoded(columns, writer.buffers, writer.size)


def _one_chunk(column: Any) -> Array:
    if column.num_chunks == 0:
        return pa.array([], column.type)
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


class _Writer:
    def __init__(self) -> None:
        self.buffers: list[Buffer] = []
        self.size = 0

    def column(self, array: Array) -> Tree:
        if array.null_count:
            raise ValueError("tensor values may not be null.")
        kind, n = array.type, len(array)
        if (dtype := _NUMBERS.get(kind.id)) is not None:
            if n:
                first = array.offset * dtype.itemsize
                self._put_bytes(memoryview(array.buffers()[1])[first : first + n * dtype.itemsize])
            return {"kind": "fixed", "dtype": dtype.str, "n": n}
        if types.is_list(kind) or types.is_large_list(kind):
            offsets = self._offsets(array, 8 if types.is_large_list(kind) else 4)
            first, last = int(offsets[0]), int(offsets[-1])
            child = array.values
            if first or last != len(child):
                child = child.slice(first, last - first)
            self._put(offsets - first if first else offsets)
            return {"kind": "list", "n": n, "child": self.column(child)}
        if types.is_fixed_size_list(kind):
            size = kind.list_size
            child = array.values.slice(array.offset * size, n * size)
            return {"kind": "fixed_list", "n": n, "size": size, "child": self.column(child)}
        if types.is_struct(kind):
            names = [kind.field(i).name for i in range(kind.num_fields)]
            children = [self.column(child) for child in array.flatten()]
            return {"kind": "struct", "n": n, "names": names, "children": children}
        if types.is_string(kind) or types.is_large_string(kind):
            return self._texts(array, "utf8", 8 if types.is_large_string(kind) else 4)
        if types.is_binary(kind) or types.is_large_binary(kind):
            return self._texts(array, "binary", 8 if types.is_large_binary(kind) else 4)
        return self._fixed(array, n)

    def _fixed(self, array: Array, n: int) -> Tree:
        kind = array.type
        if types.is_boolean(kind):
            self._put(array.to_numpy(zero_copy_only=False).astype("?", copy=False))
            return {"kind": "fixed", "dtype": "|b1", "n": n}
        if types.is_date(kind):
            days = _values(array, np.dtype("<i4")) if types.is_date32(kind) else _values(array, _INT64) // _DAY_MS
            self._put(days.astype(_INT64))
            return {"kind": "fixed", "dtype": _DAYS.str, "n": n}
        if types.is_decimal128(kind):
            self._put(_values(array, np.dtype("V16")))
            return {"kind": "fixed", "dtype": "|V16", "n": n, "scale": kind.scale}
        dtype = _dtype(kind)
        self._put(_values(array, dtype))
        return {"kind": "fixed", "dtype": dtype.str, "n": n}

    def _texts(self, array: Array, kind: str, width: int) -> Tree:
        offsets = self._offsets(array, width)
        first, last = int(offsets[0]), int(offsets[-1])
        self._put(offsets - first)
        data = array.buffers()[2]
        self._put(_view(data, np.dtype("u1"), last - first, first))
        return {"kind": kind, "n": len(array)}

    def _offsets(self, array: Array, width: int) -> Values:
        buffer = array.buffers()[1]
        if buffer is None or buffer.size == 0:  # an empty array may come without offsets
            return np.zeros(1, _INT64)
        return _view(buffer, np.dtype(f"<i{width}"), len(array) + 1, array.offset * width).astype(_INT64)

    def _put(self, values: Values) -> None:
        if values.nbytes:
            self._put_bytes(np.ascontiguousarray(values).view("u1").data)

    def _put_bytes(self, data: memoryview) -> None:
        padding = -len(data) % 8
        self.buffers.append(data)
        if padding:
            self.buffers.append(bytes(padding))
        self.size += len(data) + padding


def _values(array: Array, dtype: np.dtype[Any]) -> Values:
    """The values of a fixed-width array without a copy."""
    return _view(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)


def _view(buffer: object, dtype: np.dtype[Any], count: int, offset: int = 0) -> Values:
    """Values in an Arrow buffer, without a copy. Arrow may leave the buffer of no values out."""
    if count == 0:
        return np.empty(0, dtype)
    values: Values = np.frombuffer(cast("memoryview", buffer), dtype, count, offset)
    return values


# --- frame to table -------------------------------------------------------------------------------------------------


def decode(columns: Sequence[object], body: memoryview, schema: pa.Schema, rows: int) -> pa.Table:
    """The table that a worker answered with. It shares the memory of `body` where Arrow's form is the same.

    Raises:
        BadFrame: it is not a table of this schema and number of rows.
    """
    if not isinstance(columns, list) or len(columns) != len(schema):
        raise BadFrame(f"The answer should have {len(schema)} columns.")
    reader = _Reader(body)
    arrays = []
    for tree, field in zip(columns, schema, strict=True):
        try:
            array = reader.column(tree, field.type, rows)
            if field.type.id not in _NUMBERS:
                array.validate(full=True)
        except (KeyError, TypeError, ValueError, OverflowError, pa.ArrowException) as wrong:
            raise BadFrame(
                f"The answer's column '{field.name}' is not of type {field.type}: {type(wrong).__name__}."
            ) from wrong
        arrays.append(array)
    reader.finish()
    return pa.Table.from_arrays(arrays, schema=schema)


class _Reader:
    def __init__(self, body: memoryview) -> None:
        self._body = pa.py_buffer(body)
        self._at = 0

    def column(self, tree: Any, kind: pa.DataType, rows: int) -> Array:
        """`rows` is how many values must come: told by the request, or by the offsets above."""
        if tree["n"] != rows:
            raise ValueError("another number of rows")
        if (dtype := _NUMBERS.get(kind.id)) is not None:
            return pa.Array.from_buffers(kind, rows, [None, self._take(rows * dtype.itemsize)], 0)
        if types.is_list(kind) or types.is_large_list(kind):
            offsets, count = self._offsets(rows, np.dtype("<i8" if types.is_large_list(kind) else "<i4"))
            child = self.column(tree["child"], kind.value_type, count)
            return pa.Array.from_buffers(kind, rows, [None, offsets], 0, 0, [child])
        if types.is_fixed_size_list(kind):
            child = self.column(tree["child"], kind.value_type, rows * kind.list_size)
            return pa.Array.from_buffers(kind, rows, [None], 0, 0, [child])
        if types.is_struct(kind):
            children = [self.column(tree["children"][i], kind.field(i).type, rows) for i in range(kind.num_fields)]
            return pa.Array.from_buffers(kind, rows, [None], 0, 0, children)
        if types.is_string(kind) or types.is_binary(kind):
            offsets, count = self._offsets(rows, np.dtype("<i4"))
            return pa.Array.from_buffers(kind, rows, [None, offsets, self._take(count)], 0)
        if types.is_large_string(kind) or types.is_large_binary(kind):
            offsets, count = self._offsets(rows, _INT64)
            return pa.Array.from_buffers(kind, rows, [None, offsets, self._take(count)], 0)
        return self._fixed(kind, rows)

    def _fixed(self, kind: pa.DataType, rows: int) -> Array:
        if types.is_boolean(kind):
            return pa.array(_view(self._take(rows), np.dtype("u1"), rows) != 0)
        if types.is_date(kind):
            days = _view(self._take(rows * 8), _INT64, rows)
            if types.is_date64(kind):
                return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer((days * _DAY_MS).data)], 0)
            return pa.array(days).cast(pa.int32()).view(kind)
        width = 16 if types.is_decimal128(kind) else _dtype(kind).itemsize
        return pa.Array.from_buffers(kind, rows, [None, self._take(rows * width)], 0)

    def _offsets(self, rows: int, dtype: np.dtype[Any]) -> tuple[pa.Buffer, int]:
        buffer = self._take((rows + 1) * 8)
        if rows == 1:
            first, last = _PAIR.unpack(buffer)
            if first != 0 or last < 0:
                raise ValueError("offsets that go back")
            if dtype == _INT64:
                return buffer, last
            if last > _MAX_INT32:
                raise OverflowError("more than 2 GiB in one column; declare a large type")
            return pa.py_buffer(_HALF_PAIR.pack(0, last)), last
        offsets = _view(buffer, _INT64, rows + 1)
        if offsets[0] != 0 or bool((offsets[1:] < offsets[:-1]).any()):
            raise ValueError("offsets that go back")
        last = int(offsets[-1])
        if dtype == _INT64:
            return buffer, last
        if last > _MAX_INT32:
            raise OverflowError("more than 2 GiB in one column; declare a large type")
        return pa.py_buffer(offsets.astype(dtype).data), last

    def _take(self, size: int) -> pa.Buffer:
        if size > self._body.size - self._at:
            raise ValueError("too few bytes")
        taken = self._body.slice(self._at, size)
        self._at += size + -size % 8
        return taken

    def finish(self) -> None:
        if self._at != self._body.size:
            raise BadFrame(f"The answer has {self._body.size} bytes of columns where {self._at} were expected.")
