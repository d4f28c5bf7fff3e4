"""Tables on their way from step to step: selected, reshaped, averaged, brought into one schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.engine.arrow_lists import is_list, list_array
from bettong.engine.joints import handed_on, selected, whole
from bettong.engine.plan import REQUEST
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.arrow_types import Array


def fed(rows: pa.Table, schema: pa.Schema, slot: int) -> pa.Table:
    """The columns that a model takes: columns that only decide, or that others take, are left out."""
    if rows.schema == schema:
        return rows
    try:
        return selected(rows, schema)
    except ModelFailed as wrong:
        if slot == REQUEST:  # the caller's rows
            raise BadInput(wrong.problem, wrong.next_step) from None
        raise


def in_schema(table: pa.Table, schema: pa.Schema, place: str) -> pa.Table:
    """What one of several models gave, in the schema of the first."""
    if table.schema == schema:
        return table
    try:
        columns = [
            column if (column := table.column(field.name)).type == field.type else handed_on(whole(column), field.type)
            for field in schema
        ]
    except Exception as wrong:
        raise ModelFailed(f"{place}: what it gave does not fit the step's other models. {wrong}") from wrong
    return pa.Table.from_arrays(columns, schema=schema)


def reshaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    (kind,) = schema.types
    numbers = np.stack([whole(column).to_numpy(zero_copy_only=False) for column in table.columns], axis=1)
    lengths = np.full(table.num_rows, table.num_columns, np.int64)
    return pa.Table.from_arrays([list_array(lengths, lambda: pa.array(numbers.ravel()), kind)], schema=schema)


def mean_of(columns: Sequence[Array], kind: Any) -> Array:
    """Element by element. Raises ValueError when there are nulls, or lists differ in length."""
    if any(column.null_count for column in columns):
        raise ValueError
    if is_list(columns[0].type):
        lengths = [pc.list_value_length(column) for column in columns] if len(columns[0]) else []
        if any(length != lengths[0] for length in lengths):
            raise ValueError
        counts = np.array(lengths[0].to_pylist() if lengths else [], np.int64)
        inner = mean_of([column.flatten() for column in columns], kind.value_type)
        return list_array(counts, lambda: inner, kind)
    numbers = [column.to_numpy(zero_copy_only=False) for column in columns]
    return pa.array(np.mean(numbers, axis=0, dtype=np.float64), kind)
