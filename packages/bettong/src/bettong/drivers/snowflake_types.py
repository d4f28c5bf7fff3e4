"""Snowflake's types and Arrow's: what is read as what, in which form rows are loaded, and how they become columns."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from bettong.drivers.arrow_forms import plain_type
from bettong.drivers.snowflake_sql import shown
from bettong.drivers.sql_forms import scalar_form
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

DIGITS = 38  # of a NUMBER
_FLAT: dict[str, Any] = {
    "REAL": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "BINARY": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP_NTZ": pa.timestamp("us"),
    "TIMESTAMP_LTZ": pa.timestamp("us", "UTC"),
    "TIMESTAMP_TZ": pa.timestamp("us", "UTC"),
}
# How a key is compared: texts and bytes by their bytes, whatever their collation; times to what is read of them.
_COMPARED = {
    "TEXT": "HEX_ENCODE({})",
    "BINARY": "HEX_ENCODE({})",
    "TIME": "CAST({} AS TIME(6))",
    "TIMESTAMP_NTZ": "CAST({} AS TIMESTAMP_NTZ(6))",
    "TIMESTAMP_LTZ": "CAST({} AS TIMESTAMP_LTZ(6))",
    "TIMESTAMP_TZ": "CAST({} AS TIMESTAMP_TZ(6))",
}
_FROM_TEXT = {
    "VARIANT": "PARSE_JSON({})",
    "ARRAY": "CAST(PARSE_JSON({}) AS ARRAY)",
    "OBJECT": "CAST(PARSE_JSON({}) AS OBJECT)",
    "GEOGRAPHY": "TO_GEOGRAPHY({})",
    "GEOMETRY": "TO_GEOMETRY({})",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or a result. `name` is as Snowflake keeps it, `shown` as rows have it."""

    name: str
    shown: str
    kind: str
    precision: int = 0
    scale: int = 0

    @property
    def declared(self) -> str:
        """Its type as SQL has it."""
        if self.kind == "FIXED":
            return f"NUMBER({self.precision or DIGITS},{self.scale})"
        if self.kind.startswith("TIME"):
            return f"{self.kind}({self.scale})"
        return {"TEXT": "VARCHAR", "REAL": "FLOAT"}.get(self.kind, self.kind)


def columns(described: Sequence[Any]) -> list[Column]:
    """What the client says of a result."""
    from snowflake.connector.constants import FIELD_ID_TO_NAME

    names = shown([column.name for column in described])
    return [
        Column(
            column.name,
            name,
            str(FIELD_ID_TO_NAME.get(column.type_code, "TEXT")),
            int(column.precision or 0),
            int(column.scale or 0),
        )
        for column, name in zip(described, names, strict=True)
    ]


def read_as(column: Column) -> Any:
    """The Arrow type of a column; what has none comes as text, JSON where it is nested."""
    if column.kind == "FIXED":
        return pa.decimal128(column.precision or DIGITS, column.scale) if column.scale else pa.int64()
    return _FLAT.get(column.kind, pa.string())


def schema(there: Sequence[Column]) -> pa.Schema:
    return pa.schema([pa.field(column.shown, read_as(column)) for column in there])


