"""Which rows come next: the first few keys of many blocks, found without looking into blocks that cannot have them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from bettong.logstore.blocks import Block
    from bettong.logstore.cursor import Cursor, Key

    Ints = NDArray[np.int64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Window:
    """Times from `start_ms` to before `end_ms`, in an order, after a key (None: from the beginning)."""

    start_ms: int
    end_ms: int
    newest_first: bool
    after: Key | None = None

    def may_hold(self, first_ms: int, last_ms: int) -> bool:
        """Whether rows of these times, bounds included, can be in the window."""
        if first_ms >= self.end_ms or last_ms < self.start_ms:
            return False
        if self.after is None:
            return True
        return first_ms <= self.after[0] if self.newest_first else last_ms >= self.after[0]

    def holds(self, times: Ints, number: int, rows: Ints) -> Mask:
        """Shape (rows,): which rows of segment `number` are in the window."""
        inside: Mask = (times >= self.start_ms) & (times < self.end_ms)
        if self.after is not None:
            inside &= (
                _before(times, number, rows, self.after)
                if self.newest_first
                else _beyond(times, number, rows, self.after)
            )
        return inside


@dataclass(frozen=True, slots=True)
class Source:
    """A segment or a part: rows of times from `first_ms` to `last_ms`; its blocks are opened when it is their turn."""

    number: int
    first_ms: int
    last_ms: int
    blocks: Callable[[], list[Block]]


@dataclass(frozen=True, slots=True)
class Picks:
    """Rows in the order in which they are handed out: row i has key (times[i], numbers[i], rows[i]) and lies in
    `blocks[block[i]]` at position `at[i]`. All arrays have shape (rows,)."""

    blocks: list[Block]
    times: Ints
    numbers: Ints
    rows: Ints
    block: Ints
    at: Ints

    def __len__(self) -> int:
        return len(self.times)

    def key(self, i: int) -> Key:
        return int(self.times[i]), int(self.numbers[i]), int(self.rows[i])

    def ordered(self, order: Ints | slice) -> Picks:
        return Picks(
            self.blocks, self.times[order], self.numbers[order], self.rows[order], self.block[order], self.at[order]
        )


class _Pool:
    """The best rows seen so far."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self._columns: list[tuple[Ints, Ints, Ints, Ints, Ints]] = []

    def add(self, block: Block, times: Ints, rows: Ints, chosen: Mask) -> None:
        at = np.flatnonzero(chosen).astype(np.int64)
        if len(at):
            number, which = (np.full(len(at), n, dtype=np.int64) for n in (block.number, len(self.blocks)))
            self._columns.append((times[at], number, rows[at], which, at))
            self.blocks.append(block)

    def picks(self) -> Picks:
        if not self._columns:
            nothing = np.zeros(0, dtype=np.int64)
            return Picks([], nothing, nothing, nothing, nothing, nothing)
        times, numbers, rows, block, at = (np.concatenate(column) for column in zip(*self._columns, strict=True))
        self._columns = [(times, numbers, rows, block, at)]
        return Picks(self.blocks, times, numbers, rows, block, at)

    def best(self, need: int, newest_first: bool) -> Picks:
        """The first `need` rows in order; the others are forgotten."""
        found = self.picks()
        order = np.lexsort((found.rows, found.numbers, found.times))
        kept = found.ordered((order[::-1] if newest_first else order)[:need])
        self._columns = [(kept.times, kept.numbers, kept.rows, kept.block, kept.at)]
        return kept


def first_rows(sources: Iterable[Source], window: Window, need: int) -> Picks:
    """The first `need` rows of a window, or all if there are fewer, in its order."""
    pool, ties = _Pool(), count()
    heap: list[tuple[int, int, Source | Block]] = []

    def push(item: Source | Block) -> None:
        if window.may_hold(item.first_ms, item.last_ms):
            heapq.heappush(heap, (-item.last_ms if window.newest_first else item.first_ms, next(ties), item))

    for source in sources:
        push(source)
    best = pool.best(need, window.newest_first)
    while heap:
        bound, _, item = heapq.heappop(heap)
        if len(best) >= need:
            worst = int(best.times[-1])
            if bound > (-worst if window.newest_first else worst):
                break  # also for all that is left on the heap
        if isinstance(item, Source):
            for block in item.blocks():
                push(block)
            continue
        times, rows = item.keys()
        pool.add(item, times, rows, window.holds(times, item.number, rows))
        best = pool.best(need, window.newest_first)
    return best


def late_rows(sources: Sequence[Source], cursor: Cursor, window: Window, need: int) -> Picks:
    """The first `need` rows, in order of arrival, that came behind an ascending reading's back: within the window's
    times, up to the cursor's key, beyond the bound of their segment."""
    pool, found = _Pool(), 0
    for source in sorted(sources, key=lambda s: s.number):
        if found >= need:
            break
        bound = cursor.bound(source.number)
        if bound is None or source.first_ms > cursor.last[0] or source.last_ms < window.start_ms:
            continue
        for block in source.blocks():
            if block.last_row < bound or block.first_ms > cursor.last[0]:
                continue
            times, rows = block.keys()
            late = (rows >= bound) & (times >= window.start_ms) & (times < window.end_ms)
            late &= ~_beyond(times, block.number, rows, cursor.last)
            found += int(late.sum())
            pool.add(block, times, rows, late)
    picks = pool.picks()
    return picks.ordered(np.lexsort((picks.rows, picks.numbers))[:need])


def joined(first: Picks, then: Picks) -> Picks:
    """The rows of both, one after the other."""
    return Picks(
        [*first.blocks, *then.blocks],
        *(
            np.concatenate(columns)
            for columns in (
                (first.times, then.times),
                (first.numbers, then.numbers),
                (first.rows, then.rows),
                (first.block, then.block + len(first.blocks)),
                (first.at, then.at),
            )
        ),
    )


def _beyond(times: Ints, number: int, rows: Ints, key: Key) -> Mask:
    """Which keys are greater."""
    same_time = times == key[0]
    beyond: Mask = (
        (times > key[0]) | (same_time & (number > key[1])) | (same_time & (number == key[1]) & (rows > key[2]))
    )
    return beyond


def _before(times: Ints, number: int, rows: Ints, key: Key) -> Mask:
    """Which keys are smaller."""
    same_time = times == key[0]
    before: Mask = (
        (times < key[0]) | (same_time & (number < key[1])) | (same_time & (number == key[1]) & (rows < key[2]))
    )
    return before
