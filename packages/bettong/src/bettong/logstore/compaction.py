"""From ended segments to Parquet parts, and old parts dropped when a topic grows over its bytes.

A part is written under a temporary name, put on the disk, renamed, and only then is its segment removed. Until the
rename the segment counts, from it on the part does (`layout.current`): a crash at any point loses and doubles nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bettong.logstore.blocks import SegmentBlock, Unreadable, said_schema
from bettong.logstore.columns import ROW_COLUMN
from bettong.logstore.encodings import encodings_for
from bettong.logstore.foot import PARQUET, keep_foot
from bettong.logstore.index import SegmentIndex
from bettong.logstore.layout import (
    GONE,
    TEMPORARY,
    Entry,
    PartEntry,
    SegmentEntry,
    claimed,
    current,
    list_topic,
    part_name,
    partitions,
    sync_folder,
    topic_lock,
    topics,
)
from bettong.logstore.reader import size_of
from bettong.logstore.segment import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from bettong.logstore.index import Chunk, Snapshot

ROW_GROUP_ROWS = 16_384
ROW_GROUP_BYTES = 8 * 2**20
COMPACTED_AT = b"bettong.compacted_at"
LOCK_FILE = "maintenance.lock"
RETAIN_EVERY_S = 5.0  # in a round that has much to compact
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sized:
    """An entry, what it takes on disk, and the time of its newest row (of a segment: of its last write)."""

    entry: Entry
    bytes: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """What retention took out of a topic."""

    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What one round did: segments turned into parts, and what was dropped by topic."""

    compacted: int = 0
    dropped: dict[str, Dropped] = field(default_factory=dict)


def maintain(
    folder: Path,
    now_s: float,
    max_bytes_per_topic: int,
    max_days: int = 0,
    *,
    rest: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> Maintenance:
    """One round over a log folder: compact, then drop what is beyond the quota or too old. Does nothing while another
    process is at it. What cannot be done for one segment is logged and tried again in the next round.

    Args:
        folder: the log folder; it need not exist.
        now_s: epoch seconds, kept in the parts that are made.
        max_bytes_per_topic: what a topic may take on disk.
        max_days: how old a row may get before it goes; 0 for any age.
        rest: called after each piece of work, to let others have the processor.
        clock: seconds that only grow. A round that takes long drops what is beyond the quota between its pieces.
    """
    with _alone(folder) as alone:
        if not alone:
            return Maintenance()
        oldest_ms = int((now_s - max_days * 86_400) * 1000) if max_days else None
        done, dropped, retained_at = 0, dict[str, Dropped](), clock()

        def retained() -> None:
            nonlocal retained_at
            _add(dropped, retain(folder, max_bytes_per_topic, oldest_ms))
            retained_at = clock()

        def between() -> None:
            rest()
            if clock() - retained_at >= RETAIN_EVERY_S:
                retained()

        for compacted in compact(folder, now_s, between):
            done += compacted
        retained()
        return Maintenance(done, dropped)


def compact(folder: Path, now_s: float, rest: Callable[[], None] = lambda: None) -> Iterator[bool]:
    """Turn every segment that has no writer any more into a part, one by one; of each that was looked at, whether it
    was. One process at a time (`maintain`)."""
    for topic in topics(folder):
        topic_folder = folder / topic
        _sweep(topic_folder)
        entries = list_topic(topic_folder)
        for leftover in superseded(entries):
            leftover.path.unlink(missing_ok=True)
        for entry in current(entries):
            if not isinstance(entry, SegmentEntry):
                continue
            with claimed(topic_folder, entry.path) as ended:
                try:
                    done = ended and _compact_segment(entry, now_s, rest)
                except (OSError, pa.ArrowException, Unreadable) as failure:  # it stays a segment, as readable as before
                    done = False
                    _log.error("inference log not compacted: segment=%s why=%s", entry.path, type(failure).__name__)
            yield done


def retain(folder: Path, max_bytes_per_topic: int, oldest_ms: int | None = None) -> dict[str, Dropped]:
    """Drop parts of each topic whose newest row is before `oldest_ms`, then oldest rows of what takes more than its
    bytes; what was dropped by topic. Segments with a writer count but stay."""
    dropped: dict[str, Dropped] = {}
    for topic in topics(folder):
        topic_folder = folder / topic
        sized = [_sized(entry) for entry in current(list_topic(topic_folder))]
        gone = Dropped(0, 0)
        old, kept = too_old(sized, oldest_ms)
        for item in [*old, *over_quota(kept, max_bytes_per_topic)]:
            if (rows := _drop(topic_folder, item.entry)) is not None:
                gone = Dropped(gone.rows + rows, gone.bytes + item.bytes)
        if gone.bytes:
            dropped[topic] = gone
            why = "beyond its days or bytes" if old else "over its bytes"
            _log.warning("inference log %s: topic=%s dropped_rows=%d", why, topic, gone.rows)
    return dropped


def superseded(entries: Sequence[Entry]) -> list[SegmentEntry]:
    """Segments whose rows are in a part: a compaction was stopped between its last two steps."""
    counted = set(current(entries))
    return [e for e in entries if isinstance(e, SegmentEntry) and e not in counted]


def too_old(items: Sequence[Sized], oldest_ms: int | None) -> tuple[list[Sized], list[Sized]]:
    """(those whose newest row is older than that, the others)."""
    old = [item for item in items if oldest_ms is not None and item.last_ms < oldest_ms]
    return old, [item for item in items if item not in old]


def over_quota(items: Sequence[Sized], max_bytes: int) -> list[Sized]:
    """Which items to drop, oldest first, so that the others take at most `max_bytes`."""
    excess = sum(item.bytes for item in items) - max_bytes
    out = []
    for item in sorted(items, key=lambda i: (i.last_ms, i.entry.number)):
        if excess <= 0:
            break
        out.append(item)
        excess -= item.bytes
    return out


def row_groups(chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Chunk]]]:
    """(number of the schema, chunks of that schema) up to the size of a row group each, in order of arrival. Schemas
    that take turns row by row still make large groups."""
    schemas: list[pa.Schema] = []
    open_groups: list[list[Chunk]] = []
    for chunk in chunks:
        at = next((i for i, known in enumerate(schemas) if known.equals(chunk.schema)), len(schemas))
        if at == len(schemas):
            schemas.append(chunk.schema)
            open_groups.append([])
        open_groups[at].append(chunk)
        group = open_groups[at]
        if sum(c.rows for c in group) >= ROW_GROUP_ROWS or sum(c.bytes for c in group) >= ROW_GROUP_BYTES:
            yield at, group
            open_groups[at] = []
    yield from ((at, group) for at, group in enumerate(open_groups) if group)


