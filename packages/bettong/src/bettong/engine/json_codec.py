"""JSON bodies as Arrow tables of exactly the input schema.

A column is built level by level: the values of a list column are joined into one long list, that becomes the child
array, and the lengths become the offsets. A level is checked by the set of its values' Python types, so that good
data costs no loop of our own; only when a check fails is the culprit looked for.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from bettong.engine.arrow_lists import list_array, number_array
from bettong.engine.faults import Fault, check_columns, null_fault
from bettong.engine.json_numbers import LARGE_BYTES, decode_numbers, takes
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.arrow_types import Array, Kind

_DAY_MS = 86_400_000
_WORDS: dict[type, str] = {
    bool: "a boolean",
    int: "an integer",
    float: "a number with a decimal point",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def decode_records(body: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a pandas-records body: a list of objects, one key per column.

    Raises:
        BadInput: it is not JSON, has no row, lacks a column or has another one, or a value does not fit its type. The
            text names column and row and never holds a value.
    """
    if len(body) >= LARGE_BYTES and takes(schema) and (table := decode_numbers(body, schema)) is not None:
        return table
    return decode_any_records(body, schema)


def decode_any_records(body: bytes, schema: pa.Schema) -> pa.Table:
    """The same for any schema and any size."""
    rows = _parse(body)
    if not isinstance(rows, list):
        raise BadInput(f"The body is {_word(rows)}.", _records_hint(schema))
    if not rows:
        raise BadInput("The body has no row.", _records_hint(schema))
    if set(map(type, rows)) != {dict}:
        at = next(i for i, row in enumerate(rows) if type(row) is not dict)
        raise BadInput(f"Row {at} of the body is {_word(rows[at])}.", _records_hint(schema))
    names = schema.names
    try:
        if set(map(len, rows)) != {len(names)}:
            raise KeyError
        columns = [list(map(itemgetter(name), rows)) for name in names]
    except KeyError:
        for at, row in enumerate(rows):
            check_columns(list(row), names, f"Row {at} of the body")
        raise
    return _table(columns, schema)


def decode_columns(body: bytes, schema: pa.Schema) -> pa.Table:
    """The rows of a `format=wallaroo` body: an object with a list of values per column.

    Raises:
        BadInput: as `decode_records`, or the lists differ in length.
    """
    document = _parse(body)
    if not isinstance(document, dict):
        raise BadInput(f"The body is {_word(document)}.", "Send an object with a list of values per column.")
    check_columns(list(document), schema.names)
    columns = [document[name] for name in schema.names]
    for name, values in zip(schema.names, columns, strict=True):
        if not isinstance(values, list):
            raise BadInput(f"Column '{name}' is {_word(values)}.", "Send a list with one value per row.")
    lengths = {len(values) for values in columns}
    if len(lengths) > 1:
        raise BadInput(f"The columns have different lengths: {sorted(lengths)}.", "Send one value per row in each.")
    if lengths == {0}:
        raise BadInput("The body has no row.", "Send at least one value per column.")
    return _table(columns, schema)


