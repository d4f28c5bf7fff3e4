"""How far two answers to the same rows agree: which rows are the same, and statistics of each column.

Tables come one after another and are let go of: what is kept does not grow with them. Counts, mean and largest
differences, Pearson's r and Cohen's kappa are exact (up to the rounding of floats); quantiles of differences are
estimated, at most 1 % of their value away (`quantile_sketch`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.agreement_statistics import Classes, Differences
from bettong.domain.replay_requests import is_bytes, is_list, is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Ints = NDArray[np.int64]

Array: TypeAlias = Any  # of pyarrow, whose stubs know too little of nested ones


class Agreement:
    """Compares tables of answers and keeps statistics of all of them.

    Integers, texts, booleans, times, decimals and bytes are equal when they are the same. Floats are equal as in
    `numpy.isclose(after, before, rtol=tolerance, atol=tolerance, equal_nan=True)`:

        |after − before| <= tolerance + tolerance · |before|

    (https://numpy.org/doc/stable/reference/generated/numpy.isclose.html); NaN equals NaN, and null equals null. An
    integer beside a float is compared as a float. Lists are equal when they are of one length and all their items are,
    structs when all their fields are. Anything else of two types is never equal.
    """

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._columns: dict[str, _Column] = {}
        self._only_before: dict[str, int] = {}
        self._only_after: dict[str, int] = {}
        self.rows = self.equal = 0

    def add(self, before: pa.Table, after: pa.Table) -> Mask:
        """Compare two answers to the same rows, in the same order, column by column of the same name.

        Returns:
            Shape (rows,): the rows in which every column that both have is equal; none when they share no column.
        """
        shared = [name for name in before.column_names if name in after.column_names]
        same = np.full(before.num_rows, bool(shared))
        for name in shared:
            column = self._columns.setdefault(name, _Column())
            same &= column.add(_whole(before.column(name)), _whole(after.column(name)), self._tolerance)
        for found, other, only in ((before, after, self._only_before), (after, before, self._only_after)):
            for name in set(found.column_names) - set(other.column_names):
                only[name] = only.get(name, 0) + before.num_rows
        self.rows += before.num_rows
        self.equal += int(np.count_nonzero(same))
        return same

    def document(self) -> dict[str, Any]:
        """The statistics so far, as JSON has them: numbers that are none are null.

        Per column: `rows`, `equal` and `share` of rows; `values` that were compared one by one (items of lists are
        values), `mean_abs`, `max_abs` and `quantiles` of after − before, `pearson`; `kappa` and, with few classes,
        `confusion` as `{"values", "counts"}`, a row of counts per value before, a column per value after.
        """
        return {
            "rows": self.rows,
            "equal": self.equal,
            "share": self.equal / self.rows if self.rows else None,
            "columns": [column.document(name) for name, column in sorted(self._columns.items())],
            "only_before": dict(sorted(self._only_before.items())),
            "only_after": dict(sorted(self._only_after.items())),
        }


@dataclass(slots=True)
class _Column:
    rows: int = 0
    equal: int = 0
    types: dict[tuple[str, str], None] = field(default_factory=dict)
    differences: Differences = field(default_factory=Differences)
    classes: Classes = field(default_factory=Classes)

    def add(self, before: Array, after: Array, tolerance: float) -> Mask:
        self.types[str(before.type), str(after.type)] = None
        same = _same(before, after, tolerance, self._learn)
        self.rows += len(before)
        self.equal += int(np.count_nonzero(same))
        return same

    def _learn(self, before: Array, after: Array, same: Mask) -> None:
        """Take single values that stand beside each other, none of them null."""
        if _is_number(before.type) and _is_number(after.type):
            self.differences.add(_floats(before), _floats(after))
        if not pa.types.is_floating(before.type) and not pa.types.is_floating(after.type):
            self.classes.add(before, after, same)

    def document(self, name: str) -> dict[str, Any]:
        return {
            "column": name,
            "types": [list(pair) for pair in self.types],
            "rows": self.rows,
            "equal": self.equal,
            "share": self.equal / self.rows if self.rows else None,
            **self.differences.document(),
            **self.classes.document(),
        }


# --- equal values ---------------------------------------------------------------------------------------------------


def _same(before: Array, after: Array, tolerance: float, learn: Callable[[Array, Array, Mask], None] | None) -> Mask:
    """Shape (rows,): where two columns say the same. `learn` gets the single values that are beside each other."""
    nothing, none_after = _nulls(before), _nulls(after)
    both = ~(nothing | none_after)
    if both.all():
        return _same_values(before, after, tolerance, learn)
    same: Mask = nothing & none_after
    if both.any():
        at = pa.array(np.flatnonzero(both))
        same[both] = _same_values(before.take(at), after.take(at), tolerance, learn)
    return same


def _same_values(
    before: Array, after: Array, tolerance: float, learn: Callable[[Array, Array, Mask], None] | None
) -> Mask:
    """The same of columns without a null in them; their items may have some."""
    one, other = before.type, after.type
    if is_list(one) and is_list(other):
        return _same_lists(before, after, tolerance, learn)
    if pa.types.is_struct(one) and pa.types.is_struct(other):
        return _same_structs(before, after, tolerance)
    if _is_number(one) and _is_number(other):
        same = _same_numbers(before, after, tolerance)
    elif (is_text(one) and is_text(other)) or (is_bytes(one) and is_bytes(other)) or one == other:
        same = _same_exactly(before, after)
    else:
        return np.zeros(len(before), np.bool_)
    if learn is not None:
        learn(before, after, same)
    return same


def _same_lists(
    before: Array, after: Array, tolerance: float, learn: Callable[[Array, Array, Mask], None] | None
) -> Mask:
    lengths = _lengths(before)
    same: Mask = lengths == _lengths(after)
    if not same.all():
        at = pa.array(np.flatnonzero(same))
        before, after, lengths = before.take(at), after.take(at), lengths[same]
    if not len(lengths) or not lengths.any():
        return same
    wrong = ~_same(before.flatten(), after.flatten(), tolerance, learn)
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    wrong_before = np.concatenate(([0], np.cumsum(wrong)))  # how many wrong items stand before each item
    same[same] = wrong_before[bounds[1:]] == wrong_before[bounds[:-1]]
    return same


def _same_structs(before: Array, after: Array, tolerance: float) -> Mask:
    parts = dict(zip(_field_names(before), before.flatten(), strict=True))
    others = dict(zip(_field_names(after), after.flatten(), strict=True))
    same = np.full(len(before), parts.keys() == others.keys())
    for name in parts.keys() & others.keys():
        same &= _same(parts[name], others[name], tolerance, None)
    return same


def _same_numbers(before: Array, after: Array, tolerance: float) -> Mask:
    if pa.types.is_integer(before.type) and pa.types.is_integer(after.type):
        return _same_integers(_numpy(before), _numpy(after))
    with np.errstate(invalid="ignore", over="ignore"):  # infinities beside each other
        close: Mask = np.isclose(_floats(after), _floats(before), rtol=tolerance, atol=tolerance, equal_nan=True)
    return close


def _same_integers(before: NDArray[Any], after: NDArray[Any]) -> Mask:
    """Numbers of 64 bits with and without a sign share no type that holds both."""
    same: Mask
    if before.dtype.kind == after.dtype.kind:
        same = before == after
        return same
    signed, unsigned = (before, after) if before.dtype.kind == "i" else (after, before)
    same = (signed >= 0) & (signed.astype(np.uint64) == unsigned.astype(np.uint64))
    return same


def _same_exactly(before: Array, after: Array) -> Mask:
    wide = pa.large_string() if is_text(before.type) else pa.large_binary() if is_bytes(before.type) else before.type
    found = pc.equal(before.cast(wide), after.cast(wide))
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


# --- Arrow as numpy -------------------------------------------------------------------------------------------------


def _whole(column: Array) -> Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _nulls(array: Array) -> Mask:
    if not array.null_count:
        return np.zeros(len(array), np.bool_)
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False), np.bool_)


def _lengths(array: Array) -> Ints:
    """Shape (rows,): how many items each list has; none of the lists is null."""
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size, np.int64)
    if not len(array) or (buffer := array.buffers()[1]) is None:  # an empty array may come without offsets
        return np.zeros(len(array), np.int64)
    width = np.dtype(np.int64 if pa.types.is_large_list(array.type) else np.int32)
    offsets = np.frombuffer(buffer, width, len(array) + 1, array.offset * width.itemsize).astype(np.int64)
    lengths: Ints = offsets[1:] - offsets[:-1]
    return lengths


def _field_names(array: Array) -> Iterable[str]:
    return [array.type.field(i).name for i in range(array.type.num_fields)]


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _numpy(array: Array) -> NDArray[Any]:
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def _floats(array: Array) -> NDArray[np.float64]:
    return _numpy(array).astype(np.float64)
