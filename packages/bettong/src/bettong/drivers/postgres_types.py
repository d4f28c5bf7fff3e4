"""PostgreSQL's types and Arrow's: what is read as what, and what can be loaded as it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.types as types

from bettong.drivers import sql
from bettong.drivers.sql_forms import cast_array, scalar_form, schema_for

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME = b"POSTGRESQL:type"
_MODIFIER = b"POSTGRESQL:typmod"
_TEXTS = (b"text", b"varchar", b"bpchar", b"name")  # take a text without a cast, which would cut it off
_NO_ARROW = (b"money", b"oid", b"interval")  # come as something else than they say
_DECLARATIONS: tuple[tuple[Any, str], ...] = (
    (types.is_boolean, "boolean"),
    (types.is_int8, "smallint"),
    (types.is_int16, "smallint"),
    (types.is_uint8, "smallint"),
    (types.is_int32, "integer"),
    (types.is_uint16, "integer"),
    (types.is_integer, "bigint"),
    (types.is_float64, "double precision"),
    (types.is_floating, "real"),
    (types.is_date, "date"),
    (types.is_time, "time"),
    (types.is_duration, "interval"),
    (types.is_binary, "bytea"),
    (types.is_large_binary, "bytea"),
    (types.is_fixed_size_binary, "bytea"),
)


def plain_query(query: str, described: pa.Schema, numeric: str, order: str = "") -> str:
    """The query with casts by the server for every column that has no plain Arrow type. `order` follows it, and speaks
    of its columns as `q.c0` and so on."""
    casts = [_read_cast(column, numeric) for column in described]
    if not any(casts) and not order:
        return f"SELECT * FROM (\n{query}\n) AS q" if _may_be_wrapped(described) else query
    columns = [
        f"q.c{n}{f'::{cast}' if cast else ''} AS {sql.quoted((column.name,))}"
        for n, (column, cast) in enumerate(zip(described, casts, strict=True))
    ]
    names = ", ".join(f"c{n}" for n in range(len(casts)))
    return f"SELECT {', '.join(columns)} FROM (\n{query}\n) AS q({names}){order}"


def key_type(column: Any, numeric: str) -> str:
    """The cast of a value that was read of this column, back to what it is there. Raises BadInput when it is not read
    exactly."""
    name = _named(column).decode() or str(getattr(column.type, "type_name", ""))
    if types.is_list(column.type) or _read_cast(column, numeric).endswith("float8"):
        raise sql.inexact_key(column.name, "a list" if types.is_list(column.type) else name)
    return f"::{sql.quoted((name,))}" if name else ""


def with_decimals(rows: pa.RecordBatchReader, described: pa.Schema, numeric: str) -> pa.RecordBatchReader:
    """The rows with declared NUMERIC columns as decimals."""
    kinds = [_decimal(column) if numeric == "auto" else None for column in described]
    if not any(kinds):
        return rows
    schema = pa.schema(
        [
            pa.field(column.name, kind) if kind is not None else column
            for column, kind in zip(rows.schema, kinds, strict=True)
        ]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in rows:
            columns = [
                column if kind is None else cast_array(_storage(column), kind, field.name)
                for column, kind, field in zip(batch.columns, kinds, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def loaded_as(kind: pa.DataType) -> Any:
    """The type in which values of `kind` are loaded into a column of their own type."""
    flat = scalar_form(kind)
    if flat is not None:
        return flat
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = scalar_form(kind.value_type)
        if item is not None:
            return pa.list_(item)
    return pa.string()


def declaration(kind: Any) -> str:
    """The type of a column for values of `kind`."""
    if types.is_timestamp(kind):
        return "timestamptz" if kind.tz else "timestamp"
    if types.is_decimal(kind):
        return f"numeric({kind.precision}, {max(0, kind.scale)})"
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"{declaration(kind.value_type)}[]" if scalar_form(kind.value_type) is not None else "jsonb"
    if types.is_nested(kind):
        return "jsonb"
    return next((said for holds, said in _DECLARATIONS if holds(kind)), "text")


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows get into a table."""

    schema: pa.Schema  # the types that they are loaded in
    direct: bool  # whether they can be loaded into the table itself
    casts: dict[str, str] = field(default_factory=dict)  # by column, what the server has to do on the way from another


def plan(rows: pa.Schema, there: pa.Schema, declared: dict[str, str]) -> Plan:
    """The plan for a table whose columns ADBC describes as `there`. Loading is binary and checks nothing: a column is
    loaded in the very type of the table, or as what it is and cast by the server."""
    loads, casts, direct = [], {}, True
    natural = schema_for(rows, loaded_as)
    for own, column in zip(natural, there, strict=True):
        if _is_plain(column) and _fits(own.type, column.type):
            loads.append(pa.field(own.name, column.type))
            if (
                types.is_string(column.type) and _named(column) not in _TEXTS
            ):  # an enum takes text in COPY, not in INSERT
                casts[own.name] = declared[own.name]
            continue
        loads.append(own)
        if not (_is_numeric(column) and types.is_decimal(own.type)):
            casts[own.name] = declared[own.name]
            direct = False
    return Plan(pa.schema(loads), direct, casts)


def _fits(own: Any, there: Any) -> bool:
    """Whether Arrow can cast one to the other, value by value, with a check."""
    if types.is_list(own) != types.is_list(there):
        return False
    if types.is_list(own):
        return _fits(own.value_type, there.value_type)
    if own.equals(there):
        return True
    numbers = (types.is_integer, types.is_floating)
    if any(is_a(own) for is_a in numbers) or types.is_boolean(own) or types.is_decimal(own):
        return any(is_a(there) for is_a in numbers) or types.is_string(there)
    if types.is_string(own):
        return not types.is_binary(there) and not types.is_boolean(there)
    return types.is_temporal(own) and types.is_temporal(there) and not types.is_duration(own)


def _read_cast(column: Any, numeric: str) -> str:
    if _is_numeric(column):
        if numeric == "text":
            return "text"
        return "" if numeric == "auto" and _decimal(column) is not None else "float8"
    if types.is_list(column.type) and _is_numeric(column.type.value_field):
        return "text[]" if numeric == "text" else "float8[]"
    if _is_plain(column):
        return ""
    name = _named(column)
    if name == b"money":
        return "numeric::float8"
    if name == b"oid":
        return "int8"
    return "text[]" if types.is_list(column.type) else "text"


def _is_plain(column: Any) -> bool:
    if types.is_list(column.type):
        return _is_plain(column.type.value_field)
    name = _named(column)
    # An enum or another type without a name of ours may come as text or bytes: its extension tells.
    return not isinstance(column.type, pa.BaseExtensionType) and name not in _NO_ARROW


def _is_numeric(column: Any) -> bool:
    return _named(column) == b"numeric" or getattr(column.type, "type_name", "") == "numeric"


def _decimal(column: Any) -> pa.DataType | None:
    """The decimal type of a NUMERIC that was declared with a precision that Arrow can hold."""
    modifier = int((column.metadata or {}).get(_MODIFIER, b"-1"))
    if not _is_numeric(column) or modifier < 4:
        return None
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (modifier - 4) & 0x7FF
    return pa.decimal128(precision, scale) if 0 < precision <= 38 and scale <= precision else None


def _may_be_wrapped(described: pa.Schema) -> bool:
    """A result without a column cannot be a table."""
    return len(described) > 0


def _named(column: Any) -> bytes:
    return bytes((column.metadata or {}).get(_NAME, b""))


def _storage(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array
