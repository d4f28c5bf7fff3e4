"""List columns in validations: one value out of each list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bettong.engine.arrow_lists import list_bounds
from bettong.engine.check_values import SIGNED, UNSIGNED, NDArray, Value, as_kind, common, load, nulls, picked
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.arrow_types import Array


def item_of(lists: Value, index: Value) -> Value:
    """The item at `index`, from the end when it is negative; a null where a list has none there."""
    array = _array(lists)
    if index.kind not in SIGNED + UNSIGNED:
        raise BadInput(f"A list is asked for its item number {index.kind}.", "Use an integer.")
    starts, lengths, there = _extents(array)
    wanted = index.data.astype(np.int64)
    at = np.where(wanted < 0, lengths + wanted, wanted)
    inside = there & (at >= 0) & (at < lengths)
    if index.valid is not None:
        inside = inside & index.valid
    return picked(array.values, starts + at, inside)


def length_of(lists: Value) -> Value:
    _, lengths, there = _extents(_array(lists))
    return Value("UInt32", lengths.astype(np.uint32), _mask(there))


def sum_of(lists: Value) -> Value:
    """0 for an empty list. Narrow integers are added up as Int64."""
    values, lengths, there = _flat(lists)
    kind = {"Boolean": "UInt32", "Int8": "Int64", "Int16": "Int64", "UInt8": "Int64", "UInt16": "Int64"}.get(
        values.kind, values.kind
    )
    numbers = as_kind(_numbers(values, also=("Boolean",)), kind).data
    if values.valid is not None:
        numbers = np.where(values.valid, numbers, 0)
    return Value(kind, _reduced(np.add, numbers, lengths, 0), _mask(there))


def mean_of(lists: Value) -> Value:
    values, lengths, there = _flat(lists)
    kind = "Float32" if values.kind == "Float32" else "Float64"
    numbers = _numbers(values, also=("Boolean",)).data.astype(np.float64)
    if values.valid is not None:
        numbers = np.where(values.valid, numbers, 0)
    counts = _reduced(np.add, values.there.astype(np.int64), lengths, 0)
    means = _reduced(np.add, numbers, lengths, 0.0) / np.maximum(counts, 1)
    return Value(kind, means.astype(np.float32 if kind == "Float32" else np.float64), there & (counts > 0))


def extreme_of(lists: Value, ufunc: Any) -> Value:
    """The least or greatest item, by np.fmin or np.fmax: NaN only where there is nothing else."""
    values, lengths, there = _flat(lists)
    numbers = _numbers(values).data
    if values.valid is not None:
        if numbers.dtype.kind == "f":
            filler: Any = np.nan
        else:
            limits: Any = np.iinfo(numbers.dtype)
            filler = limits.min if ufunc is np.fmax else limits.max
        numbers = np.where(values.valid, numbers, numbers.dtype.type(filler))
    counts = _reduced(np.add, values.there.astype(np.int64), lengths, 0)
    return Value(values.kind, _reduced(ufunc, numbers, lengths, numbers.dtype.type(0)), there & (counts > 0))


def contains(lists: Value, item: Value, equal: Callable[[Value, Value], NDArray]) -> Value:
    """Whether a list has the item; a null is an item like others. `equal` compares values that are there."""
    values, lengths, there = _flat(lists)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    if item.kind == "Null":
        hits = ~values.there
    else:
        wanted = item if len(item) == 1 else Value(item.kind, item.data[rows], item.there[rows])
        left, right = common(values, wanted)
        hits = np.where(left.there & right.there, equal(left, right), ~left.there & ~right.there)
    found = np.zeros(len(lengths), bool)
    found[rows[hits]] = True
    return Value("Boolean", found, _mask(there))


def exploded(lists: Value, *, empty_as_null: bool) -> Value:
    """All items of all lists, in order; a null for a list that is one, and for an empty one if `empty_as_null`."""
    array = _array(lists)
    starts, lengths, there = _extents(array)
    lone = ~there | ((lengths == 0) & empty_as_null)
    counts = np.where(lone, 1, np.where(there, lengths, 0))
    if not counts.sum():
        return picked(array.values, np.zeros(0, np.int64), np.zeros(0, bool))
    rows = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    return picked(array.values, starts[rows] + within, ~lone[rows])


def field_of(structs: Value, name: str) -> Value:
    """A field of every struct."""
    if structs.kind == "Null":
        return nulls(len(structs))
    if structs.kind != "Struct" or structs.data.type.get_field_index(name) < 0:
        raise BadInput(f"A {structs.kind} is asked for its field '{name}'.", "Name a field that the column has.")
    parts = structs.data.flatten()
    return load(parts[structs.data.type.get_field_index(name)])


def _array(lists: Value) -> Array:
    if lists.kind != "List":
        raise BadInput(f"A {lists.kind} is taken for a list.", "Leave .list out, or name a column of lists.")
    array: Array = lists.data
    return array


def _extents(array: Array) -> tuple[NDArray, NDArray, NDArray]:
    """Where each list starts in `array.values`, how long it is, and whether it is there; each of shape (rows,)."""
    there = Value("List", array).there
    if not len(array):
        empty = np.zeros(0, np.int64)
        return empty, empty, there
    bounds = list_bounds(array).astype(np.int64)
    return bounds[:-1], bounds[1:] - bounds[:-1], there


def _flat(lists: Value) -> tuple[Value, NDArray, NDArray]:
    """The items of the lists that are there, one after another; how many each has; which are there."""
    array = _array(lists)
    _, lengths, there = _extents(array)
    flat = array.flatten() if len(array) else array.values.slice(0, 0)
    return load(flat), np.where(there, lengths, 0), there


def _numbers(values: Value, also: tuple[str, ...] = ()) -> Value:
    if not values.number and values.kind not in also:
        raise BadInput(f"A list of {values.kind} is taken for one of numbers.", "Name a column of lists of numbers.")
    return values


def _reduced(ufunc: Any, numbers: NDArray, lengths: NDArray, empty: Any) -> NDArray:
    """`ufunc` over the numbers of each list; `empty` for a list without any."""
    reduced: NDArray = np.full(len(lengths), empty, numbers.dtype)
    filled = lengths > 0
    if filled.any():
        starts = np.cumsum(lengths) - lengths
        reduced[filled] = ufunc.reduceat(numbers, starts[filled])
    return reduced


def _mask(there: NDArray) -> NDArray | None:
    return None if there.all() else there
