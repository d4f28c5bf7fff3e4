"""What validations compute: operators and functions over values, as polars computes them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.engine.check_values import (
    FLOATS,
    SIGNED,
    UNSIGNED,
    NDArray,
    Value,
    as_kind,
    both_there,
    common,
    nulls,
)
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def binary(op: str, left: Value, right: Value) -> Value:
    """`op` is one of the dialect's. Raises BadInput for types that it does not take."""
    if op in ("EqValidity", "NotEqValidity"):
        return _with_nulls_equal(op, left, right)
    if op in _COMPARE:
        return _compared(op, left, right)
    if op in ("And", "Or", "Xor"):
        return _logic(op, left, right)
    if "Null" in (left.kind, right.kind):
        return nulls(max(len(left), len(right)) if 0 not in (len(left), len(right)) else 0)
    if op == "Plus" and left.kind == right.kind == "Utf8":
        return Value("Utf8", left.data + right.data, _valid(left, right))
    return _arithmetic(op, left, right)


# --- comparisons and logic --------------------------------------------------------------------------------------------


def equal(left: Value, right: Value) -> NDArray:
    """Of two values of one type: whether they are the same; NaN is the same as NaN."""
    same: NDArray = left.data == right.data
    if left.kind in FLOATS:
        same = same | (np.isnan(left.data) & np.isnan(right.data))
    return same.astype(bool, copy=False)


def _greater(left: Value, right: Value) -> NDArray:
    more: NDArray = left.data > right.data
    if left.kind in FLOATS:
        more = more | (np.isnan(left.data) & ~np.isnan(right.data))
    return more.astype(bool, copy=False)


_COMPARE: dict[str, Callable[[Value, Value], NDArray]] = {
    "Eq": equal,
    "NotEq": lambda left, right: ~equal(left, right),
    "Gt": _greater,
    "LtEq": lambda left, right: ~_greater(left, right),
    "Lt": lambda left, right: _greater(right, left),
    "GtEq": lambda left, right: ~_greater(right, left),
}


def _compared(op: str, left: Value, right: Value) -> Value:
    if "List" in (left.kind, right.kind) or "Struct" in (left.kind, right.kind):
        raise BadInput(f"A {left.kind} is compared with a {right.kind}.", "Compare its items, as .list.get(0) gives.")
    integers = SIGNED + UNSIGNED
    if not (left.kind in integers and right.kind in integers):  # numpy compares integers of all widths exactly
        left, right = common(left, right)
    return Value("Boolean", _COMPARE[op](left, right), _valid(left, right))


def _with_nulls_equal(op: str, left: Value, right: Value) -> Value:
    if "Null" in (left.kind, right.kind):
        other = right if left.kind == "Null" else left
        same = ~other.there
    else:
        compared = _compared("Eq", left, right)
        same = np.where(left.there & right.there, compared.data, ~left.there & ~right.there)
    return Value("Boolean", same if op == "EqValidity" else ~same)


def _logic(op: str, left: Value, right: Value) -> Value:
    left, right = common(left, right)
    if left.kind == "Null":
        return nulls(len(left.data & right.data))
    if left.kind != "Boolean":
        if left.kind not in SIGNED + UNSIGNED:
            raise BadInput(
                f"{op} is asked of {left.kind} values.", "Compare them first; in Python, use & and | with ()."
            )
        bits = {"And": np.bitwise_and, "Or": np.bitwise_or, "Xor": np.bitwise_xor}[op](left.data, right.data)
        return replace(left, data=bits, valid=_valid(left, right))
    if op == "Xor":
        return Value("Boolean", left.data ^ right.data, _valid(left, right))
    decides = op == "Or"  # the value that decides without the other one
    data = left.data | right.data if decides else left.data & right.data
    if left.valid is None and right.valid is None:
        return Value("Boolean", data)
    decided = (left.there & (left.data == decides)) | (right.there & (right.data == decides))
    return Value("Boolean", np.where(decided, decides, data), decided | (left.there & right.there))


def any_of(inputs: Sequence[Value], op: str) -> Value:
    """`op` over all inputs."""
    found = inputs[0]
    for each in inputs[1:]:
        found = _logic(op, found, each)
    return found if found.kind == "Null" else boolean(found)


def inverted(value: Value) -> Value:
    if value.kind in ("Boolean", "Null", *SIGNED, *UNSIGNED):
        return replace(value, data=~value.data)
    raise BadInput(
        f"NOT is asked of {value.kind} values.", "Compare them first; in Python, put () around what ~ is for."
    )


def boolean(value: Value) -> Value:
    if value.kind != "Boolean":
        raise BadInput(f"{value.kind} values stand where True or False are needed.", "Compare them with something.")
    return value