def read(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch in the types that all of them have: numbers come in as many bits as those of one part need.

    Raises:
        BadInput: a whole number does not fit 64 bits; the column is named.
    """
    arrays = []
    for array, field in zip(batch.columns, schema, strict=True):
        if types.is_nested(array.type):
            array = pa.array([None if v is None else str(v) for v in array.to_pylist()], pa.string())
        try:
            arrays.append(pc.cast(array, field.type, safe=types.is_integer(field.type)))
        except pa.ArrowException:
            raise BadInput(
                f"Column '{field.name}' holds a number that is too long for 64 bits.",
                "CAST it in the query, such as to FLOAT or VARCHAR.",
            ) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def is_ordered(column: Column) -> bool:
    """Whether its values are read just as Snowflake compares them."""
    return column.kind in ("FIXED", "TEXT") or column.kind in _FLAT


def compared(column: Column, value: str) -> str:
    """An expression of a key's type, as it is compared."""
    return _COMPARED.get(column.kind, "{}").format(value)


def behind(column: Column) -> str:
    """What stands for a value of a key that is bound as a text, or as it is."""
    return compared(column, f"CAST(? AS {column.declared})")


def bound(values: Sequence[object]) -> list[object] | None:
    """Values of parameters as the client takes them. Raises BadInput for one that it does not, by its place."""
    return [_parameter(place, value) for place, value in enumerate(values, 1)] or None


def _parameter(place: int, value: object) -> object:
    if isinstance(value, (Decimal, dt.time)) or (isinstance(value, dt.datetime) and value.tzinfo):
        return str(value)  # exact, and made what it is compared with
    if value is None or isinstance(value, (bool, int, float, str, bytes, dt.date)):
        return value
    raise BadInput(
        f"Parameter {place} of the query is a {type(value).__name__}, which Snowflake does not take.",
        "Pass numbers, texts, bytes, booleans, dates, times, decimals or None.",
    )


# Writing.


def loaded_as(kind: Any) -> Any:
    """The type in which rows are loaded: what Parquet and Snowflake understand in the same way, everything else as
    text."""
    flat = scalar_form(plain_type(kind))
    if flat is None:
        return pa.string()
    if types.is_integer(flat) or types.is_duration(flat):
        return pa.int64()
    if types.is_floating(flat):
        return pa.float64()
    return flat


def declared(kind: Any) -> str:
    """The type of a new column for values of an Arrow type."""
    kind = plain_type(kind)
    flat = scalar_form(kind)
    if flat is None:
        return "VARIANT"
    if types.is_decimal(flat):
        scale = max(0, flat.scale)
        digits = flat.precision - flat.scale + scale
        return f"NUMBER({digits},{scale})" if digits <= DIGITS else "VARCHAR"
    for holds, said in (
        (types.is_boolean, "BOOLEAN"),
        (types.is_integer, "NUMBER(38,0)"),
        (types.is_duration, "NUMBER(38,0)"),
        (types.is_floating, "FLOAT"),
        (types.is_binary, "BINARY"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME(6)"),
    ):
        if holds(flat):
            return said
    if types.is_timestamp(flat):
        return "TIMESTAMP_TZ(6)" if flat.tz else "TIMESTAMP_NTZ(6)"
    return "VARCHAR"


def staged(batch: pa.RecordBatch) -> list[Any]:
    """The columns of a batch, of `loaded_as` types, as they are put into a file: numbers, booleans and texts only."""
    return [_staged(array) for array in batch.columns]


def staged_type(kind: Any) -> str:
    """The column for values of a `loaded_as` type on their way."""
    for holds, said in (
        (types.is_boolean, "BOOLEAN"),
        (types.is_integer, "NUMBER(38,0)"),
        (types.is_floating, "FLOAT"),
    ):
        if holds(kind):
            return said
    return "VARCHAR"


def taken_over(kind: Any, column: Column, value: str) -> str:
    """What makes of a value on its way, whose rows are of `kind`, one of the column."""
    if types.is_binary(kind):
        return f"TO_BINARY({value}, 'HEX')" if column.kind == "BINARY" else f"HEX_DECODE_STRING({value})"
    if column.kind == "BINARY":
        return f"TO_BINARY({value}, 'UTF-8')"
    if column.kind in _FROM_TEXT and types.is_string(kind):
        return _FROM_TEXT[column.kind].format(value)
    if column.kind in ("TEXT", "VARIANT"):
        return value
    return f"CAST({value} AS {column.declared})"


def _staged(array: Any) -> Any:
    kind = array.type
    if types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_string(kind):
        return array
    if types.is_binary(kind):
        return pa.array([None if value is None else value.hex() for value in array.to_pylist()], pa.string())
    if types.is_timestamp(kind) and kind.tz:
        texts = pc.cast(pc.cast(array, pa.timestamp(kind.unit)), pa.string())
        return pc.binary_join_element_wise(texts, "+00:00", "")
    return pc.cast(array, pa.string())
