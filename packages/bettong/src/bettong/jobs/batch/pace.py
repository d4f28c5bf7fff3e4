"""How many rows a request has: a few at first, and soon as many as take half a second."""

from __future__ import annotations

import threading

FIRST_ROWS = 4
MOST_ROWS = 65_536
WANTED_S = 0.5
_STEEPEST = 8  # times as many rows as before, where a request took next to no time
_GENTLEST = 2  # the same, where it took long for another reason than its rows


class Pace:
    """The number that is in force, never above `most`. Safe to use from many threads.

    A model whose every request is slow, however few rows it has, is not asked for one row after the other: what a
    request costs beside its rows is estimated, and more rows share it, as long as they do not take as long again.
    """

    def __init__(self, most: int = MOST_ROWS) -> None:
        self._most = most
        self._rows = min(FIRST_ROWS, most)
        self._last = (0, 0.0)  # rows of a request before, and its seconds
        self._beside_s = 0.0  # what a request takes besides its rows
        self._lock = threading.Lock()

    @property
    def rows(self) -> int:
        return self._rows

    def learn(self, rows: int, took_s: float) -> None:
        """A request of `rows` rows took so long. One of fewer than are in force says nothing of more."""
        with self._lock:
            self._beside_s = _beside(self._last, (rows, took_s), self._beside_s)
            if not 2 * self._last[0] > rows > self._last[0] / 2:
                self._last = (rows, took_s)
            wanted = next_rows(rows, took_s, self._beside_s)
            if rows >= self._rows or (wanted < self._rows and wanted < rows):
                self._rows = max(1, min(self._most, wanted))


def next_rows(rows: int, took_s: float, beside_s: float) -> int:
    """How many rows the next request should have, after one of `rows` rows that took so long, `beside_s` of it whatever
    rows it had."""
    time_s = max(WANTED_S, beside_s)  # for the rows
    took_for_rows_s = max(0.0, took_s - beside_s)
    if time_s / 2 <= took_for_rows_s <= 1.5 * time_s:
        return rows
    most = _STEEPEST if took_s < WANTED_S else _GENTLEST
    return max(1, int(rows * min(most, time_s / took_for_rows_s if took_for_rows_s else most)))


def _beside(one: tuple[int, float], other: tuple[int, float], known_s: float) -> float:
    """What a request takes besides its rows, by two of them of clearly different size; else what was known."""
    (fewer, took_less), (more, took_more) = sorted((one, other))
    if not fewer or more < 2 * fewer:
        return known_s
    each = max(0.0, (took_more - took_less) / (more - fewer))
    return max(0.0, min(took_less, took_more) - each * fewer)
