"""Bodies that come packed (Content-Encoding: gzip or zstd): unpacked step by step, and never beyond a limit."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import zstandard

from bettong.errors import BadInput, TooLarge, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACCEPTED = "gzip, zstd"
STEP_BYTES = 2**20  # what gzip is asked for at once
# zstd cannot be asked for less than a step gives: 1 KiB holds at most 256 blocks of at most 128 KiB
ZSTD_STEP_BYTES = 2**10
ZSTD_WINDOW_BYTES = 8 * 2**20  # what senders over HTTP may count on (RFC 9659)
_GZIP = 16 + zlib.MAX_WBITS


def coding_of(content_encoding: bytes) -> str | None:
    """What a Content-Encoding header asks for; None when the body is as it is.

    Raises:
        UnsupportedFormat: neither gzip nor zstd, or several of them.
    """
    name = content_encoding.strip().lower()
    if name in (b"", b"identity"):
        return None
    if name in (b"gzip", b"x-gzip"):
        return "gzip"
    if name == b"zstd":
        return "zstd"
    raise UnsupportedFormat(
        "The body has a Content-Encoding that is not taken.", f"Send it as it is, or as one of: {ACCEPTED}."
    )


def unpack(coding: str, body: bytes, max_bytes: int) -> bytes:
    """The bytes that were packed. Takes little more memory than they do, and no more than little over the limit.

    Raises:
        TooLarge: they are more than `max_bytes`; found as soon as that many are there.
        BadInput: the body is not of that coding, is cut off, or goes on behind its end.
    """
    parts: list[bytes] = []
    size = 0
    try:
        for part in (_gunzip if coding == "gzip" else _unzstd)(body):
            size += len(part)
            if size > max_bytes:
                raise TooLarge(
                    f"The body unpacks to more than {max_bytes} bytes (max_body_bytes).",
                    "Send the rows in several requests.",
                )
            parts.append(part)
    except (zlib.error, zstandard.ZstdError):
        raise _broken(coding) from None
    return b"".join(parts)


def _gunzip(body: bytes) -> Iterator[bytes]:
    left = body
    while True:  # a gzip body may have several members
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            part = member.decompress(left, STEP_BYTES)
            left = member.unconsumed_tail
            if not part and not left and not member.eof:
                raise _broken("gzip")
            yield part
        if not (left := member.unused_data):
            return


def _unzstd(body: bytes) -> Iterator[bytes]:
    make: Callable[[], Any] = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES).decompressobj
    frame, view = make(), memoryview(body)
    at, ended = 0, False
    while at < len(view):  # nor is a zstd body only one frame
        step = view[at : at + ZSTD_STEP_BYTES]
        if ended:
            frame, ended = make(), False
        yield frame.decompress(step)
        at += len(step)
        if frame.eof:
            at -= len(frame.unused_data)
            ended = True
    if not ended:
        raise _broken("zstd")


def _broken(coding: str) -> BadInput:
    return BadInput(
        f"The body is not whole {coding} data, as its Content-Encoding says.", "Pack it again, or send it as it is."
    )
