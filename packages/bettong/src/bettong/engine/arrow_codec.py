"""Arrow bodies as tables of exactly the input schema, and answers as Arrow bodies.

The bytes come from anyone: they are validated in full before anything looks at them, and types that can stand for
more data than they hold (dictionaries, run lengths, views) are bounded or refused before they are unfolded.
"""

from __future__ import annotations

import struct
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.engine.arrow_bounds import check_unpacked_size
from bettong.engine.arrow_lists import is_list, list_array, list_bounds, list_values
from bettong.engine.faults import Fault, check_columns, null_fault
from bettong.errors import BadInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.arrow_types import Array, Kind

FILE_MAGIC, FILE_MAGIC_PADDED = b"ARROW1", 8
_HINT = "Send an Arrow IPC file (pyarrow.ipc.new_file) or stream of the pipeline's columns."


def decode_arrow(body: bytes, schema: pa.Schema, *, max_unpacked_bytes: int) -> pa.Table:
    """The rows of an Arrow IPC file or stream. Columns may come in any order and are cast where nothing is lost.

    Raises:
        TooLarge: it unpacks to more than `max_unpacked_bytes`.
        BadInput: it is not Arrow, has no row, lacks a column or has another one, or a value does not fit its type.
    """
    table = read_arrow(body, max_unpacked_bytes)
    check_columns(table.column_names, schema.names)
    if table.num_rows == 0:
        raise BadInput("The body has no row.", "Send at least one row.")
    return fit_columns(table, schema, max_unpacked_bytes)


def fit_columns(table: pa.Table, schema: pa.Schema, max_unpacked_bytes: int) -> pa.Table:
    """The columns that `schema` names, all of which are there, in exactly its types.

    Raises:
        BadInput: a value does not fit its type.
    """
    arrays = []
    for field in schema:
        try:
            arrays.append(_fit(_whole(table.column(field.name)), field.type, max_unpacked_bytes))
        except Fault as fault:
            raise fault.as_bad_input(field.name) from None
    return pa.Table.from_arrays(arrays, schema=schema)


def encode_arrow(batch: pa.RecordBatch, *, stream: bool = False) -> memoryview:
    """One record batch as an Arrow IPC file, or as a stream."""
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return memoryview(sink.getvalue()).cast("B")


def read_arrow(body: bytes, max_unpacked_bytes: int) -> pa.Table:
    """The rows of an Arrow IPC file or stream as they came, with nothing in them that must not be believed.

    Raises:
        BadInput: it is not Arrow.
        TooLarge: it unpacks to more than `max_unpacked_bytes`.
    """
    if not body:
        raise BadInput("The body is empty.", _HINT)
    try:
        buffer, batches = pa.py_buffer(body), None
        if body.startswith(FILE_MAGIC):
            batches = pa.ipc.open_file(buffer).num_record_batches
            # read as the stream that a file holds: what the size check saw is then what is read
            buffer = buffer.slice(FILE_MAGIC_PADDED)
        check_unpacked_size(buffer, max_unpacked_bytes)
        read = list(reader := pa.ipc.open_stream(buffer))
        if batches is not None and len(read) != batches:
            raise ValueError("the table of contents tells of other batches")
        table = pa.Table.from_batches(read, schema=reader.schema)
        table.validate(full=True)  # offsets and lengths from outside must not be believed
    except (pa.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError, struct.error):
        raise BadInput("The body is not a readable Arrow file or stream.", _HINT) from None
    return table


def _whole(column: pa.ChunkedArray[Any]) -> Array:
    if column.num_chunks == 1:
        return column.chunk(0)  # joining one chunk copies it
    combined = column.combine_chunks()
    if not isinstance(combined, pa.ChunkedArray):
        return combined
    if combined.num_chunks == 1:
        return combined.chunk(0)
    raise Fault(0, "found more text than one column holds", "Send fewer rows in one request.")


# --- one column -----------------------------------------------------------------------------------------------------


def _fit(array: Array, kind: Kind, max_bytes: int) -> Array:
    """`array` as exactly `kind`; Fault names the first value that does not fit."""
    if array.type.equals(kind, check_metadata=True) and _is_plain(array):
        return array  # over the memory of the body: 10,000 rows of 18 floats need no copy
    if pa.types.is_dictionary(array.type):
        array = _unfold(array, max_bytes)
    if array.null_count:
        raise null_fault(int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0]))
    if is_list(kind) and is_list(array.type):
        if (sizes := _tensor_sizes(kind)) and not is_list(array.type.value_type):
            return _fit_flat(array, kind, sizes, max_bytes)
        return _fit_lists(array, kind, max_bytes)
    if pa.types.is_struct(kind) and pa.types.is_struct(array.type):
        return _fit_structs(array, kind, max_bytes)
    if array.type == kind:
        return array
    for source, target, safe in _CASTS:
        if source(array.type) and target(kind):
            return _cast(array, kind, safe=safe)
    raise Fault(0, f"found the type {_short(array.type)}, expected {kind}", "Cast the column to the expected type.")


def _is_plain(array: Array) -> bool:
    """Whether there is no null at any level, and nothing in the memory but the values: then it is as if made here."""
    if array.null_count or array.offset:
        return False
    if pa.types.is_struct(array.type):
        return all(_is_plain(array.field(at)) for at in range(array.type.num_fields))
    if not is_list(array.type):
        return True
    bounds = list_bounds(array)
    return bounds[0] == 0 and bounds[-1] == len(array.values) and _is_plain(array.values)