def is_in(value: Value, kind: str, values: Sequence[object]) -> Value:
    """Whether it is one of `values`, of which nulls do not count."""
    wanted = [v for v in values if v is not None]
    if value.kind == "Null" or not wanted:
        return Value("Boolean", np.zeros(len(value), bool), value.valid)
    listed = Value(kind, np.array(wanted, object))
    integers = SIGNED + UNSIGNED
    if kind != "Utf8":
        listed = Value(kind, np.array(wanted, np.float64 if kind in FLOATS else None))
        if kind in FLOATS:
            listed = as_kind(replace(listed, kind="Float64"), kind)
    if value.kind in integers and kind in integers:
        return Value("Boolean", np.isin(value.data, listed.data), value.valid)
    inner, among = common(value, listed)
    found = np.isin(inner.data, among.data) if kind != "Utf8" else np.array([v in wanted for v in inner.data], bool)
    if inner.kind in FLOATS and np.isnan(among.data).any():
        found = found | np.isnan(inner.data)
    return Value("Boolean", found, value.valid)


# --- arithmetic -------------------------------------------------------------------------------------------------------


def _arithmetic(op: str, left: Value, right: Value) -> Value:
    if not all(v.number or v.kind == "Boolean" for v in (left, right)):
        raise BadInput(f"{op} is asked of {left.kind} and {right.kind}.", "Compute with numbers.")
    if left.kind == right.kind == "Boolean":
        if op not in ("Plus", "TrueDivide"):
            raise BadInput(f"{op} is asked of two Boolean values.", "Cast them to numbers.")
        left, right = as_kind(left, "UInt32"), as_kind(right, "UInt32")
    left, right = common(left, right)
    if op == "TrueDivide" and left.kind not in FLOATS:
        left, right = as_kind(left, "Float64"), as_kind(right, "Float64")
    valid = _valid(left, right)
    a, b = left.data, right.data
    if op in ("FloorDivide", "Modulus"):
        if left.kind in FLOATS:
            floored = np.floor(a / b)
            data = floored if op == "FloorDivide" else a - floored * b
        else:
            divisor = np.where(b == 0, b.dtype.type(1), b)
            data = a // divisor if op == "FloorDivide" else a % divisor
            if (b == 0).any():
                valid = (b != 0) if valid is None else valid & (b != 0)
                valid = np.broadcast_to(valid, data.shape)
    else:
        data = {"Plus": np.add, "Minus": np.subtract, "Multiply": np.multiply, "TrueDivide": np.divide}[op](a, b)
    return Value(left.kind, data, valid, left.dynamic)


def power(base: Value, exponent: Value) -> Value:
    """An integer to an integer stays one; a negative exponent gives a null there."""
    if "Null" in (base.kind, exponent.kind):
        return binary("Plus", base, exponent)
    if not base.number or not exponent.number:
        raise BadInput(f"A {base.kind} is raised to a {exponent.kind}.", "Compute with numbers.")
    if base.kind not in FLOATS and exponent.kind not in FLOATS:
        negative = exponent.data < 0
        powers = np.where(negative, 0, exponent.data).astype(np.uint64)
        kind = "Int64" if base.dynamic else base.kind
        numbers = _integer_powers(base.data.astype(np.int64) if base.dynamic else base.data, powers)
        valid = _valid(base, exponent)
        if negative.any():
            valid = ~negative if valid is None else valid & ~negative
            valid = np.broadcast_to(valid, numbers.shape)
        return Value(kind, numbers, valid, base.dynamic and exponent.dynamic)
    left, right = common(base, exponent)
    return Value(left.kind, np.power(left.data, right.data), _valid(left, right), left.dynamic)


def _integer_powers(base: NDArray, powers: NDArray) -> NDArray:
    """By squaring, in the type of `base`, which wraps as polars' does."""
    shape = np.broadcast_shapes(base.shape, powers.shape)
    result, square, left = np.ones(shape, base.dtype), np.broadcast_to(base, shape).copy(), powers.copy()
    while left.any():
        result = np.where(left & 1, result * square, result)
        square, left = square * square, left >> 1
    return result


def unary(function: str, value: Value) -> Value:
    """Functions of one number: exact types for Abs and Negate, floats for the others."""
    if value.kind == "Null":
        return value
    if not value.number or (function == "Negate" and value.kind in UNSIGNED and not value.dynamic):
        raise BadInput(f"{function} is asked of {value.kind} values.", "Compute with signed numbers.")
    if function in ("Abs", "Negate"):
        return replace(value, data=abs(value.data) if function == "Abs" else -value.data)
    if function in ("Floor", "Ceil") and value.kind not in FLOATS:
        return value
    floats = value if value.kind in FLOATS else as_kind(value, "Float64")
    return replace(floats, data=_FLOAT_FUNCTIONS[function](floats.data))


