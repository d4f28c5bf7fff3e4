"""Packed bytes, piece by piece: no piece grows without a bound."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PIECE_BYTES = 2**20
_GZIP = b"\x1f\x8b"
_ANY_HEADER = 47  # gzip or zlib, whichever it is


def inflated(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip or zlib data. Raises BadInput when it is broken or ends too early."""
    unpacker = zlib.decompressobj(_ANY_HEADER)
    fed = False
    try:
        for chunk in chunks:
            rest = chunk
            while rest:
                fed = True
                if unpacker.eof:  # gzip members may follow one another
                    unpacker = zlib.decompressobj(_ANY_HEADER)
                yield unpacker.decompress(rest, PIECE_BYTES)
                rest = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error:
        raise BadInput("The packed data cannot be unpacked.", "Look at what was written there.") from None
    if fed and not unpacker.eof:
        raise BadInput("The packed data ends too early.", "Look at what was written there.")


def unpacked_if_gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes, unpacked when they begin as a .gz file does."""
    source = iter(chunks)
    head = b""
    for chunk in source:
        head += chunk
        if len(head) >= len(_GZIP):
            break

    def again() -> Iterator[bytes]:
        yield head
        yield from source

    return inflated(again()) if head.startswith(_GZIP) else again()
