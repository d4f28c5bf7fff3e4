"""Rows that lie together, in a segment or a part, behind one face: times are cheap, other columns are read late."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bettong.logstore.columns import ROW_COLUMN, TIME_COLUMN, times_of
from bettong.logstore.segment import decode
from bettong.logstore.sharing import rows_of, shared_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from bettong.logstore.index import Chunk, Snapshot

    Ints = NDArray[np.int64]

SCHEMA_KEY = b"bettong.schema"  # in parts: base64 of the log row's serialised Arrow schema


class Block(Protocol):
    """Some rows of one schema. `number` is that of their segment; times are epoch milliseconds, bounds included."""

    @property
    def number(self) -> int: ...
    @property
    def schema(self) -> pa.Schema: ...
    @property
    def first_ms(self) -> int: ...
    @property
    def last_ms(self) -> int: ...
    @property
    def first_row(self) -> int: ...
    @property
    def last_row(self) -> int: ...
    @property
    def row_bytes(self) -> int:
        """Roughly what one row takes, all columns of it; at least 1."""

    def keys(self) -> tuple[Ints, Ints]:
        """(times, numbers in the segment) of all rows, each of shape (rows,), numbers ascending."""

    def take(self, at: Ints, names: Sequence[str]) -> pa.Table:
        """The rows at these positions of `keys()`, in that order, with these columns."""


@dataclass(frozen=True, slots=True)
class SegmentBlock:
    """A chunk of a segment."""

    number: int
    path: Path
    chunk: Chunk

    @property
    def schema(self) -> pa.Schema:
        return self.chunk.schema

    @property
    def first_ms(self) -> int:
        return self.chunk.first_ms

    @property
    def last_ms(self) -> int:
        return self.chunk.last_ms

    @property
    def first_row(self) -> int:
        return self.chunk.first_row

    @property
    def last_row(self) -> int:
        return self.chunk.first_row + self.chunk.rows - 1

    @property
    def row_bytes(self) -> int:
        shared = shared_bytes(self.chunk.shape) if self.chunk.shape is not None else 0
        return self.chunk.bytes // self.chunk.rows + shared + 1

    def keys(self) -> tuple[Ints, Ints]:
        counts = self._counts()
        first = np.array(self.chunk.first_times, dtype=np.int64)
        times = np.repeat(first, counts)
        mixed = np.flatnonzero(first != np.array(self.chunk.last_times, dtype=np.int64))
        starts = np.cumsum(counts) - counts
        for record in mixed:  # rows of several requests in one record: their times stand in the payload alone
            rows = decode(self.schema, self._payloads([int(record)]))
            times[starts[record] : starts[record] + counts[record]] = times_of(rows[TIME_COLUMN])
        return times, np.arange(self.first_row, self.last_row + 1, dtype=np.int64)

    def take(self, at: Ints, names: Sequence[str]) -> pa.Table:
        counts = self._counts()
        ends = np.cumsum(counts)
        records, which = np.unique(np.searchsorted(ends, at, side="right"), return_inverse=True)
        rows = self._rows(records, names)
        read_starts = np.cumsum(counts[records]) - counts[records]  # of each record within what was read
        return rows.take(read_starts[which] + at - (ends - counts)[records][which])

    def all(self) -> pa.Table:
        """Every row, every column."""
        return self._rows(np.arange(len(self.chunk.offsets)), self.schema.names)

    def _rows(self, records: Ints, names: Sequence[str]) -> pa.Table:
        payloads = self._payloads(records.tolist())
        if self.chunk.shape is None:
            return decode(self.schema, payloads).select(list(names))
        times = np.array(self.chunk.first_times, dtype=np.int64)
        return rows_of(self.chunk.shape, payloads, self._counts()[records], times[records], names)

    def _counts(self) -> Ints:
        return np.array(self.chunk.row_counts, dtype=np.int64)

    def _payloads(self, records: Sequence[int]) -> list[bytes]:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return [os.pread(fd, self.chunk.lengths[i], self.chunk.offsets[i]) for i in records]
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class PartBlock:
    """A row group of a part."""

    number: int
    path: Path
    group: int
    schema: pa.Schema
    first_ms: int
    last_ms: int
    first_row: int
    last_row: int
    row_bytes: int

    def keys(self) -> tuple[Ints, Ints]:
        rows = self._read([TIME_COLUMN, ROW_COLUMN])
        return times_of(rows[TIME_COLUMN]), np.asarray(rows[ROW_COLUMN].to_numpy(), dtype=np.int64)

    def take(self, at: Ints, names: Sequence[str]) -> pa.Table:
        rows = self._read(list(names)).take(at)
        wanted = pa.schema([self.schema.field(name) for name in names])
        return rows if rows.schema.equals(wanted) else rows.cast(wanted)  # Parquet has fewer types than Arrow

    def _read(self, names: list[str]) -> pa.Table:
        with pq.ParquetFile(self.path) as file:
            rows = file.read_row_group(self.group, columns=names, use_threads=False)
        return rows.select(names).replace_schema_metadata(None)


def blocks_of_segment(number: int, path: Path, snapshot: Snapshot) -> list[Block]:
    return [SegmentBlock(number, path, chunk) for chunk in snapshot.chunks]


def blocks_of_part(number: int, path: Path) -> list[Block]:
    """The row groups of a part, by their statistics. Raises FileNotFoundError when the part is gone."""
    blocks: list[Block] = []
    for name in sorted(os.listdir(path)):
        with pq.ParquetFile(path / name) as file:
            metadata = file.metadata
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode((metadata.metadata or {})[SCHEMA_KEY])))
        columns = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
        for group in range(metadata.num_row_groups):
            about = metadata.row_group(group)
            times, numbers = (_bounds(about.column(columns[name]).statistics) for name in (TIME_COLUMN, ROW_COLUMN))
            blocks.append(
                PartBlock(
                    number,
                    path / name,
                    group,
                    schema,
                    first_ms=times[0],
                    last_ms=times[1],
                    first_row=numbers[0],
                    last_row=numbers[1],
                    row_bytes=about.total_byte_size // about.num_rows + 1,
                )
            )
    return blocks


def _bounds(statistics: Any) -> tuple[int, int]:
    return int(statistics.min_raw), int(statistics.max_raw)
