"""Rows that lie together, in a segment or a part, behind one face: times are cheap, other columns are read late."""

from __future__ import annotations

import base64
import errno
import os
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.ma  # pyarrow imports these two when first used: 45 ms for the first one who reads a log
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from bettong.logstore.columns import ROW_COLUMN, TIME_COLUMN, times_of
from bettong.logstore.foot import PARQUET, check_foot
from bettong.logstore.segment import HEADER, Codec, Record, decode, parse
from bettong.logstore.sharing import rows_of, shared_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from numpy.typing import NDArray

    from bettong.logstore.index import Chunk, Snapshot

    Ints = NDArray[np.int64]

# In parts: base64 of the log row's serialised Arrow schema, and its checksum: the foot of a Parquet file has none
SCHEMA_KEY, SCHEMA_CRC_KEY = b"bettong.schema", b"bettong.schema_crc32"


class Unreadable(Exception):
    """A piece of the log that is damaged: of a part the row group `piece`, -1 for a whole file; of a segment the chunk
    whose first row has this number."""

    def __init__(self, path: Path, piece: int) -> None:
        super().__init__(path, piece)
        self.path, self.piece = path, piece


Damaged = tuple["Path", int]  # what an Unreadable names


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
            payloads = self._payloads([int(record)])
            with _telling_damage(self.path, self.first_row):
                rows = decode(self.schema, payloads)
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
        with _telling_damage(self.path, self.first_row):
            if self.chunk.shape is None:
                return decode(self.schema, payloads).select(list(names))
            times = np.array(self.chunk.first_times, dtype=np.int64)
            are_rows = [self.chunk.codecs[i] == Codec.SHARING_ROW for i in records.tolist()]
            return rows_of(self.chunk.shape, payloads, are_rows, self._counts()[records], times[records], names)

    def _counts(self) -> Ints:
        return np.array(self.chunk.row_counts, dtype=np.int64)

    def _payloads(self, records: Sequence[int]) -> list[memoryview]:
        """Checked once more: the segment was indexed a while ago, and what decodes them trusts them."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return [self._payload(fd, self.chunk.offsets[i], self.chunk.lengths[i]) for i in records]
        finally:
            os.close(fd)

    def _payload(self, fd: int, offset: int, length: int) -> memoryview:
        data = memoryview(os.pread(fd, HEADER.size + length, offset - HEADER.size))
        found = parse(data, 0, offset - HEADER.size)
        if not isinstance(found, Record) or found.length != length:
            raise Unreadable(self.path, self.first_row)
        return data[HEADER.size :]


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
        with _telling_damage(self.path, self.group):
            return rows if rows.schema.equals(wanted) else rows.cast(wanted)  # Parquet has fewer types than Arrow

    def _read(self, names: list[str]) -> pa.Table:
        with _telling_damage(self.path, self.group):
            with pq.ParquetFile(self.path, page_checksum_verification=True) as file:
                rows = file.read_row_group(self.group, columns=names, use_threads=False)
            return rows.select(names).replace_schema_metadata(None)


def blocks_of_segment(
    number: int, path: Path, snapshot: Snapshot, without: AbstractSet[Damaged] = frozenset()
) -> list[Block]:
    blocks = [SegmentBlock(number, path, chunk) for chunk in snapshot.chunks]
    return [block for block in blocks if (path, block.first_row) not in without]


def blocks_of_part(number: int, path: Path, without: AbstractSet[Damaged] = frozenset()) -> list[Block]:
    """The row groups of a part, by their statistics, but those that are known to be damaged.

    Raises:
        FileNotFoundError: the part is gone.
        Unreadable: a file's foot is damaged.
    """
    blocks: list[Block] = []
    for name in sorted(os.listdir(path)):
        if name.endswith(PARQUET) and (path / name, -1) not in without:
            with _telling_damage(path / name, -1):
                found = _row_groups(number, path / name)
            blocks += [block for block in found if (block.path, block.group) not in without]
    return blocks


def _row_groups(number: int, path: Path) -> list[PartBlock]:
    check_foot(path)
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
    schema = _schema_in(metadata.metadata or {})
    columns = {metadata.schema.column(i).path: i for i in range(metadata.num_columns)}
    blocks = []
    for group in range(metadata.num_row_groups):
        about = metadata.row_group(group)
        times, numbers = (_bounds(about.column(columns[name]).statistics) for name in (TIME_COLUMN, ROW_COLUMN))
        blocks.append(
            PartBlock(
                number,
                path,
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


def said_schema(schema: pa.Schema) -> dict[bytes, bytes]:
    """What a part's files say of the schema of their rows."""
    said = base64.b64encode(schema.serialize())
    return {SCHEMA_KEY: said, SCHEMA_CRC_KEY: b"%d" % zlib.crc32(said)}


def _schema_in(metadata: Mapping[bytes, bytes]) -> pa.Schema:
    said = metadata[SCHEMA_KEY]
    if int(metadata.get(SCHEMA_CRC_KEY, b"%d" % zlib.crc32(said))) != zlib.crc32(said):
        raise ValueError("the schema is not what was written")
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(said)))


@contextmanager
def _telling_damage(path: Path, piece: int) -> Iterator[None]:
    """What readers of damaged bytes raise becomes Unreadable; what the system refuses stays what it is."""
    try:
        yield
    except OSError as failure:  # Arrow's own has no number
        if failure.errno not in (None, errno.EIO):
            raise
        raise Unreadable(path, piece) from failure
    except (pa.ArrowException, ValueError, LookupError, TypeError, AttributeError, struct.error) as failure:
        raise Unreadable(path, piece) from failure


def _bounds(statistics: Any) -> tuple[int, int]:
    return int(statistics.min_raw), int(statistics.max_raw)
