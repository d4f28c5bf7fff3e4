"""Lists as Arrow has them: one long array of all values, and where each list begins and ends in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.engine.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.arrow_types import Array, Kind


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
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths)))
    try:
        values = child()
    except Fault as fault:
        at = int(np.searchsorted(offsets, fault.at, side="right")) - 1
        raise fault.within(at, f"item {fault.at - int(offsets[at])}") from None
    make: Any = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    if fixed:
        make = pa.FixedSizeListArray
        return make.from_arrays(values, type=kind)
    narrow = np.int64 if pa.types.is_large_list(kind) else np.int32
    return make.from_arrays(pa.array(offsets.astype(narrow)), values, type=kind)
