"""Columns as validations compute with them: numpy arrays beside a mask of what is there, in the types of polars.

Numbers follow polars 2: a number of the expression takes the type of the column that it meets, integers wrap, NaN
equals NaN and is greater than every other number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.engine.arrow_lists import is_list
from bettong.errors import BadInput

if TYPE_CHECKING:
    from bettong.engine.arrow_types import Array

Kind = Any  # a pa.DataType
NDArray = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {kind: np.dtype(kind.lower()) for kind in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32")}
DTYPES: dict[str, np.dtype[Any]] = {
    **_DTYPES,
    "UInt64": np.dtype(np.uint64),
    "Float32": np.dtype(np.float32),
    "Float64": np.dtype(np.float64),
    "Boolean": np.dtype(bool),
    "Date": np.dtype(np.int32),
    "Utf8": np.dtype(object),
}
_SAME: dict[Kind, str] = {
    **{getattr(pa, kind.lower())(): kind for kind in (*_DTYPES, "UInt64", "Float32", "Float64")},
    pa.bool_(): "Boolean",
    pa.string(): "Utf8",
}
SIGNED = ("Int8", "Int16", "Int32", "Int64")
UNSIGNED = ("UInt8", "UInt16", "UInt32", "UInt64")
FLOATS = ("Float32", "Float64")
PER_DAY = {"ms": 86_400_000, "us": 86_400_000_000, "ns": 86_400_000_000_000}
_UNITS = ("ms", "us", "ns")
_INTEGER = re.compile(r"[+-]?\d{1,20}")
_FLOAT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Value:
    """As many values as there are rows, or one for all of them.

    `kind` is a type of polars by name; "Datetime[us]" has its unit, "List" and "Struct" hold an Arrow array in `data`,
    and "Null" has nothing but nulls. `valid` is None when there is no null; a place that is not valid holds anything.
    `dynamic` numbers stand in the expression: they take the type of what they meet.
    """

    kind: str
    data: Any
    valid: NDArray | None = None
    dynamic: bool = False

    def __len__(self) -> int:
        return len(self.data)

    @property
    def there(self) -> NDArray:
        """Which values are no nulls."""
        if self.kind in ("List", "Struct"):
            return _valid_of(self.data)
        return np.ones(len(self.data), bool) if self.valid is None else self.valid

    @property
    def number(self) -> bool:
        return self.kind in DTYPES and self.kind not in ("Boolean", "Date", "Utf8")


def load(array: Array) -> Value:
    """A column, or the values of a list. Raises BadInput for types that validations do not take."""
    kind = array.type
    if (known := _SAME.get(kind)) is not None and not array.null_count:  # most columns: no kernel of pyarrow is asked
        return Value(known, array.to_numpy(zero_copy_only=False))
    if is_list(kind):
        return Value("List", array)
    if pa.types.is_struct(kind):
        return Value("Struct", array)
    if pa.types.is_null(kind):
        return nulls(len(array))
    valid = _valid_of(array) if array.null_count else None
    name, plain, filler = _plain(array, kind)
    if valid is not None:
        plain = plain.fill_null(filler)
    return Value(name, plain.to_numpy(zero_copy_only=False).astype(_dtype(name), copy=False), valid)


def nulls(count: int) -> Value:
    return Value("Null", np.zeros(count, bool), np.zeros(count, bool))


def picked(values: Array, places: NDArray, there: NDArray) -> Value:
    """`values[places]` where `there`, nulls elsewhere."""
    if is_list(values.type) or pa.types.is_struct(values.type):
        return load(values.take(pa.array(places, mask=~there)))
    found = load(values)
    if not len(found):
        return replace(found, data=np.zeros(len(places), _dtype(found.kind)), valid=np.zeros(len(places), bool))
    if there.all():
        return Value(found.kind, found.data[places], None if found.valid is None else found.valid[places])
    places = np.where(there, places, 0)
    valid = there if found.valid is None else there & found.valid[places]
    return Value(found.kind, found.data[places], valid)


def both_there(*values: Value) -> NDArray | None:
    """Where all of them are no nulls; None for everywhere."""
    masks = [v.valid for v in values if v.valid is not None]
    if not masks:
        return None
    together = masks[0]
    for mask in masks[1:]:
        together = together & mask
    return together


def spread(mask: NDArray | None, count: int) -> NDArray | None:
    """A mask of one, for all."""
    return mask if mask is None or len(mask) == count else np.broadcast_to(mask, (count,))


# --- types that meet --------------------------------------------------------------------------------------------------


def common(left: Value, right: Value) -> tuple[Value, Value]:
    """Both in the type that polars computes with when they meet. Raises BadInput for types that do not meet."""
    if "Null" in (left.kind, right.kind):
        kind = right.kind if left.kind == "Null" else left.kind
        return as_kind(left, kind), as_kind(right, kind)
    kind = _meeting(left, right)
    left, right = as_kind(left, kind), as_kind(right, kind)
    if left.dynamic != right.dynamic:  # together they are not, for only two numbers of the expression would be
        left, right = replace(left, dynamic=False), replace(right, dynamic=False)
    return left, right


def as_kind(value: Value, kind: str) -> Value:
    """A number, boolean, date or null in a type that holds it."""
    if value.kind == kind:
        return value
    if value.kind == "Null":
        if kind in ("List", "Struct"):
            raise BadInput("A null meets a list or a struct.", "Use is_null() instead.")
        return Value(kind, np.zeros(len(value), _dtype(kind)), np.zeros(len(value), bool))
    if kind.startswith("Datetime"):
        return Value(kind, _in_unit(value, _unit(kind)), value.valid)
    return Value(kind, value.data.astype(_dtype(kind)), value.valid, value.dynamic)


def supertype(left: str, right: str) -> str:
    """The type in which both numbers fit, or nearly."""
    if left == right:
        return left
    if left in FLOATS or right in FLOATS:
        narrow = {"Float32", "Int8", "Int16", "UInt8", "UInt16", "Boolean"}
        return "Float32" if {left, right} <= narrow else "Float64"
    for family in (SIGNED, UNSIGNED):
        if left in family and right in family:
            return max(left, right, key=family.index)
    if "Boolean" in (left, right):
        return right if left == "Boolean" else left
    signed, unsigned = (left, right) if left in SIGNED else (right, left)
    if unsigned == "UInt64":
        return "Float64"
    return SIGNED[max(SIGNED.index(signed), UNSIGNED.index(unsigned) + 1)]


def _meeting(left: Value, right: Value) -> str:
    if left.kind == right.kind and left.dynamic == right.dynamic:
        return left.kind
    for one, other in ((left, right), (right, left)):
        if one.kind.startswith("Datetime") and (other.kind == "Date" or other.kind.startswith("Datetime")):
            return max(one.kind, other.kind, key=lambda k: _UNITS.index(_unit(k)) if k != "Date" else -1)
    if not all(v.number or v.kind == "Boolean" for v in (left, right)):
        raise BadInput(f"A {left.kind} meets a {right.kind}.", "Cast one of them.")
    if left.dynamic == right.dynamic:
        return supertype(left.kind, right.kind)
    given, column = (left, right) if left.dynamic else (right, left)
    if given.kind == "Float64":
        return "Float32" if column.kind == "Float32" else "Float64"
    if column.kind in FLOATS:
        return column.kind
    number = int(given.data[0])
    if column.kind == "Boolean":
        return "Int32" if -(2**31) <= number < 2**31 else "Int64"
    return column.kind if _fits(number, column.kind) else supertype(column.kind, _smallest(number, column.kind))


def _fits(number: int, kind: str) -> bool:
    limits: Any = np.iinfo(DTYPES[kind])
    return int(limits.min) <= number <= int(limits.max)


def _smallest(number: int, beside: str) -> str:
    family = UNSIGNED if number >= 0 and beside in UNSIGNED else SIGNED
    return next((kind for kind in family if _fits(number, kind)), "UInt64")


# --- casts ------------------------------------------------------------------------------------------------------------


def cast(value: Value, kind: str, unit: str = "") -> Value:
    """What is asked for in so many words. A value that the type does not hold becomes a null.

    Raises:
        BadInput: there is no way from one type to the other.
    """
    target = f"{kind}[{unit}]" if unit else kind
    if value.kind in (target, "Null"):
        return replace(as_kind(value, target), dynamic=False)
    if value.kind == "Utf8" and kind in DTYPES and kind not in ("Boolean", "Date"):
        return _read(value, kind)
    if kind == "Utf8":
        if value.kind == "Boolean":
            return Value(kind, np.where(value.data, "true", "false").astype(object), value.valid)
        if value.number and value.kind not in FLOATS:
            return Value(kind, np.array([str(n) for n in value.data.tolist()], object), value.valid)
    elif kind == "Boolean" and value.number:
        return Value(kind, value.data != 0, value.valid)
    elif kind == "Date" and value.kind.startswith("Datetime"):
        return Value(kind, (value.data // PER_DAY[_unit(value.kind)]).astype(np.int32), value.valid)
    elif unit and (value.kind == "Date" or value.kind.startswith("Datetime")):
        return Value(target, _in_unit(value, unit), value.valid)
    elif value.number or value.kind in ("Boolean", "Date") or value.kind.startswith("Datetime"):
        return _to_number(value, target)
    raise BadInput(f"A {value.kind} is cast to {target}.", "Leave the cast out.")


def _to_number(value: Value, target: str) -> Value:
    dtype = _dtype(target)
    if target in FLOATS or value.kind == "Boolean":
        return Value(target, value.data.astype(dtype), value.valid)
    limits: Any = np.iinfo(dtype)
    numbers = np.trunc(value.data) if value.kind in FLOATS else value.data
    # as floats the limits of 64 bits round up: the upper one is out
    over = numbers >= float(limits.max) if value.kind in FLOATS and dtype.itemsize == 8 else numbers > limits.max
    out = (numbers < limits.min) | over | (np.isnan(numbers) if value.kind in FLOATS else False)
    data = np.where(out, 0, numbers).astype(dtype)
    return Value(target, data, value.there & ~out if out.any() else value.valid)


def _read(value: Value, kind: str) -> Value:
    pattern, read = (_FLOAT, float) if kind in FLOATS else (_INTEGER, int)
    numbers: list[Any] = [read(text) if pattern.fullmatch(text) else None for text in value.data]
    limits: Any = None if kind in FLOATS else np.iinfo(DTYPES[kind])
    good = [n is not None and (limits is None or limits.min <= n <= limits.max) for n in numbers]
    data = np.array([n if ok else 0 for n, ok in zip(numbers, good, strict=True)], DTYPES[kind])
    return Value(kind, data, value.there & np.array(good, bool))


def _in_unit(value: Value, unit: str) -> NDArray:
    if value.kind == "Date":
        days: NDArray = value.data.astype(np.int64) * PER_DAY[unit]
        return days
    old, new = PER_DAY[_unit(value.kind)], PER_DAY[unit]
    moments: NDArray = value.data * (new // old) if new >= old else value.data // (old // new)
    return moments


def _unit(kind: str) -> str:
    return kind.removeprefix("Datetime[").removesuffix("]")


def _dtype(kind: str) -> np.dtype[Any]:
    return np.dtype(np.int64) if kind.startswith("Datetime") else DTYPES[kind]


def _valid_of(array: Array) -> NDArray:
    if not array.null_count:
        return np.ones(len(array), bool)
    valid: NDArray = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _plain(array: Array, kind: Kind) -> tuple[str, Array, Any]:
    """The name of an Arrow type, the array in its numpy form, and what may stand for a null."""
    if pa.types.is_boolean(kind):
        return "Boolean", array, False
    if pa.types.is_integer(kind):
        name = str(kind)
        return (f"UInt{name[4:]}" if name.startswith("u") else f"Int{name[3:]}"), array, 0
    if pa.types.is_floating(kind):
        return (
            ("Float64" if kind == pa.float64() else "Float32"),
            array.cast(pa.float64() if kind == pa.float64() else pa.float32()),
            0.0,
        )
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "Utf8", array, ""
    if pa.types.is_date(kind):
        return "Date", array.cast(pa.date32()).cast(pa.int32()), 0
    if pa.types.is_timestamp(kind):
        unit = "ms" if kind.unit == "s" else kind.unit
        moments = array.cast(pa.timestamp("ms", kind.tz)) if kind.unit == "s" else array
        return f"Datetime[{unit}]", moments.cast(pa.int64()), 0
    if pa.types.is_decimal(kind):
        return "Float64", array.cast(pa.float64()), 0.0
    raise BadInput(
        f"A validation looks at a column of type {kind}.", "Look at numbers, texts, dates, lists or structs."
    )
