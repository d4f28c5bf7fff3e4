"""Lists as Arrow has them: one long array of all values, and where each list begins and ends in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.engine.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.arrow_types import Array, Kind

MAX_VALUES = 2**31 - 1  # of all lists of one column, unless it is one of large lists


def is_list(kind: Kind) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def list_array(lengths: np.ndarray[Any, np.dtype[np.int64]], child: Callable[[], Array], kind: Kind) -> Array:
    """An array of exactly the list type `kind`.

    Args:
        lengths: of each list, shape (rows,).
        child: makes the array of all their values; called once the lengths are known to be right.

    Raises:
        Fault: a list has another length than a fixed-size type allows, or `child` raised one, told from here.
    """
    fixed = pa.types.is_fixed_size_list(kind)
    if fixed and (wrong := np.flatnonzero(lengths != kind.list_size)).size:
        at = int(wrong[0])
        raise Fault(
            at,
            f"found a list of {lengths[at]} values, expected exactly {kind.list_size}",
            f"Send {kind.list_size} values in every list.",
        )
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if pa.types.is_list(kind) and offsets[-1] > MAX_VALUES:
        raise Fault(0, "found more values than one column holds", "Send fewer rows in one request.")
    try:
        values = child()
    except Fault as fault:
        at = int(np.searchsorted(offsets, fault.at, side="right")) - 1
        raise fault.within(at, f"item {fault.at - int(offsets[at])}") from None
    buffers: list[Any] = [None]
    if not fixed:
        bounds: Any = offsets if pa.types.is_large_list(kind) else offsets.astype(np.int32)
        buffers.append(pa.py_buffer(bounds))
    return pa.Array.from_buffers(kind, len(lengths), buffers, null_count=0, children=[values])


def number_array(numbers: np.ndarray[Any, Any], kind: Kind) -> Array:
    """An array of the numeric type `kind` over the memory of `numbers`, which are of that type."""
    memory: Any = numbers
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(memory)], null_count=0)
