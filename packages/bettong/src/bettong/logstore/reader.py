"""Reads an inference log, also while it is being written and compacted."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bettong.domain.logs import LogPage, PageStatus, TopicInfo
from bettong.errors import BadInput, Unavailable
from bettong.logstore.blocks import Damaged, Unreadable, blocks_of_part, blocks_of_segment
from bettong.logstore.columns import chosen
from bettong.logstore.cursor import Cursor, decode_cursor
from bettong.logstore.index import SegmentIndex, Snapshot
from bettong.logstore.layout import PartEntry, SegmentEntry, current, is_name, list_topic
from bettong.logstore.selection import Picks, Source, Window, first_rows, joined, late_rows

if TYPE_CHECKING:
    from bettong.domain.logs import LogQuery
    from bettong.logstore.layout import Entry

MAX_INDEXES = 64  # segments whose records are kept in mind
_ATTEMPTS = 10  # a compaction may take a file away between the look at its name and the look into it
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FOREVER = 2**62
_log = logging.getLogger(__name__)


class SegmentLogReader:
    """Pages of the logs in a folder. Safe to use from several threads, and beside any number of other processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._indexes: OrderedDict[Path, SegmentIndex] = OrderedDict()
        self._told: set[Damaged] = set()
        self._lock = threading.Lock()

    def page(self, query: LogQuery) -> LogPage:
        """The next rows of a topic, all of one schema; no rows and no columns when there are none.

        Pages joined by their cursors have every row of the log exactly once, in order. What is logged while they are
        read: newest first, it is newer and stays out; oldest first, it follows, and a row that is older than what was
        handed out already comes first on the next page.

        Raises:
            BadInput: the limit, the times or the cursor cannot be used.
            Unavailable: the log's files changed too fast to be read.
        """
        window, cursor = _window(query)
        if not is_name(query.topic):
            return LogPage(pa.table({}), PageStatus.ALL)
        tries, damaged, relearned = 0, set[Damaged](), set[Path]()
        while tries < _ATTEMPTS:
            try:
                return self._page(query, window, cursor, damaged)
            except FileNotFoundError:  # compacted or dropped by retention since it was listed
                tries += 1
            except Unreadable as found:  # each time one piece more is left out
                if found.path not in relearned and self._forget(found.path):
                    relearned.add(found.path)  # its damaged records are skipped now
                else:
                    damaged.add((found.path, found.piece))
                    self._tell_damage(found)
        raise Unavailable(f"The files of log topic '{query.topic}' keep changing.", "Try again in a moment.")

    def info(self, topic: str) -> TopicInfo:
        """Rows per partition and bytes on disk; nothing for an unknown topic."""
        if not is_name(topic):
            return TopicInfo()
        for _ in range(_ATTEMPTS):
            try:
                return self._info(topic)
            except FileNotFoundError:
                continue
        raise Unavailable(f"The files of log topic '{topic}' keep changing.", "Try again in a moment.")

    def _info(self, topic: str) -> TopicInfo:
        partitions: dict[str, int] = {}
        total = 0
        for entry in current(list_topic(self._folder / topic)):
            rows = entry.rows if isinstance(entry, PartEntry) else self._snapshot(entry.path).rows
            partitions[entry.partition] = partitions.get(entry.partition, 0) + rows
            total += size_of(entry)
        return TopicInfo(partitions, total)

    def _page(self, query: LogQuery, window: Window, cursor: Cursor | None, damaged: set[Damaged]) -> LogPage:
        sources, reached = self._sources(query.topic, damaged)
        need = query.limit + 1  # one more tells whether anything follows
        picks = first_rows(sources, window, need)
        late = 0
        if cursor is not None and not query.newest_first:
            behind = late_rows(sources, cursor, window, need)
            late, picks = len(behind), joined(behind, picks)
        if not len(picks):
            return LogPage(pa.table({}), PageStatus.ALL)
        more, status = len(picks) > query.limit, PageStatus.RECORD_LIMITED
        picks = picks.ordered(slice(query.limit))
        if (same := _rows_of_first_schema(picks)) < len(picks):
            picks, more, status = picks.ordered(slice(same)), True, PageStatus.SCHEMA_CHANGE
        table, taken = _table(picks, query)
        if taken < len(picks):
            picks, more, status = picks.ordered(slice(taken)), True, PageStatus.BYTE_LIMITED
        if not more:
            return LogPage(table, PageStatus.ALL)
        after = _after(picks, late, reached, cursor)
        return LogPage(table, status, after.encode(query.topic, newest_first=query.newest_first))

    def _sources(self, topic: str, damaged: set[Damaged]) -> tuple[list[Source], Cursor]:
        """Where rows lie, damaged pieces aside, and a cursor (its key means nothing) of how far they go right now."""
        entries = current(list_topic(self._folder / topic))
        self._forget_all_but(topic, {entry.path for entry in entries})
        sources, bounds = [], {}
        for entry in entries:
            if isinstance(entry, PartEntry):
                sources.append(_part_source(entry, damaged))
                continue
            snapshot = self._snapshot(entry.path)
            bounds[entry.number] = snapshot.rows
            if snapshot.chunks:
                sources.append(_segment_source(entry, snapshot, damaged))
        return sources, Cursor((0, 0, 0), max((e.number for e in entries), default=0), bounds)

    def _snapshot(self, path: Path) -> Snapshot:
        with self._lock:
            index = self._indexes.setdefault(path, SegmentIndex(path))
            self._indexes.move_to_end(path)
            if len(self._indexes) > MAX_INDEXES:
                self._indexes.popitem(last=False)
        return index.snapshot()

    def _forget(self, path: Path) -> bool:
        """Let go of what is known of a segment; whether anything was."""
        with self._lock:
            return self._indexes.pop(path, None) is not None

    def _tell_damage(self, found: Unreadable) -> None:
        with self._lock:
            if (found.path, found.piece) in self._told:
                return
            self._told.add((found.path, found.piece))
        _log.warning("inference log damaged: file=%s piece=%d is left out", found.path, found.piece)

    def _forget_all_but(self, topic: str, there: set[Path]) -> None:
        """Let go of what is known of segments that are compacted or dropped."""
        with self._lock:
            for path in [p for p in self._indexes if p.parent.parent.name == topic and p not in there]:
                del self._indexes[path]


