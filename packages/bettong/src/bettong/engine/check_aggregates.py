"""Values of all rows in validations: filters and aggregates, as polars computes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from bettong.engine.check_numbers import boolean
from bettong.engine.check_values import NDArray, Value, as_kind, nulls, spread
from bettong.errors import BadInput


def kept(value: Value, by: Value) -> Value:
    """The values where `by` is True."""
    boolean(as_kind(by, "Boolean") if by.kind == "Null" else by)
    wanted = by.data & by.there
    if len(value) == 1 and len(wanted) != 1:
        value = replace(value, data=np.repeat(value.data, len(wanted)), valid=spread(value.valid, len(wanted)))
    wanted = np.broadcast_to(wanted, (len(value),))
    if value.kind in ("List", "Struct"):
        return replace(value, data=value.data.filter(pa.array(wanted)))
    return replace(value, data=value.data[wanted], valid=None if value.valid is None else value.valid[wanted])


def aggregate(kind: str, value: Value, ddof: int) -> Value:
    """One value of many. Nulls do not count, but for First and Last and as one of the values of NUnique."""
    if kind == "Count":
        return _one("UInt32", int(value.there.sum()))
    if value.kind in ("List", "Struct"):
        raise BadInput(f"{kind} is asked of {value.kind} values.", "Explode lists first.")
    if kind in ("First", "Last"):
        at = slice(0, 1) if kind == "First" else slice(-1, None)
        if not len(value):
            return as_kind(nulls(1), value.kind)
        return Value(value.kind, value.data[at], None if value.valid is None else value.valid[at])
    present = value.data if value.valid is None else value.data[value.valid]
    if kind == "NUnique":
        texts = value.kind == "Utf8"
        distinct = len(set(present.tolist())) if texts else len(np.unique(present))
        return _one("UInt32", distinct + (len(present) != len(value)))
    if value.kind == "Null":
        return nulls(1)
    if kind in ("Min", "Max"):
        return _extreme(kind, value.kind, present)
    if not value.number and value.kind != "Boolean":
        raise BadInput(f"{kind} is asked of {value.kind} values.", "Ask it of numbers.")
    return _statistic(kind, value.kind, present, ddof)


def _extreme(kind: str, of: str, present: NDArray) -> Value:
    if not len(present):
        return as_kind(nulls(1), of)
    if of == "Utf8":
        return Value(of, np.array([(min if kind == "Min" else max)(present)], object))
    found = (np.fmin if kind == "Min" else np.fmax).reduce(present)
    return Value(of, np.array([found], present.dtype))


def _statistic(kind: str, of: str, present: NDArray, ddof: int) -> Value:
    if kind == "Sum":
        narrow = dict.fromkeys(("Int8", "Int16", "UInt8", "UInt16"), "Int64")
        total = {"Boolean": "UInt32", **narrow}.get(of, of)
        numbers = as_kind(Value(of, present), total).data
        return Value(total, np.array([numbers.sum(dtype=numbers.dtype)]))
    result = "Float32" if of == "Float32" else "Float64"
    numbers = present.astype(np.float64)
    if len(numbers) <= (ddof if kind in ("Std", "Var") else 0):
        return as_kind(nulls(1), result)
    if kind == "Mean":
        found = numbers.mean()
    elif kind == "Median":
        middle = np.sort(numbers)[(len(numbers) - 1) // 2 : len(numbers) // 2 + 1]  # NaN is the greatest
        found = middle.mean()
    else:
        found = numbers.var(ddof=ddof) if kind == "Var" else numbers.std(ddof=ddof)
    return as_kind(Value("Float64", np.array([found])), result)


def _one(kind: str, number: int) -> Value:
    return Value(kind, np.array([number], np.uint32))
