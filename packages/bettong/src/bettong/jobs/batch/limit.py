"""How many rows of a batch inference may be rejected, and what is said when it were more, or all."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.jobs.batch.positions import Position

SHARE_FROM = 1_000  # rows: a share of fewer says little of the rest
_HAS_THEM = "job.rejects() and `bettong jobs rejects` have them: correct the rows or the mapping"


class Limit:
    """Counts as rows are asked about, by any thread, so that a job that goes wrong altogether ends soon.

    Args:
        most: how many may be rejected; a float is a share of all rows.
        total: how many rows there are. None: nobody knows, and a share is one of the rows so far, from `SHARE_FROM` on
            and at the end.
        before: what earlier attempts came to.
        first: the first reject in words.
    """

    def __init__(self, most: float, total: int | None, before: Position, first: Callable[[], str]) -> None:
        self._most, self._total, self._first = most, total, first
        self._rows, self._rejected = before.rows, before.rejected
        self._passed = False
        self._lock = threading.Lock()

    @property
    def passed(self) -> bool:
        """Whether nothing more need be asked: the job fails."""
        return self._passed

    def asking(self, rows: int) -> None:
        """So many more rows are being asked about."""
        with self._lock:
            self._rows += rows

    def found(self, rejects: int) -> None:
        """So many more of them were rejected."""
        with self._lock:
            self._rejected += rejects
            known = self._total is not None or self._rows >= SHARE_FROM or not self._is_share
            self._passed |= known and self._beyond(self._rejected, self._total or self._rows)

    def check(self, position: Position) -> None:
        """Raises BadInput when of the rows so far more were rejected than may be, or every one."""
        rows, rejected = position.rows, position.rejected
        if self._passed or self._beyond(rejected, rows):
            of = f": {rejected:,} of {(self._total if self._passed else None) or rows:,}" if self._is_share else ""
            most = f"{100 * self._most:g}% of the rows" if self._is_share else _rows(int(self._most))
            were = "was" if most == "1 row" else "were"
            raise BadInput(
                f"More than {most} {were} rejected{of}. The first, {self._first()}",
                f"{_HAS_THEM}, or raise max_rejects.",
            )
        if rejected and not position.written:
            every = "The only row was rejected:" if rows == 1 else f"All {rows:,} rows were rejected. The first,"
            raise BadInput(f"{every} {self._first()}", f"{_HAS_THEM}.")

    @property
    def _is_share(self) -> bool:
        return isinstance(self._most, float)

    def _beyond(self, rejected: int, rows: int) -> bool:
        return rejected > (self._most * rows if self._is_share else self._most)


def outcome(position: Position) -> str:
    """What became of the rows, as a sentence."""
    rows, written, rejected = position.rows, position.written, position.rejected
    if not rejected:
        return f"{_rows(written)} {'was' if written == 1 else 'were'} written."
    return f"{written:,} of {_rows(rows)} were written, {rejected:,} {'was' if rejected == 1 else 'were'} rejected."


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"