_FLOAT_FUNCTIONS: dict[str, Any] = {
    "Exp": np.exp,
    "Log1p": np.log1p,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Pow.Sqrt": np.sqrt,
    "Pow.Cbrt": np.cbrt,
}


def logarithm(value: Value, base: float) -> Value:
    floats = _as_float(value)
    return replace(floats, data=np.log(floats.data) / floats.data.dtype.type(np.log(base)))


def rounded(value: Value, decimals: int, mode: str) -> Value:
    """Integers stay as they are."""
    if value.kind not in FLOATS:
        return unary("Floor", value)
    scale = 10.0**decimals
    scaled = value.data.astype(np.float64) * scale
    whole = np.rint(scaled) if mode == "HalfToEven" else np.trunc(scaled + np.copysign(0.5, scaled))
    return replace(value, data=(whole / scale).astype(value.data.dtype))


def clipped(value: Value, least: Any, most: Any) -> Value:
    if value.kind == "Null":
        return value
    if not value.number:
        raise BadInput(f"Clip is asked of {value.kind} values.", "Compute with numbers.")
    data = value.data
    if value.kind not in FLOATS:
        limits: Any = np.iinfo(data.dtype)
        least, most = (None if v is None else min(max(int(v), limits.min), limits.max) for v in (least, most))
    if least is not None:
        data = np.where(data < least, data.dtype.type(least), data)
    if most is not None:
        data = np.where(data > most, data.dtype.type(most), data)
    return replace(value, data=data)


def number_test(function: str, value: Value) -> Value:
    """IsNan, IsNotNan, IsFinite, IsInfinite."""
    if value.kind == "Null":
        return as_kind(value, "Boolean")
    if not value.number:
        raise BadInput(f"{function} is asked of {value.kind} values.", "Ask it of numbers.")
    if value.kind in FLOATS:
        tests: dict[str, Any] = {"IsNan": np.isnan, "IsFinite": np.isfinite, "IsInfinite": np.isinf}
        data = ~np.isnan(value.data) if function == "IsNotNan" else tests[function](value.data)
    else:
        data = np.full(len(value), function in ("IsNotNan", "IsFinite"))
    return Value("Boolean", data, value.valid)


def _as_float(value: Value) -> Value:
    if value.kind == "Null":
        return as_kind(value, "Float64")
    if not value.number:
        raise BadInput(f"A logarithm is asked of {value.kind} values.", "Compute with numbers.")
    return value if value.kind in FLOATS else as_kind(value, "Float64")


# --- choices, texts ---------------------------------------------------------------------------------------------------


def chosen(where: Value, truthy: Value, falsy: Value) -> Value:
    """`truthy` where it is True, `falsy` where it is False or a null."""
    if where.kind == "Null":
        where = as_kind(where, "Boolean")
    boolean(where)
    left, right = common(truthy, falsy)
    if left.kind in ("List", "Struct"):
        raise BadInput(f"when() chooses between {left.kind} values.", "Choose between their items.")
    yes = where.data if where.valid is None else where.data & where.valid
    data = np.where(yes, left.data, right.data)
    if left.valid is None and right.valid is None:
        return Value(left.kind, data)
    return Value(left.kind, data, np.where(yes, left.there, right.there))


def filled(value: Value, other: Value) -> Value:
    """`other` where it is a null."""
    return chosen(Value("Boolean", value.there), value, other)


def text_test(function: str, value: Value, pattern: str, *, literal: bool) -> Value:
    """Contains, StartsWith, EndsWith."""
    if value.kind == "Null":
        return as_kind(value, "Boolean")
    texts = pa.array(_texts(value).data, pa.string())
    if function == "Contains":
        found = pc.match_substring(texts, pattern) if literal else pc.match_substring_regex(texts, pattern)
    else:
        found = (pc.starts_with if function == "StartsWith" else pc.ends_with)(texts, pattern)
    return Value("Boolean", found.to_numpy(zero_copy_only=False).astype(bool), value.valid)


def text_function(function: str, value: Value) -> Value:
    """NChars, Lowercase, Uppercase."""
    if value.kind == "Null":
        return value
    texts = _texts(value).data.tolist()
    if function == "NChars":
        return Value("UInt32", np.array([len(t) for t in texts], np.uint32), value.valid)
    changed = [t.lower() if function == "Lowercase" else t.upper() for t in texts]
    return Value("Utf8", np.array(changed, object), value.valid)


def _texts(value: Value) -> Value:
    if value.kind != "Utf8":
        raise BadInput(f"{value.kind} values are taken for texts.", "Leave .str out, or name a column of texts.")
    return value


def _valid(left: Value, right: Value) -> NDArray | None:
    """Where both are there, as long as what is computed from them."""
    if left.valid is None and right.valid is None:
        return None
    mask = both_there(left, right)
    assert mask is not None
    return np.broadcast_to(mask, np.broadcast_shapes(left.data.shape, right.data.shape))
