"""The rows of a source, cut into pieces of the size that is wanted at the moment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MAX_PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that stand together.

    Attributes:
        first: the number of the first row, from 0.
        doubled: which rows have the same keys as the row before; None when nobody asked.
    """

    rows: pa.RecordBatch
    first: int
    doubled: NDArray[np.bool_] | None

    @property
    def end(self) -> int:
        return self.first + self.rows.num_rows


def pieces(
    batches: Iterable[pa.RecordBatch], wanted: Callable[[], int], keys: Sequence[str] = (), first: int = 0
) -> Iterator[Piece]:
    """The rows in their order, in pieces of `wanted()` rows, of fewer where these would take too many bytes.

    With `keys`, by which the rows are ordered, a piece ends only where the keys change: whoever goes on behind the
    keys of its last row misses none.
    """
    cutter = _Cutter(keys, first)
    for batch in batches:
        if not batch.num_rows:
            continue
        cutter.add(batch)
        while (piece := cutter.cut(wanted())) is not None:
            yield piece
    while (piece := cutter.cut(wanted(), last=True)) is not None:
        yield piece


def skipped(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """All but the first `rows` rows."""
    for batch in batches:
        dropped = min(rows, batch.num_rows)
        rows -= dropped
        if dropped < batch.num_rows:
            yield batch.slice(dropped)


class _Cutter:
    """Rows that have come and are not cut yet."""

    def __init__(self, keys: Sequence[str], first: int) -> None:
        self._keys, self._first = keys, first
        self._batches: deque[pa.RecordBatch] = deque()
        self._doubled: deque[NDArray[np.bool_]] = deque()
        self._rows = self._bytes = 0
        self._last: pa.RecordBatch | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        if self._keys:
            self._doubled.append(_doubled(batch.select(list(self._keys)), self._last))
            self._last = batch.slice(batch.num_rows - 1).select(list(self._keys))
        self._batches.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes

    def cut(self, wanted: int, *, last: bool = False) -> Piece | None:
        """The next piece; None when more rows have to come first, `last` when none will."""
        if not self._rows:
            return None
        fit = max(1, int(MAX_PIECE_BYTES * self._rows / max(1, self._bytes)))
        size = min(wanted, fit, self._rows)
        if size == self._rows and not last:  # the next row may have the keys of this piece's last one
            return None
        doubled = None
        if self._keys:
            marks = np.concatenate(list(self._doubled))
            while size < self._rows and marks[size]:
                size += 1
            if size == self._rows and not last:
                return None
            doubled = marks[:size]
            self._doubled = deque([marks[size:]])
        piece = Piece(self._take(size), self._first, doubled)
        self._first += size
        return piece

    def _take(self, size: int) -> pa.RecordBatch:
        share = self._bytes * size // self._rows
        self._rows -= size
        self._bytes -= share
        parts = []
        while size:
            batch = self._batches.popleft()
            if batch.num_rows > size:
                self._batches.appendleft(batch.slice(size))
                batch = batch.slice(0, size)
            parts.append(batch)
            size -= batch.num_rows
        if len(parts) == 1:
            return parts[0]
        whole = pa.Table.from_batches(parts).combine_chunks()
        return whole.to_batches()[0]


def _doubled(keys: pa.RecordBatch, before: pa.RecordBatch | None) -> NDArray[np.bool_]:
    """Which rows have the same keys as the row before. A null is the same as nothing."""
    same = np.ones(keys.num_rows, bool)
    for at, column in enumerate(keys.columns):
        values: Any = column
        equal = np.zeros(keys.num_rows, bool)
        equal[1:] = pc.fill_null(pc.equal(values[1:], values[:-1]), False).to_numpy(zero_copy_only=False)
        if before is not None:
            equal[0] = pc.equal(values[0], before.column(at)[0]).as_py() or False
        same &= equal
    return same
