"""What the stores share: the time, existence checks, and texts and id lists that fit every database."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import literal, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import ColumnElement
    from sqlalchemy import Connection as Transaction

    from bettong.errors import BettongError

Clock = Callable[[], datetime]
_MOST_PARAMETERS = 10_000  # SQLite takes 32,766 in one statement, PostgreSQL 65,535


def utc_now() -> datetime:
    return datetime.now(UTC)


def require(transaction: Transaction, row: ColumnElement[bool], missing: BettongError) -> None:
    """Raise `missing` unless a row meets `row`. On PostgreSQL the row then stays until the transaction ends."""
    found = transaction.execute(select(literal(1)).where(row).limit(1).with_for_update(read=True, key_share=True))
    if found.first() is None:
        raise missing


def in_batches(ids: Iterable[int]) -> Iterator[list[int]]:
    """The distinct ids, in lists short enough for one IN."""
    distinct = sorted(set(ids))
    for start in range(0, len(distinct), _MOST_PARAMETERS):
        yield distinct[start : start + _MOST_PARAMETERS]


def storable(text: str) -> str:
    """A text of somebody else's program, made to fit: what no database holds (NUL, surrogates) becomes a mark."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
