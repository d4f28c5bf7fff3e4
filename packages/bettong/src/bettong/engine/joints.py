"""Where one step's outputs become the next one's inputs: which types fit each other, and what is done to them.

Lists are lists however they are written: of fixed size or not, with or without a mark that no item is null. Numbers
change their width only on the way into a native model, whose types come from its graph and not from a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.tensors import casts
from bettong.engine.arrow_lists import is_list, list_array
from bettong.engine.faults import Fault, null_fault

if TYPE_CHECKING:
    from bettong.engine.arrow_types import Array, Kind


def fits(given: Kind, wanted: Kind, *, native: bool) -> bool:
    """Whether a column of type `given` can be handed to a step that takes `wanted`; a native one if `native`."""
    if given == wanted:
        return True
    if is_list(given) and is_list(wanted):
        sized = pa.types.is_fixed_size_list(given) and pa.types.is_fixed_size_list(wanted)
        same = not sized or given.list_size == wanted.list_size
        return same and fits(given.value_type, wanted.value_type, native=native)
    return native and pa.types.is_floating(wanted) and casts(given, wanted)


def handed_on(column: Array, wanted: Kind) -> Array:
    """`column` as exactly `wanted`, which it fits.

    Raises:
        Fault: a list has another length than a fixed-size type allows, an item is null, or a number is out of range.
    """
    if column.type == wanted:
        return column
    if len(column) == 0:  # rows of empty lists; pyarrow ends the process on an empty list array without offsets
        return pa.array([], wanted)
    if column.null_count:
        raise null_fault(int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0]))
    if is_list(wanted):
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False).astype(np.int64)
        return list_array(lengths, lambda: handed_on(column.flatten(), wanted.value_type), wanted)
    cast = column.cast(wanted, safe=False)
    lost = np.isinf(cast.to_numpy(zero_copy_only=False)) & np.isfinite(column.to_numpy(zero_copy_only=False))
    if lost.any():
        raise Fault(int(np.flatnonzero(lost)[0]), f"found a number out of the range of {wanted}", "Widen the input.")
    return cast
