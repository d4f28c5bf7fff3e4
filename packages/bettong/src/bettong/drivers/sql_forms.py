"""Rows on their way into a database: each column in a type that it takes, nested ones as JSON text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Rows:
    """A stream of rows cast to the types that a database takes. It counts them, and keeps what went wrong: the error
    of a stream that is read by a library comes out of it in pieces."""

    def __init__(self, rows: pa.RecordBatchReader, schema: pa.Schema, keys: tuple[str, ...] = ()) -> None:
        self._rows, self._schema, self._keys = rows, schema, keys
        self.count = 0
        self.failed: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self.batches())

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._rows:
                cast = cast_batch(batch, self._schema)
                for key in self._keys:
                    if cast.column(key).null_count:
                        raise BadInput(f"The key column '{key}' holds nulls.", "Give every row its keys.")
                self.count += batch.num_rows
                yield cast
        except GeneratorExit:
            raise
        except BaseException as failed:
            self.failed = failed
            raise


def scalar_form(kind: pa.DataType) -> pa.DataType | None:
    """The type in which databases take a flat value: signed integers, times in microseconds. None for nested ones."""
    if types.is_uint8(kind):
        return pa.int16()
    if types.is_uint16(kind):
        return pa.int32()
    if types.is_uint32(kind) or types.is_uint64(kind):
        return pa.int64()
    if types.is_int8(kind):
        return pa.int16()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_large_string(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.binary()
    if types.is_date(kind):
        return pa.date32()
    if types.is_time(kind):
        return pa.time64("us")
    if types.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
        return kind
    if types.is_string(kind) or types.is_binary(kind) or types.is_decimal(kind):
        return kind
    return None


def schema_for(schema: pa.Schema, form: Callable[[pa.DataType], pa.DataType]) -> pa.Schema:
    return pa.schema([pa.field(field.name, form(field.type)) for field in schema])


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch's columns that `schema` names, in its types.

    Raises:
        BadInput: a value does not fit; column and types are named, the value is not.
    """
    columns = [cast_array(batch.column(field.name), field.type, field.name) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def cast_array(array: Any, kind: pa.DataType, name: str) -> Any:
    if array.type.equals(kind):
        return array
    try:
        if types.is_nested(array.type) and types.is_string(kind):
            return json_texts(array)
        if types.is_binary(array.type) and types.is_string(kind):
            return pc.cast(array, kind)
        if types.is_duration(array.type) and types.is_integer(kind):  # in microseconds, whatever it was in
            return pc.cast(pc.cast(array, pa.duration("us"), safe=False), kind)
        finer = (
            types.is_duration(array.type)
            or types.is_timestamp(array.type)
            or types.is_time(array.type)
            or types.is_decimal(array.type)
        )
        return pc.cast(array, kind, safe=not (finer and not types.is_integer(kind)))
    except (pa.ArrowException, NotImplementedError):
        raise BadInput(
            f"Column '{name}' is {array.type}, and its values do not fit {kind}, the type of that column there.",
            "Cast the column before writing it, or change the table.",
        ) from None


def json_texts(array: Any) -> Any:
    """Nested values as JSON, one text each; null stays null."""
    import orjson

    if types.is_map(array.type):
        values = [None if value is None else dict(value) for value in array.to_pylist()]
    else:
        values = array.to_pylist()
    option = orjson.OPT_NON_STR_KEYS
    texts = [None if v is None else orjson.dumps(v, default=_plain, option=option).decode() for v in values]
    return pa.array(texts, pa.string())


def _plain(value: object) -> object:
    import base64

    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