def _add(to: dict[str, Dropped], more: Mapping[str, Dropped]) -> None:
    for topic, gone in more.items():
        before = to.get(topic, Dropped(0, 0))
        to[topic] = Dropped(before.rows + gone.rows, before.bytes + gone.bytes)


def _compact_segment(entry: SegmentEntry, now_s: float, rest: Callable[[], None]) -> bool:
    snapshot = SegmentIndex(entry.path).snapshot()
    if snapshot.ending is not Ending.CLEAN:
        _log.warning("inference log cut: segment=%s tail=%s bytes=%d", entry.path, snapshot.ending.value, snapshot.left)
    if snapshot.rows:
        first_ms = min(chunk.first_ms for chunk in snapshot.chunks)
        last_ms = max(chunk.last_ms for chunk in snapshot.chunks)
        temporary = entry.path.with_suffix(TEMPORARY)
        temporary.mkdir(mode=0o700)
        for path in write_part(temporary, entry, snapshot, {COMPACTED_AT: f"{now_s:.3f}".encode()}, rest):
            _sync(path)
            _sync(keep_foot(path))
        sync_folder(temporary)
        os.rename(temporary, entry.path.with_name(part_name(entry.number, first_ms, last_ms, snapshot.rows)))
        sync_folder(entry.path.parent)
    os.unlink(entry.path)
    return bool(snapshot.rows)


def write_part(
    folder: Path,
    entry: SegmentEntry,
    snapshot: Snapshot,
    about: Mapping[bytes, bytes],
    rest: Callable[[], None] = lambda: None,
) -> Collection[Path]:
    """One Parquet file per schema: rows in order of arrival, with their number in the segment beside them. `about` goes
    into their metadata; `rest` is called after each row group. The files, which are not synced."""
    writers: dict[Path, pq.ParquetWriter] = {}
    try:
        for at, group in row_groups(snapshot.chunks):
            path = folder / f"{at:04d}{PARQUET}"
            rows = _rows(entry, group)
            if path not in writers:
                writers[path] = open_parquet(path, group[0].schema, about, rows)
            writers[path].write_table(rows, row_group_size=2**31 - 1)
            rest()
    finally:
        for writer in writers.values():
            writer.close()
    return writers.keys()


def open_parquet(
    path: Path, schema: pa.Schema, about: Mapping[bytes, bytes], first_rows: pa.Table | None = None
) -> pq.ParquetWriter:
    """A writer of rows of `schema` with their numbers (`_row`) behind, in the form of a part's files. How they are
    encoded follows from the first ones."""
    told = {**said_schema(schema), **about}
    stored = schema.append(pa.field(ROW_COLUMN, pa.int64(), nullable=False)).with_metadata(told)
    encodings = {} if first_rows is None else encodings_for(first_rows, stored)
    return pq.ParquetWriter(path, stored, compression="zstd", write_page_checksum=True, **encodings)


def _rows(entry: SegmentEntry, group: Sequence[Chunk]) -> pa.Table:
    blocks = [SegmentBlock(entry.number, entry.path, chunk) for chunk in group]
    rows = pa.concat_tables([block.all() for block in blocks])
    numbers = np.concatenate([np.arange(block.first_row, block.last_row + 1) for block in blocks])
    return rows.append_column(pa.field(ROW_COLUMN, pa.int64(), nullable=False), pa.array(numbers, pa.int64()))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _sized(entry: Entry) -> Sized:
    if isinstance(entry, PartEntry):
        return Sized(entry, size_of(entry), entry.last_ms)
    about = entry.path.stat()
    return Sized(entry, about.st_size, about.st_mtime_ns // 10**6)


def _drop(topic_folder: Path, entry: Entry) -> int | None:
    """How many rows went with the entry; None for a segment that has a writer, which stays."""
    if isinstance(entry, PartEntry):
        gone = entry.path.with_suffix(GONE)
        os.rename(entry.path, gone)
        shutil.rmtree(gone)
        return entry.rows
    with claimed(topic_folder, entry.path) as ended:
        if not ended:
            return None
        rows = SegmentIndex(entry.path).snapshot().rows
        os.unlink(entry.path)
        return rows


def _sweep(topic_folder: Path) -> None:
    """Remove what a stopped round left half done, and folders of partitions that have nothing any more."""
    for partition in partitions(topic_folder):
        for leftover in (topic_folder / partition).iterdir():
            if leftover.suffix in (TEMPORARY, GONE):
                shutil.rmtree(leftover)
        with topic_lock(topic_folder):  # a writer makes its folder and its first segment under this lock
            if not os.listdir(topic_folder / partition):
                os.rmdir(topic_folder / partition)


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    if not folder.is_dir():
        yield False
        return
    fd = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
