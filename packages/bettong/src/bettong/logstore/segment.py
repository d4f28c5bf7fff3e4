"""The bytes of a segment: records one after another, each with its length and checksum, only ever appended to.

    record = length u32 | crc32 u32 | codec u8 | 3 zero bytes | rows u32 | first_ms i64 | last_ms i64 | payload

Little-endian. `length` counts the payload; the checksum covers everything after itself. `first_ms` and `last_ms` are
the earliest and latest `time` of the record's rows, so that a reader finds rows by time without decoding a payload.
A batch is read under the schema record before it, a sharing batch under the shape record (`sharing`). An unknown codec
makes the record unreadable, not the segment.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

import pyarrow as pa
from isal.isal_zlib import crc32  # zlib's polynomial by the processor's own instructions, a tenth of its time

from bettong.errors import StorageFull, Unavailable
from bettong.logstore.layout import sync_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Bytes = bytes | memoryview | pa.Buffer

HEADER = struct.Struct("<IIB3xIqq")
_CHECKED = struct.Struct("<B3xIqq")  # the part of the header that the checksum covers
_CRC_FROM = 8
MAX_PAYLOAD_BYTES = 2**31 - 1
_MOST_DAMAGED = 16  # records one after another that may be skipped
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# As much as this between two syncs does not stay in memory: nobody reads that fast, and what others have there would go
# for it. The pages are free at once for what is written next. Where a host gives its guests memory as they first touch
# it, new ones cost ten times the copy (1.9 instead of 0.25 ms for a record of 700 kB on a small Firecracker machine).
LET_GO_BYTES = 2**20
_PAGE_BYTES = 4096


class Codec(IntEnum):
    """How a payload is written. Values never change once released."""

    SCHEMA = 0  # an encapsulated Arrow IPC schema message
    ARROW_BATCH = 1  # an encapsulated Arrow IPC record batch message
    SHAPE = 2  # a schema and what all rows behind it share
    SHARING_BATCH = 3  # what the rows of one request share, and a batch of the columns that they do not
    SHARING_ROW = 4  # the same for one row of numbers, without Arrow


class Ending(Enum):
    """What stands where the next record should start."""

    CLEAN = "clean"  # nothing
    TORN = "torn"  # less than a record: being written right now, or its writer died
    DAMAGED = "damaged"  # a record whose checksum does not hold


@dataclass(frozen=True, slots=True)
class Record:
    """Where a record's payload lies in its segment, and what it holds."""

    codec: int
    offset: int
    length: int
    rows: int
    first_ms: int
    last_ms: int

    @property
    def end(self) -> int:
        return self.offset + self.length


def header_of(codec: Codec, payload: Bytes, rows: int = 0, first_ms: int = 0, last_ms: int = 0) -> bytes:
    """The header that goes before `payload`."""
    return header_over(codec, (payload,), rows, first_ms, last_ms)


def header_over(codec: Codec, parts: Sequence[Bytes], rows: int, first_ms: int, last_ms: int) -> bytes:
    """The header that goes before a payload in several parts."""
    crc, length = crc32(_CHECKED.pack(codec, rows, first_ms, last_ms)), 0
    for part in parts:
        crc = crc32(part, crc)
        length += len(part)
    return HEADER.pack(length, crc, codec, rows, first_ms, last_ms)


def parse(data: memoryview, at: int, base: int) -> Record | Ending:
    """The record at `data[at:]`, or why there is none. `base` is the offset of `data` in the segment."""
    left = len(data) - at
    if left < HEADER.size:
        return Ending.TORN if left else Ending.CLEAN
    length, crc, codec, rows, first_ms, last_ms = HEADER.unpack_from(data, at)
    start = at + HEADER.size
    if length > left - HEADER.size:
        return Ending.TORN
    checked = crc32(data[at + _CRC_FROM : start + length])
    if checked != crc:
        return Ending.DAMAGED
    return Record(codec, base + start, length, rows, first_ms, last_ms)


