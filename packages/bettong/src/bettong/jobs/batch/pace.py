"""How many rows a request has: few at first, and more for as long as it takes no longer than half a second."""

from __future__ import annotations

import threading

FIRST_ROWS = 256
MOST_ROWS = 65_536
WANTED_S = 0.5
_WORSE = 1.5  # times what a row cost in a larger request


def next_rows(rows: int, took_s: float) -> int:
    """How many rows the next request should have, after one of `rows` rows that took so long."""
    if took_s > 1.5 * WANTED_S:
        return max(1, int(rows * WANTED_S / took_s))
    return min(MOST_ROWS, 2 * rows) if took_s < WANTED_S / 2 else rows


class Pace:
    """The number that is in force, never above `most`. Safe to use from many threads.

    A model whose every request is slow, however few rows it has, is not asked for one row after the other: where fewer
    rows cost each of them clearly more, the larger number stays.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._rows = min(FIRST_ROWS, most)
        self._least = 1
        self._slow: tuple[int, float] | None = None  # rows of the last request that was too slow, and seconds per row
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        return self._rows

    def learn(self, rows: int, took_s: float) -> None:
        """A request of `rows` rows took so long. One of fewer than are in force says nothing of more."""
        with self._lock:
            if self._slow is not None and rows < self._slow[0] and took_s > _WORSE * self._slow[1] * rows:
                self._least = max(self._least, min(self._slow[0], self._most))
            if took_s > 1.5 * WANTED_S:
                self._slow = (rows, took_s / rows)
            if rows >= self._rows or took_s > 1.5 * WANTED_S:
                self._rows = max(self._least, min(self._most, next_rows(min(rows, self._rows), took_s)))
