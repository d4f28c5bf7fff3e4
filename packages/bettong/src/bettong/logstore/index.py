"""What a segment holds, learned by walking its records once and then only what was added since.

Per record 29 bytes stay in memory. A segment of 64 MiB of one-row records takes some 0.2 s to walk the first time.
"""

from __future__ import annotations

import logging
import os
import threading
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from bettong.logstore.segment import HEADER, Codec, Ending, Record, behind_damage, parse
from bettong.logstore.sharing import read_shape

if TYPE_CHECKING:
    from pathlib import Path

    from bettong.domain.logs import LogShape

CHUNK_RECORDS = 2048
CHUNK_ROWS = 65_536
CHUNK_BYTES = 8 * 2**20
_READ_BYTES = 4 * 2**20
_WITH_SCHEMA, _WITH_SHAPE = (Codec.ARROW_BATCH,), (Codec.SHARING_BATCH, Codec.SHARING_ROW)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Chunk:
    """Records of one schema that stand together; `first_row` is the number of the first row in the segment. Those of a
    `shape` are sharing batches and rows."""

    schema: pa.Schema
    first_row: int
    shape: LogShape | None = None
    rows: int = 0
    bytes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    offsets: array[int] = field(default_factory=lambda: array("q"))
    lengths: array[int] = field(default_factory=lambda: array("I"))
    codecs: array[int] = field(default_factory=lambda: array("B"))
    row_counts: array[int] = field(default_factory=lambda: array("I"))
    first_times: array[int] = field(default_factory=lambda: array("q"))
    last_times: array[int] = field(default_factory=lambda: array("q"))

    def add(self, record: Record) -> None:
        self.first_ms = min(self.first_ms, record.first_ms) if self.rows else record.first_ms
        self.last_ms = max(self.last_ms, record.last_ms) if self.rows else record.last_ms
        self.rows += record.rows
        self.bytes += record.length
        self.offsets.append(record.offset)
        self.lengths.append(record.length)
        self.codecs.append(record.codec)
        self.row_counts.append(record.rows)
        self.first_times.append(record.first_ms)
        self.last_times.append(record.last_ms)

    def has_room(self) -> bool:
        return len(self.offsets) < CHUNK_RECORDS and self.rows < CHUNK_ROWS and self.bytes < CHUNK_BYTES

    def copy(self) -> Chunk:
        return Chunk(
            self.schema,
            self.first_row,
            self.shape,
            self.rows,
            self.bytes,
            self.first_ms,
            self.last_ms,
            self.offsets[:],
            self.lengths[:],
            self.codecs[:],
            self.row_counts[:],
            self.first_times[:],
            self.last_times[:],
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The readable part of a segment at one moment. `ending` says what follows it, `left` in how many bytes."""

    chunks: tuple[Chunk, ...]
    rows: int
    ending: Ending
    left: int


class SegmentIndex:
    """Knows the readable records of one segment, growing or not. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._chunks: list[Chunk] = []
        self._schema: pa.Schema | None = None
        self._shape: LogShape | None = None  # of the sharing batches that follow; None behind a schema record
        self._rows = 0
        self._end = 0  # of the last good record
        self._unread = -1  # codec of the records that were last told to be skipped
        self._cut = False  # nothing behind `_end` can be told apart any more
        self._said = -1  # offset of the damage that was told

    def snapshot(self) -> Snapshot:
        """Read what was added since the last call. Raises FileNotFoundError when the segment is gone."""
        with self._lock:
            fd = os.open(self._path, os.O_RDONLY)
            try:
                ending, left = self._advance(fd)
            finally:
                os.close(fd)
            if ending is Ending.DAMAGED and self._said != self._end:
                self._said = self._end
                _log.warning("inference log damaged: segment=%s cut at byte=%d", self._path, self._end)
            sealed, last = self._chunks[:-1], self._chunks[-1:]
            return Snapshot((*sealed, *(chunk.copy() for chunk in last)), self._rows, ending, left)

    def _advance(self, fd: int) -> tuple[Ending, int]:
        # Read, not mapped: a writer that takes a failed record back makes the file shorter, and a mapping deadly.
        want = _READ_BYTES
        while True:
            size = os.fstat(fd).st_size
            if self._cut:
                return Ending.DAMAGED, max(size - self._end, 0)
            data = memoryview(os.pread(fd, want, self._end))
            at, ending = self._walk(data)
            self._end += at
            left = max(size - self._end, 0)
            if self._cut or self._end + len(data) - at >= size:
                return (ending, left) if left else (Ending.CLEAN, 0)
            # The next record goes on behind what was read: read on from its start, with all of it in view, and all of
            # those behind it too where it is damaged.
            seen = len(data) - at
            needs = HEADER.unpack_from(data, at)[0] + HEADER.size if seen >= HEADER.size else 0
            want = max(_READ_BYTES, min(2 * seen if ending is Ending.DAMAGED else needs, left))

    def _walk(self, data: memoryview) -> tuple[int, Ending]:
        """Take the records of `data`, which begins at `_end`; how far they go, and what stands there."""
        at = 0
        while True:
            found = parse(data, at, self._end)
            if isinstance(found, Record):
                self._take(found, data)
                at = found.end - self._end
                continue
            if found is Ending.DAMAGED:
                behind = behind_damage(data, at)
                if not isinstance(behind, Ending):
                    self._skip(data, at, behind)
                    at = behind
                    continue
                self._cut = behind is Ending.DAMAGED
            return at, found

    def _skip(self, data: memoryview, at: int, behind: int) -> None:
        """Leave damaged records out. Where one of them may have said a schema, what follows waits for the next."""
        _log.warning(
            "inference log damaged: segment=%s skipped from byte=%d bytes=%d", self._path, self._end + at, behind - at
        )
        while at < behind:
            length, _, codec, rows, first_ms, last_ms = HEADER.unpack_from(data, at)
            # Said three times over, so that one damaged number does not decide: schemas have no rows and no times.
            has_rows = (codec not in (Codec.SCHEMA, Codec.SHAPE), rows != 0, bool(first_ms or last_ms))
            if sum(has_rows) < 2:
                self._schema = None
            at += HEADER.size + length

    def _take(self, record: Record, data: memoryview) -> None:
        start = record.offset - self._end
        if record.codec == Codec.SCHEMA:
            self._schema = pa.ipc.read_schema(pa.py_buffer(data[start : start + record.length]))
            self._shape = None
        elif record.codec == Codec.SHAPE:
            self._shape = read_shape(data[start : start + record.length])
            self._schema = self._shape.schema
        elif self._schema is not None and record.codec in (_WITH_SCHEMA if self._shape is None else _WITH_SHAPE):
            last = self._chunks[-1] if self._chunks else None
            if last is None or last.schema is not self._schema or not last.has_room():
                last = Chunk(self._schema, self._rows, self._shape)
                self._chunks.append(last)
            last.add(record)
            self._rows += record.rows
        elif self._unread != record.codec:
            self._unread = record.codec
            _log.warning(
                "inference log records skipped: segment=%s codec=%d from byte=%d",
                self._path,
                record.codec,
                record.offset,
            )
