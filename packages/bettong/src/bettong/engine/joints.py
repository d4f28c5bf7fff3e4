"""Where one step's outputs become the next one's inputs: which types fit each other, and what is done to them.

Lists are lists however they are written: of fixed size or not, with or without a mark that no item is null. Numbers
change their width only on the way into a native model, whose types come from its graph and not from a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.tensors import casts
from bettong.engine.arrow_lists import is_list, list_array
from bettong.engine.faults import Fault, null_fault
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def check_joint(outputs: pa.Schema, inputs: pa.Schema, places: Sequence[str], *, native: bool) -> None:
    """Whether `outputs` of the step called `places[0]` cover `inputs` of the one called `places[1]`.

    Raises:
        BadInput: they do not; names the column.
    """
    given = {field.name: field.type for field in outputs}
    for field in inputs:
        if field.name not in given:
            raise BadInput(
                f"{places[1]} takes the column '{field.name}', which the step before it does not give.",
                f"{places[0]} gives: {shown(outputs)}.",
            )
        if not fits(given[field.name], field.type, native=native):
            raise BadInput(
                f"{places[1]} takes the column '{field.name}' as {field.type}, "
                f"and the step before it gives {given[field.name]}.",
                "Make the two schemas agree.",
            )


def selected(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns that a step takes of what the one before it gave. Types fit; nulls are refused as from callers.

    Raises:
        ModelFailed: a value cannot be handed on; names the column.
    """
    columns: list[pa.ChunkedArray[Any] | Array] = []
    for field in schema:
        column = rows.column(field.name)
        if column.null_count:
            raise ModelFailed(
                f"The column '{field.name}' has nulls on its way to the next step.",
                "Return a value in every row, or add a step that fills them.",
            )
        if column.type == field.type:
            columns.append(column)
            continue
        try:
            columns.append(handed_on(whole(column), field.type))
        except Fault as fault:
            raise ModelFailed(f"{fault.as_bad_input(field.name).problem}", fault.next_step) from None
    return pa.Table.from_arrays(columns, schema=schema)


def whole(column: pa.ChunkedArray[Any]) -> Array:
    """A column of a table as one array."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def shown(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
