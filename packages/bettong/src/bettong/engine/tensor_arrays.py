"""Arrow columns as tensors and tensors as Arrow columns, without a copy where types and alignment allow.

Which types and shapes a column and its tensor may have beside each other was checked by `domain.tensors` when the
model was configured. What only rows can show, ragged lists and numbers out of range, is looked for here.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.engine.arrow_lists import is_list
from bettong.engine.faults import Fault, null_fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.arrow_types import Array, Kind

    NDArray = np.ndarray[Any, np.dtype[Any]]

MAX_INT32 = 2**31 - 1
FEW = 256


def to_tensor(column: Array, dims: Sequence[int | None], dtype: np.dtype[Any]) -> NDArray:
    """The values of a column, shape (rows, *dims); dimensions that are None take the size that the rows have.

    Raises:
        Fault: a value is null, lists differ in length or have another than the tensor, or a number does not fit.
    """
    rows, sizes = len(column), list[int]()
    while is_list(column.type):
        if column.null_count:
            raise _in_row(null_fault(_first_null(column)), sizes)
        sizes.append(_common_length(column, sizes))
        column = _items(column)
    if column.null_count:
        raise _in_row(null_fault(_first_null(column)), sizes)
    if len(sizes) == len(dims):
        for size, dim in zip(sizes, dims, strict=True):
            if dim is not None and size != dim:
                raise Fault(0, f"found lists of {size} values, expected {dim}", f"Send {dim} values in every list.")
        shape = sizes
    else:  # all values of a row in one list, or one value in none
        shape = [dim or 0 for dim in dims]
        if prod(sizes) != prod(shape):
            wanted = prod(shape)
            raise Fault(0, f"found {prod(sizes)} values in a row, expected {wanted}", f"Send {wanted} in every row.")
    return _values(column, dtype, sizes).reshape(rows, *shape)


def from_tensor(values: NDArray, kind: Kind) -> Array:
    """A column of exactly `kind`, one value per item of the first dimension.

    Raises:
        ValueError: `kind` has no place for that shape, or a number is out of its range.
    """
    kinds = [kind]
    while is_list(kinds[-1]):
        kinds.append(kinds[-1].value_type)
    levels, dims = len(kinds) - 1, values.shape[1:]
    if levels == len(dims):
        sizes = dims
    elif levels <= 1 and (levels == 1 or prod(dims) == 1):
        sizes = (prod(dims),)[:levels]
    else:
        raise ValueError(f"it has the shape {list(dims)} in each row, where {kind} was expected")
    array = _leaves(np.ascontiguousarray(values).reshape(-1), kinds[-1])
    for level in reversed(range(levels)):
        array = _lists(array, values.shape[0] * prod(sizes[:level]), sizes[level], kinds[level])
    return array


# --- Arrow to numpy -------------------------------------------------------------------------------------------------


def _common_length(column: Array, outer: Sequence[int]) -> int:
    if pa.types.is_fixed_size_list(column.type):
        size: int = column.type.list_size
        return size
    if len(column) == 0:
        return 0
    if len(column) == 1:
        return len(column.flatten())
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if (lengths != lengths[0]).any():
        at = int(np.flatnonzero(lengths != lengths[0])[0])
        raise _in_row(
            Fault(
                at,
                f"found a list of {lengths[at]} values, the first one has {lengths[0]}",
                "Send lists of one length in a request: the model takes them as one tensor.",
            ),
            outer,
        )
    return int(lengths[0])


def _items(column: Array) -> Array:
    """The values of all lists of a column without nulls, one after another."""
    if pa.types.is_fixed_size_list(column.type) and column.offset == 0:
        values = column.values
        if len(values) == len(column) * column.type.list_size:
            return values  # `flatten` looks at every list
    return column.flatten()


def _values(leaves: Array, dtype: np.dtype[Any], sizes: Sequence[int]) -> NDArray:
    values: NDArray = leaves.to_numpy(zero_copy_only=False)
    if not values.flags.aligned:  # an Arrow body may lie at any address
        values = values.copy()
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        cast = values.astype(dtype)
    if dtype.kind == "f":
        wrong = np.isinf(cast) & np.isfinite(values)
    elif dtype.kind in "iu":
        wrong = cast != values
        wrong |= (cast < 0) != (values < 0)
    else:
        return cast
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise _in_row(Fault(at, f"found a number out of the range of {dtype}", "Send one that fits the model."), sizes)
    return cast


def _first_null(array: Array) -> int:
    return int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])


def _in_row(fault: Fault, sizes: Sequence[int]) -> Fault:
    """A fault among values that lie in lists of these sizes, told from the row that holds it."""
    for size in reversed(sizes):
        at, item = divmod(fault.at, size)
        fault = fault.within(at, f"item {item}")
    return fault


# --- numpy to Arrow -------------------------------------------------------------------------------------------------


def _leaves(flat: NDArray, kind: Kind) -> Array:
    if flat.dtype.kind in "OU":
        return pa.array(flat.tolist(), kind)
    array = pa.array(flat)
    if array.type == kind:
        return array
    if not pa.types.is_floating(kind):
        return array.cast(kind)  # ArrowInvalid, a ValueError, when a number is out of range
    cast = array.cast(kind, safe=False)
    if (np.isinf(cast.to_numpy(zero_copy_only=False)) & np.isfinite(flat)).any():
        raise ValueError(f"it holds a number out of the range of {kind}")
    return cast


def _lists(values: Array, count: int, size: int, kind: Kind) -> Array:
    if pa.types.is_fixed_size_list(kind):
        if kind.list_size != size:
            raise ValueError(f"it has lists of {size} values, where {kind} was expected")
        made: Any = pa.FixedSizeListArray
        return made.from_arrays(values, type=kind)
    large = pa.types.is_large_list(kind)
    if not large and count * size > MAX_INT32:
        raise ValueError("it has more values than one column holds")
    make_offsets = _few_offsets if count <= FEW else _offsets
    made = pa.LargeListArray if large else pa.ListArray
    return made.from_arrays(make_offsets(count, size, large), values, type=kind)


def _offsets(count: int, size: int, large: bool) -> Array:
    return pa.array(np.arange(count + 1, dtype=np.int64 if large else np.int32) * size)


_few_offsets = lru_cache(maxsize=256)(_offsets)  # most requests have few rows, and of the same number
