"""BigQuery's types and Arrow's: what is read as what, in which type rows are loaded, and how the load fits a table."""

from __future__ import annotations

import base64
import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from bettong.drivers.arrow_forms import plain_type
from bettong.drivers.sql_forms import scalar_form
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Field = dict[str, Any]  # of a table's schema, as the REST API writes it

NUMERIC, BIGNUMERIC = pa.decimal128(38, 9), pa.decimal256(76, 38)
_FLAT: dict[str, Any] = {
    "INTEGER": pa.int64(),
    "INT64": pa.int64(),
    "FLOAT": pa.float64(),
    "FLOAT64": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "BOOL": pa.bool_(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIME": pa.time64("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "NUMERIC": NUMERIC,
    "BIGNUMERIC": BIGNUMERIC,
}
# Loaded as text, and made what the column is by BigQuery itself.
_FROM_TEXT = {
    "JSON": "PARSE_JSON({})",
    "GEOGRAPHY": "ST_GEOGFROMTEXT({})",
    "INTERVAL": "CAST({} AS INTERVAL)",
    "RANGE": "CAST({} AS RANGE<{inner}>)",
}


def read_as(field: Field) -> Any:
    """The Arrow type of a column; what has none comes as text."""
    if field.get("mode") == "REPEATED":
        return pa.list_(read_as({**field, "mode": "NULLABLE"}))
    kind = field["type"]
    if kind in ("RECORD", "STRUCT"):
        return pa.struct([pa.field(part["name"], read_as(part)) for part in field["fields"]])
    if kind in ("NUMERIC", "BIGNUMERIC") and field.get("precision"):
        precision, scale = int(field["precision"]), int(field.get("scale") or 0)
        return (pa.decimal128 if kind == "NUMERIC" else pa.decimal256)(precision, scale)
    return _FLAT.get(kind, pa.string())


def shown(field: Field) -> str:
    """The type of a column as SQL has it."""
    kind = str(field["type"])
    return f"ARRAY<{kind}>" if field.get("mode") == "REPEATED" else kind


def is_ordered(kind: str) -> bool:
    """Whether values of a type are read just as BigQuery compares them."""
    return kind in _FLAT or kind == "STRING"


def loaded_as(kind: Any) -> Any:
    """The type in which BigQuery takes values of `kind`; what it has no columns for becomes JSON text."""
    kind = plain_type(kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = loaded_as(kind.value_type)
        nested = types.is_nested(kind.value_type) and not types.is_struct(item)
        return pa.string() if nested else pa.list_(item)
    if types.is_struct(kind) and kind.num_fields:
        return pa.struct([pa.field(part.name, loaded_as(part.type)) for part in kind])
    flat = scalar_form(kind)
    if flat is None:
        return pa.string()
    if types.is_integer(flat) or types.is_duration(flat):
        return pa.int64()
    if types.is_floating(flat):
        return pa.float64()
    if types.is_decimal(flat):
        small = flat.scale <= NUMERIC.scale and flat.precision - flat.scale <= NUMERIC.precision - NUMERIC.scale
        return pa.decimal128(flat.precision, max(0, flat.scale)) if small else BIGNUMERIC
    return flat


def declared(name: str, kind: Any) -> Field:
    """The column for values of a type that `loaded_as` gave."""
    if types.is_list(kind):
        return {**declared(name, kind.value_type), "mode": "REPEATED"}
    if types.is_struct(kind):
        return {"name": name, "type": "RECORD", "fields": [declared(part.name, part.type) for part in kind]}
    if types.is_decimal128(kind):
        whole = {"precision": str(kind.precision), "scale": str(kind.scale)} if not kind.equals(NUMERIC) else {}
        return {"name": name, "type": "NUMERIC", **whole}
    return {"name": name, "type": _said(kind)}


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows get into a table by way of another one: the types they are loaded in, the columns of that other table,
    and what stands for each column in the statement that takes them over."""

    schema: pa.Schema
    columns: list[Field]
    values: dict[str, str]


def plan(rows: pa.Schema, there: Sequence[Field], marked: Mapping[str, str]) -> Plan:
    """The plan for rows of which each column is one of `there`. `marked` are the names as SQL has them."""
    columns = {column["name"].lower(): column for column in there}
    schema, staged, values = [], [], {}
    for field in rows:
        column, name = columns[field.name.lower()], marked[field.name]
        template = _FROM_TEXT.get(column["type"]) if column.get("mode") != "REPEATED" else None
        if template is None:
            schema.append(pa.field(field.name, read_as(column)))
            staged.append(
                {**column, "name": field.name, "mode": "REPEATED" if column.get("mode") == "REPEATED" else ""}
            )
            values[field.name] = name
        else:
            inner = column.get("rangeElementType", {}).get("type", "")
            schema.append(pa.field(field.name, pa.string()))
            staged.append({"name": field.name, "type": "STRING"})
            values[field.name] = template.format(name, inner=inner)
    return Plan(pa.schema(schema), [_bare(column) for column in staged], values)


def without_null_lists(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with an empty list for each null one: BigQuery knows no other.

    Raises:
        BadInput: a list holds nulls; the column is named.
    """
    columns = [
        _filled(column, field.name) if types.is_nested(field.type) else column
        for column, field in zip(batch.columns, batch.schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def bound(values: Sequence[object]) -> list[dict[str, Any]]:
    """Parameters of a query, each with its type. Raises BadInput for a value that has none, by its place."""
    return [_parameter(place, value) for place, value in enumerate(values, 1)]


def from_json(rows: Sequence[Mapping[str, Any]], fields: Sequence[Field], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as the REST API writes them, `{"f": [{"v": …}, …]}`, TIMESTAMP in microseconds."""
    columns = [_column([row["f"][n]["v"] for row in rows], field) for n, field in enumerate(fields)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _said(kind: Any) -> str:
    if types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    for holds, said in (
        (types.is_boolean, "BOOLEAN"),
        (types.is_integer, "INTEGER"),
        (types.is_floating, "FLOAT"),
        (types.is_binary, "BYTES"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME"),
        (types.is_decimal, "BIGNUMERIC"),
    ):
        if holds(kind):
            return said
    return "STRING"


def _bare(column: Field) -> Field:
    """A column for rows on their way: it demands nothing, for the target does."""
    kept = ("name", "type", "precision", "scale", "maxLength", "rangeElementType")
    found = {name: column[name] for name in kept if column.get(name)}
    if column.get("fields"):
        found["fields"] = [_bare(part) for part in column["fields"]]
    return {**found, "mode": "REPEATED"} if column.get("mode") == "REPEATED" else found


def _filled(array: Any, name: str) -> Any:
    if types.is_struct(array.type):
        parts = [_filled(part, name) for part in array.flatten()]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(parts, fields=list(array.type), mask=mask)
    if not types.is_list(array.type) or len(array) == 0:
        return array
    values = _filled(array.flatten(), name)  # those of null lists are not among them
    if values.null_count:
        raise BadInput(f"Column '{name}' holds lists with nulls in them, which BigQuery does not keep.", "Fill them.")
    sizes = pc.fill_null(pc.list_value_length(array), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cast(pc.cumulative_sum(sizes), pa.int32())])
    return pa.ListArray.from_arrays(offsets, values, type=array.type)


def _parameter(place: int, value: object) -> dict[str, Any]:
    if isinstance(value, (list, tuple)):
        items = [_parameter(place, item) for item in value]
        kind = items[0]["parameterType"] if items else {"type": "STRING"}
        if any(item["parameterType"] != kind for item in items):
            raise BadInput(f"Parameter {place} of the query is a list of several types.", "Give each its own.")
        return {
            "parameterType": {"type": "ARRAY", "arrayType": kind},
            "parameterValue": {"arrayValues": [item["parameterValue"] for item in items]},
        }
    kind, text = _scalar(place, value)
    return {"parameterType": {"type": kind}, "parameterValue": {"value": text}}


def _scalar(place: int, value: object) -> tuple[str, str | None]:
    if value is None:
        return "STRING", None
    if isinstance(value, bool):
        return "BOOL", "true" if value else "false"
    if isinstance(value, int):
        return ("INT64" if -(2**63) <= value < 2**63 else "BIGNUMERIC"), str(value)
    if isinstance(value, float):
        return "FLOAT64", repr(value)
    if isinstance(value, Decimal):
        return ("NUMERIC" if -value.as_tuple().exponent <= NUMERIC.scale else "BIGNUMERIC"), f"{value:f}"  # type: ignore[operator]
    if isinstance(value, bytes):
        return "BYTES", base64.b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return ("TIMESTAMP" if value.tzinfo else "DATETIME"), value.isoformat(" " if value.tzinfo else "T")
    if isinstance(value, dt.date):
        return "DATE", value.isoformat()
    if isinstance(value, dt.time):
        return "TIME", value.isoformat()
    if isinstance(value, str):
        return "STRING", value
    raise BadInput(
        f"Parameter {place} of the query is a {type(value).__name__}, which BigQuery does not take.",
        "Pass numbers, texts, bytes, booleans, dates, times, decimals, lists of them or None.",
    )


def _column(values: list[Any], field: Field) -> Any:
    if field.get("mode") == "REPEATED":
        offsets = [0]
        for value in values:
            offsets.append(offsets[-1] + len(value or ()))
        items = [item["v"] for value in values for item in value or ()]
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), _column(items, {**field, "mode": "NULLABLE"}))
    kind = read_as(field)
    if types.is_struct(kind):
        parts = [
            _column([None if value is None else value["f"][n]["v"] for value in values], part)
            for n, part in enumerate(field["fields"])
        ]
        mask = pa.array([value is None for value in values], pa.bool_())
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    if types.is_binary(kind):
        return pa.array([None if value is None else base64.b64decode(value) for value in values], kind)
    if types.is_time(kind):  # Arrow casts no text to it
        return pa.array([None if value is None else dt.time.fromisoformat(value) for value in values], kind)
    texts = pa.array(values, pa.string())
    if types.is_timestamp(kind) and kind.tz:
        return pc.cast(pc.cast(texts, pa.int64()), kind)
    return texts if types.is_string(kind) else pc.cast(texts, kind)