def size_of(entry: Entry) -> int:
    """Bytes of a segment or a part."""
    if isinstance(entry, SegmentEntry):
        return entry.path.stat().st_size
    return sum(file.stat().st_size for file in entry.path.iterdir())


def _part_source(entry: PartEntry, damaged: set[Damaged]) -> Source:
    return Source(
        entry.number, entry.first_ms, entry.last_ms, lambda: blocks_of_part(entry.number, entry.path, damaged)
    )


def _segment_source(entry: SegmentEntry, snapshot: Snapshot, damaged: set[Damaged]) -> Source:
    return Source(
        entry.number,
        min(chunk.first_ms for chunk in snapshot.chunks),
        max(chunk.last_ms for chunk in snapshot.chunks),
        lambda: blocks_of_segment(entry.number, entry.path, snapshot, damaged),
    )


def _window(query: LogQuery) -> tuple[Window, Cursor | None]:
    if query.limit < 1 or query.max_bytes < 1:
        raise BadInput("A log page was asked for with a limit below 1.", "Ask for at least one row and one byte.")
    cursor = None
    if query.cursor is not None:
        cursor = decode_cursor(query.cursor, query.topic, newest_first=query.newest_first)
    start = -_FOREVER if query.start is None else _milliseconds(query.start)
    end = _FOREVER if query.end is None else _milliseconds(query.end)
    return Window(start, end, query.newest_first, cursor.last if cursor else None), cursor


def _milliseconds(moment: datetime) -> int:
    """The first whole millisecond that is not before `moment`."""
    if moment.tzinfo is None:
        raise BadInput("A log was asked for with a time that has no time zone.", "Give times with an offset from UTC.")
    return -((_EPOCH - moment) // timedelta(milliseconds=1))


def _rows_of_first_schema(picks: Picks) -> int:
    """How many rows, from the first on, share the first one's schema."""
    schema = picks.blocks[int(picks.block[0])].schema
    same = np.array([block.schema.equals(schema) for block in picks.blocks])[picks.block]
    return len(picks) if same.all() else int(np.argmin(same))


def _table(picks: Picks, query: LogQuery) -> tuple[pa.Table, int]:
    """As many of the picked rows, at least one, as fit the query's bytes, with its columns; and how many they are."""
    names = chosen(picks.blocks[int(picks.block[0])].schema.names, query.columns, query.exclude)
    if not names:
        return pa.table({}), len(picks)
    guess = np.array([block.row_bytes for block in picks.blocks], dtype=np.int64)[picks.block]
    pieces: list[pa.Table] = []
    taken, room = 0, query.max_bytes
    while taken < len(picks):
        ahead = np.cumsum(guess[taken:])  # reads no more at once than about what still has room
        upto = taken + max(1, int(np.searchsorted(ahead, room, side="right")))
        piece = _take(picks.ordered(slice(taken, upto)), names)
        fits = piece.num_rows if piece.nbytes <= room else _rows_within(piece, room)
        if fits < piece.num_rows:
            fits = max(fits, 0 if pieces else 1)
            return pa.concat_tables([*pieces, piece.slice(0, fits)]), taken + fits
        pieces.append(piece)
        taken, room = upto, room - piece.nbytes
    return pa.concat_tables(pieces), taken


def _rows_within(table: pa.Table, room: int) -> int:
    fits, beyond = 0, table.num_rows
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        fits, beyond = (middle, beyond) if table.slice(0, middle).nbytes <= room else (fits, middle)
    return fits


def _take(picks: Picks, names: list[str]) -> pa.Table:
    by_block = np.argsort(picks.block, kind="stable")
    used, starts = np.unique(picks.block[by_block], return_index=True)
    pieces = [
        picks.blocks[int(block)].take(at, names)
        for block, at in zip(used, np.split(picks.at[by_block], starts[1:]), strict=True)
    ]
    if len(pieces) == 1:
        return pieces[0]
    back = np.empty(len(by_block), dtype=np.int64)
    back[by_block] = np.arange(len(by_block))
    return pa.concat_tables(pieces).combine_chunks().take(back)


def _after(picks: Picks, late: int, reached: Cursor, before: Cursor | None) -> Cursor:
    """The cursor after these rows, of which the first `late` (as many as there are) were late ones."""
    if len(picks) > late or before is None:
        last = picks.key(len(picks) - 1)
        return Cursor(last, reached.newest_number, reached.bounds)
    bounds = dict(before.bounds)
    for number, row in zip(picks.numbers.tolist(), picks.rows.tolist(), strict=True):
        bounds[number] = row + 1
    return Cursor(before.last, before.newest_number, bounds)