def _cast(array: Array, kind: Kind, *, safe: bool) -> Array:
    try:
        cast = array.cast(kind, safe=safe)
    except pa.ArrowInvalid:
        at = next((i for i in range(len(array)) if not _casts(array[i], kind)), 0)
        raise Fault(at, f"found a value out of the range of {kind}", "Send values that fit the schema.") from None
    if pa.types.is_floating(kind):
        lost = np.isinf(_numbers(cast)) & np.isfinite(_numbers(array))
        if lost.any():
            at = int(np.flatnonzero(lost)[0])
            raise Fault(at, f"found a number out of the range of {kind}", "Send a smaller number or widen the schema.")
    return cast


def _casts(value: pa.Scalar[Any], kind: Kind) -> bool:
    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _numbers(array: Array) -> np.ndarray[Any, Any]:
    numbers: np.ndarray[Any, Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def _is_text(kind: Kind) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_bytes(kind: Kind) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


# (from, to, whether Arrow checks that nothing is lost); anything else is another type, not another width
_CASTS: tuple[tuple[Callable[[Kind], bool], Callable[[Kind], bool], bool], ...] = (
    (pa.types.is_integer, pa.types.is_integer, True),
    (pa.types.is_integer, pa.types.is_floating, False),  # rounding is allowed, as for JSON
    (pa.types.is_floating, pa.types.is_floating, False),  # overflow is looked for afterwards
    (_is_text, _is_text, True),
    (_is_bytes, _is_bytes, True),
    (pa.types.is_timestamp, pa.types.is_timestamp, True),
    (pa.types.is_date, pa.types.is_date, True),
    (pa.types.is_date, pa.types.is_timestamp, True),
    (pa.types.is_decimal, pa.types.is_decimal, True),
)


def _fit_lists(array: Array, kind: Kind, max_bytes: int) -> Array:
    bounds = list_bounds(array)
    values = list_values(array, bounds)
    return list_array(np.diff(bounds).astype(np.int64), lambda: _fit(values, kind.value_type, max_bytes), kind)


def _tensor_sizes(kind: Kind) -> list[int]:
    """The sizes of lists in lists when all are fixed, else none: such a value may come as one flat list."""
    sizes = []
    while pa.types.is_fixed_size_list(kind):
        sizes.append(kind.list_size)
        kind = kind.value_type
    return sizes if len(sizes) > 1 and not is_list(kind) else []


def _fit_flat(array: Array, kind: Kind, sizes: list[int], max_bytes: int) -> Array:
    """Flat lists of all values of a tensor, the last dimension running fastest, as lists in lists."""
    bounds, whole = list_bounds(array), prod(sizes)
    if (wrong := np.flatnonzero(np.diff(bounds) != whole)).size:
        at = int(wrong[0])
        raise Fault(
            at,
            f"found a flat list of {int(bounds[at + 1] - bounds[at])} values, expected {whole}",
            f"Send {whole} values, or lists of {' × '.join(map(str, sizes))}.",
        )
    kinds = [kind]
    while is_list(kinds[-1].value_type):
        kinds.append(kinds[-1].value_type)
    try:
        fitted = _fit(list_values(array, bounds), kinds[-1].value_type, max_bytes)
    except Fault as fault:
        row, item = divmod(fault.at, whole)
        raise fault.within(row, f"item {item}") from None
    made: Any = pa.FixedSizeListArray
    for level in reversed(kinds):
        fitted = made.from_arrays(fitted, type=level)
    return fitted


def _fit_structs(array: Array, kind: Kind, max_bytes: int) -> Array:
    names = [kind.field(i).name for i in range(kind.num_fields)]
    found = [array.type.field(i).name for i in range(array.type.num_fields)]
    if sorted(found) != sorted(names):
        raise Fault(0, "found an object with other fields", f"Its fields are: {', '.join(names)}.")
    parts = dict(zip(found, array.flatten(), strict=True))
    children = []
    for i, name in enumerate(names):
        try:
            children.append(_fit(parts[name], kind.field(i).type, max_bytes))
        except Fault as fault:
            raise fault.within(fault.at, f"field '{name}'") from None
    return pa.StructArray.from_arrays(children, fields=[kind.field(i) for i in range(kind.num_fields)])


def _unfold(array: Array, max_bytes: int) -> Array:
    """The values themselves, unless few words would become more than `max_bytes` of text."""
    words = array.dictionary
    if not (_is_text(words.type) or _is_bytes(words.type) or pa.types.is_primitive(words.type)):
        raise Fault(0, f"found a dictionary of {_short(words.type)}", "Send the column's values as they are.")
    if (_is_text(words.type) or _is_bytes(words.type)) and not pa.types.is_fixed_size_binary(words.type):
        bytes_ = pc.sum(pc.binary_length(words).cast(pa.int64()).take(array.indices)).as_py() or 0
    else:
        bytes_ = len(array) * (words.type.bit_width // 8)
    if bytes_ > max_bytes:
        raise TooLarge(f"A dictionary column unpacks to {bytes_} bytes.", f"At most {max_bytes} are taken.")
    return array.dictionary_decode()


def _short(kind: Kind) -> str:
    return str(kind) if len(str(kind)) <= 80 else f"{str(kind)[:77]}..."