def _parse(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as broken:
        raise BadInput(
            f"The body is not JSON: {broken.msg.partition(':')[0]} at line {broken.lineno}, column {broken.colno}.",
            "Send UTF-8 JSON; it knows no NaN or Infinity.",
        ) from None


def _table(columns: list[list[Any]], schema: pa.Schema) -> pa.Table:
    arrays = []
    for field, values in zip(schema, columns, strict=True):
        try:
            arrays.append(array_of(values, field.type))
        except Fault as fault:
            raise fault.as_bad_input(field.name) from None
    return pa.Table.from_arrays(arrays, schema=schema)


def _records_hint(schema: pa.Schema) -> str:
    return f"Send a non-empty list of objects, one per row, each with: {', '.join(schema.names)}."


def _word(value: object) -> str:
    return "null" if value is None else _WORDS[type(value)]


# --- one column -----------------------------------------------------------------------------------------------------


def array_of(values: list[Any], kind: Kind) -> Array:
    """An array of exactly `kind` from what a JSON parser makes.

    Integers are taken for floats (rounded when they must be), never the other way round; timestamps as milliseconds
    since the epoch or ISO text (no offset means UTC), dates as ISO text or the milliseconds of their midnight,
    decimals as text or number when they fit without rounding, binary as base64.

    Raises:
        Fault: naming the first value that does not fit.
    """
    return _READERS[kind.id](values, kind)


def _expect(values: list[Any], takes: tuple[type, ...], expected: str) -> set[type]:
    kinds = set(map(type, values))
    if kinds <= set(takes):
        return kinds
    at = next(i for i, value in enumerate(values) if type(value) not in takes)
    if values[at] is None:
        raise null_fault(at)
    raise Fault(at, f"found {_word(values[at])}, expected {expected}", f"Send {expected} in every row.")


def _booleans(values: list[Any], kind: Kind) -> Array:
    _expect(values, (bool,), "true or false")
    return pa.array(values, type=kind)


def _texts(values: list[Any], kind: Kind) -> Array:
    _expect(values, (str,), "a text")
    return pa.array(values, type=kind)


def _lists(values: list[Any], kind: Kind) -> Array:
    _expect(values, (list,), "a list")
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    return list_array(lengths, lambda: array_of(list(chain.from_iterable(values)), kind.value_type), kind)


def _structs(values: list[Any], kind: Kind) -> Array:
    names = [kind.field(i).name for i in range(kind.num_fields)]
    fields = ", ".join(names)
    _expect(values, (dict,), f"an object with {fields}")
    known = set(names)
    for at, value in enumerate(values):
        if value.keys() != known:
            lacking = [name for name in names if name not in value]
            what = f"the object lacks the field '{lacking[0]}'" if lacking else "the object has a field too many"
            raise Fault(at, what, f"Its fields are: {fields}.")
    children = []
    for i, name in enumerate(names):
        try:
            children.append(array_of(list(map(itemgetter(name), values)), kind.field(i).type))
        except Fault as fault:
            raise fault.within(fault.at, f"field '{name}'") from None
    return pa.StructArray.from_arrays(children, fields=[kind.field(i) for i in range(kind.num_fields)])


def _floats(values: list[Any], kind: Kind) -> Array:
    _expect(values, (int, float), "a number")
    numbers = np.array(values, dtype=np.float64)
    if (dtype := kind.to_pandas_dtype()) is not np.float64:
        # JSON has no infinity, so one that is here is made by the narrower type
        with np.errstate(over="ignore"):
            numbers = numbers.astype(dtype)
        if not np.isfinite(numbers).all():
            at = int(np.flatnonzero(~np.isfinite(numbers))[0])
            raise Fault(at, f"found a number out of the range of {kind}", "Send a smaller number or widen the schema.")
    return number_array(numbers, kind)


def _integers(values: list[Any], kind: Kind) -> Array:
    _expect(values, (int,), f"an integer ({kind})")
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, OverflowError):
        limits = np.iinfo(kind.to_pandas_dtype())
        at = next(i for i, value in enumerate(values) if not limits.min <= value <= limits.max)
        raise Fault(
            at,
            f"found an integer out of the range of {kind}",
            f"Send integers from {limits.min} to {limits.max}.",
        ) from None


def _timestamps(values: list[Any], kind: Kind) -> Array:
    expected = "milliseconds since the epoch or an ISO-8601 text, all rows alike"
    if _expect(values, (int, str), expected) <= {int}:
        return _moments(values, kind, expected)
    _expect(values, (type(values[0]),), expected)
    naive, zoned = pa.timestamp(kind.unit), pa.timestamp(kind.unit, "UTC")
    for parsed in (naive, zoned):
        try:
            return pa.array(values, pa.string()).cast(parsed).cast(pa.int64()).cast(kind)
        except pa.ArrowInvalid:
            continue
    ticks = []
    for at, text in enumerate(values):  # some with an offset and some without, or a broken one
        for parsed in (naive, zoned):
            try:
                ticks.append(pa.scalar(text, pa.string()).cast(parsed).cast(pa.int64()).as_py())
                break
            except pa.ArrowInvalid:
                continue
        else:
            raise Fault(at, f"found a text that is no {kind}", f"Send {expected}.")
    return pa.array(ticks, pa.int64()).cast(kind)