def behind_damage(data: memoryview, at: int) -> int | Ending:
    """Where the next good record begins behind the damaged one at `data[at:]`, going by the lengths in the headers.

    TORN when more of the segment has to be seen to know; DAMAGED when there is none: a length does not hold. Nothing is
    searched for byte by byte: what a caller sent could look like a record.
    """
    for _ in range(_MOST_DAMAGED):
        if len(data) - at < HEADER.size:
            return Ending.TORN
        length = HEADER.unpack_from(data, at)[0]
        if not length:
            return Ending.DAMAGED  # no record has an empty payload: zeros that a power cut has left
        at += HEADER.size + length
        found = parse(data, at, 0)
        if isinstance(found, Record):
            return at
        if found is not Ending.DAMAGED:
            return Ending.TORN
    return Ending.DAMAGED


def decode(schema: pa.Schema, payloads: Sequence[Bytes]) -> pa.Table:
    """The rows of batch payloads, in order, in one chunk per column. One pass in C++ over all of them."""
    stream = b"".join((memoryview(schema.serialize()), *payloads, _END_OF_STREAM))
    return pa.ipc.open_stream(pa.py_buffer(stream)).read_all().combine_chunks()


class SegmentFile:
    """A segment open for appending, by one process. Its size is known, so that a failed write can be taken back."""

    def __init__(self, fd: int, path: Path) -> None:
        self.fd, self.path = fd, path
        self.size = 0
        self.dirty = True  # its name, to begin with, is not on the disk
        self.retired = False  # nothing more will be appended
        self._named = False
        self._let_go = 0  # what lies before this is in memory no more
        self.broken = False  # a torn record could not be taken back: nothing more may be appended

    def append(self, parts: Sequence[Bytes]) -> int:
        """Hand `parts`, whole records, to the operating system; how many bytes that were.

        Raises:
            StorageFull: the disk or the quota is full.
            Unavailable: the operating system refused for another reason.
            After either, the segment is as it was before the call, or `broken` and still readable up to there.
        """
        total = sum(map(len, parts))
        try:
            written = os.writev(self.fd, parts)
            if written < total:
                self._write_rest(memoryview(b"".join(memoryview(part) for part in parts))[written:])
        except OSError as failure:
            self._take_back()
            raise refused(failure) from failure
        self.size += total
        return total

    def sync(self) -> None:
        """Put what was appended so far on the disk. Raises OSError, and stays dirty, when it cannot."""
        if not self.dirty:
            return
        self.dirty = False  # first: what is appended from here on needs the next sync
        size = self.size
        try:
            os.fdatasync(self.fd)
            if not self._named:
                for folder in (self.path.parent, self.path.parent.parent):
                    sync_folder(folder)
                self._named = True
        except OSError:
            self.dirty = True
            raise
        self._let_go_until(size - size % _PAGE_BYTES)

    def _let_go_until(self, end: int) -> None:
        if end - self._let_go >= LET_GO_BYTES and hasattr(os, "posix_fadvise"):
            with suppress(OSError):  # advice alone: what it is about is on the disk
                os.posix_fadvise(self.fd, self._let_go, end - self._let_go, os.POSIX_FADV_DONTNEED)
            self._let_go = end

    def _write_rest(self, rest: memoryview) -> None:
        while rest:
            rest = rest[os.write(self.fd, rest) :]

    def _take_back(self) -> None:
        try:
            os.ftruncate(self.fd, self.size)
        except OSError:
            self.broken = True


def refused(failure: OSError) -> Unavailable:
    """What to tell the caller of an inference whose log row the operating system did not take."""
    if failure.errno in _FULL:
        return StorageFull(
            "The inference log has no space left on its disk.",
            "Free space, or lower the log's bytes per topic, then send the request again.",
        )
    if failure.errno == errno.EFBIG:
        return StorageFull(
            "The inference log reached the system's limit on the size of a file (EFBIG).",
            "Raise the limit (ulimit -f) for the platform, then send the request again.",
        )
    name = errno.errorcode.get(failure.errno or 0, "unknown error")
    return Unavailable(
        f"The inference log could not be written ({name}).", "Check the log folder's disk and rights, then try again."
    )
