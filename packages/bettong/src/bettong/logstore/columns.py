"""The columns of a log row: its time, and which of the others an answer has (spec 7.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

TIME_COLUMN = "time"
ROW_COLUMN = "_row"  # in parts: the number of the row in its segment; no log row may use it
TIME_TYPE = pa.timestamp("ms")
EVERYTHING = "*"


def chosen(names: Iterable[str], columns: Sequence[str], exclude: Sequence[str]) -> list[str]:
    """The names that one of `columns` covers and none of `exclude` does, in their own order.

    A prefix covers the column of that name and those below it: "out" covers "out.forecast" but not "out_b.forecast".
    """
    return [name for name in names if _covered(name, columns) and not _covered(name, exclude)]


def _covered(name: str, prefixes: Sequence[str]) -> bool:
    return any(prefix in (EVERYTHING, name) or name.startswith(f"{prefix}.") for prefix in prefixes)


def times_of(column: pa.Array[Any] | pa.ChunkedArray[Any]) -> NDArray[np.int64]:
    """Shape (rows,): epoch milliseconds of a `time` column without nulls."""
    return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