def _moments(values: list[int], kind: Kind, expected: str) -> Array:
    """Milliseconds as `kind`, exactly: a coarser unit takes only what it can hold."""
    try:
        return pa.array(values, pa.int64()).cast(pa.timestamp("ms", kind.tz)).cast(kind)
    except (pa.ArrowInvalid, OverflowError):
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[kind.unit]
        top = 2**63 * 1000 // per_second if per_second > 1000 else 2**63
        step = 1000 // per_second if per_second < 1000 else 1
        at = next((i for i, v in enumerate(values) if not -top < v < top or v % step), 0)
        raise Fault(at, f"found a time that {kind} cannot hold", f"Send {expected}.") from None


def _decimals(values: list[Any], kind: Kind) -> Array:
    return _each(values, kind, (int, float, str), _decimal, f"a number or text that fits {kind} without rounding")


def _binaries(values: list[Any], kind: Kind) -> Array:
    return _each(values, kind, (str,), _binary, "a text in base64")


def _dates(values: list[Any], kind: Kind) -> Array:
    return _each(values, kind, (int, str), _date, "a date as ISO text, or as the milliseconds of its midnight in UTC")


def _each(values: list[Any], kind: Kind, takes: tuple[type, ...], convert: Any, expected: str) -> Array:
    """Value by value, for types that JSON has no form of."""
    _expect(values, takes, expected)
    converted = []
    for at, value in enumerate(values):
        try:
            converted.append(convert(value, kind))
        except (ValueError, ArithmeticError):
            raise Fault(at, f"found {_word(value)} that is not one", f"Send {expected}.") from None
    return pa.array(converted, type=kind)


def _date(value: int | str, _: Kind) -> dt.date:
    if isinstance(value, str):
        return dt.date.fromisoformat(value)
    days, rest = divmod(value, _DAY_MS)
    if rest:
        raise ValueError("not a midnight")
    return dt.date(1970, 1, 1) + dt.timedelta(days=days)


def _decimal(value: float | str, kind: Kind) -> decimal.Decimal:
    number = decimal.Decimal(str(value))
    if not number.is_finite():
        raise ValueError("not a finite number")
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)  # it is finite
    if len(digits) + exponent > kind.precision - kind.scale:
        raise ValueError("too many digits")
    exact = decimal.Context(prec=kind.precision, traps=[decimal.Inexact, decimal.InvalidOperation])
    return number.quantize(decimal.Decimal(1).scaleb(-kind.scale), context=exact)


def _binary(value: str, _: Kind) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as broken:
        raise ValueError("not base64") from broken


_READERS: dict[int, Callable[[list[Any], Kind], Array]] = {
    kind.id: reader
    for reader, kinds in (
        (_booleans, (pa.bool_(),)),
        (_integers, (pa.int8(), pa.int16(), pa.int32(), pa.int64())),
        (_integers, (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())),
        (_floats, (pa.float16(), pa.float32(), pa.float64())),
        (_texts, (pa.string(), pa.large_string())),
        (_binaries, (pa.binary(), pa.large_binary())),
        (_timestamps, (pa.timestamp("ms"),)),
        (_dates, (pa.date32(), pa.date64())),
        (_decimals, (pa.decimal128(1),)),
        (_lists, (pa.list_(pa.null()), pa.large_list(pa.null()), pa.list_(pa.null(), 1))),
        (_structs, (pa.struct([]),)),
    )
    for kind in kinds
}
