"""Where a reading of a log goes on: text that callers send back and need not understand.

A row's key is (time in ms, segment number, row number); a log is read in order of keys. Newest first, the key of the
last row says it all: what is older follows, what arrives meanwhile is newer than where the reading began. Oldest first,
a row may still arrive behind the last key, its request having taken longer than another's. So the cursor also tells how
far each growing segment was read: rows beyond that with a key up to the last one are late, and come first on the next
page.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import dataclass, field

from bettong.errors import BadInput

Key = tuple[int, int, int]
_FORMAT = 1
_INT64 = 2**63


@dataclass(frozen=True, slots=True)
class Cursor:
    """The state of a reading between two pages.

    Handed out were all rows with a key up to `last` (from `last` on, newest first) that lie below the bound of their
    segment. Bounds matter oldest first only.
    """

    last: Key
    newest_number: int = 0  # segments with a higher number did not exist
    bounds: dict[int, int] = field(default_factory=dict)  # segment number → rows read of it, for growing segments

    def bound(self, number: int) -> int | None:
        """How many rows of a segment were there; None when it was complete."""
        return self.bounds.get(number, None if number <= self.newest_number else 0)

    def encode(self, topic: str, *, newest_first: bool) -> str:
        document = [_FORMAT, _mark(topic), int(newest_first), *self.last, self.newest_number, list(self.bounds.items())]
        packed = zlib.compress(json.dumps(document, separators=(",", ":")).encode())
        return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode_cursor(text: str, topic: str, *, newest_first: bool) -> Cursor:
    """Raises BadInput when `text` is no cursor of this topic and order."""
    document = _document(text)
    if len(document) != 8 or document[0] != _FORMAT:
        raise _unreadable()
    if document[1] != _mark(topic) or document[2] != int(newest_first):
        raise BadInput(
            "The log cursor belongs to another topic or order.", "Send a cursor back with the query that gave it."
        )
    time_ms, number, row, newest_number = _int64s(document[3:7], 4)
    if not isinstance(document[7], list):
        raise _unreadable()
    bounds = [_int64s(pair, 2) for pair in document[7]]
    return Cursor((time_ms, number, row), newest_number, {number: rows for number, rows in bounds})


def _document(text: str) -> list[object]:
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        reader = zlib.decompressobj()
        document = json.loads(reader.decompress(packed, 2**20))
    except (binascii.Error, zlib.error, ValueError, RecursionError) as broken:
        raise _unreadable() from broken
    if not isinstance(document, list):
        raise _unreadable()
    return document


def _unreadable() -> BadInput:
    return BadInput("The log cursor is not one that this platform gave.", "Leave it out to begin anew.")


def _int64s(values: object, count: int) -> list[int]:
    if not isinstance(values, list) or len(values) != count:
        raise _unreadable()
    if not all(type(value) is int and -_INT64 <= value < _INT64 for value in values):
        raise _unreadable()
    return values


def _mark(topic: str) -> int:
    return zlib.crc32(topic.encode())
