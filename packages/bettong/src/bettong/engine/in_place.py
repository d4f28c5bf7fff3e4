"""Bodies that come in pieces, received where they will lie.

What uvloop reads on its own becomes an object of bytes, of which the parser cuts another one, of which uvicorn makes a
part of a third, and wakes the application for every 64 KiB. A body whose length is known needs none of that.
"""

from __future__ import annotations

import asyncio
import ctypes
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    Fields = list[tuple[bytes, bytes]]

MIN_BYTES = 64 * 2**10  # what is smaller mostly comes whole
MAX_BYTES = 16 * 2**20  # so much memory is taken for a client that has sent a head alone


# `bytearray(n)` without its zeros: every byte of a body is written before anybody reads it, and 720 kB of zeros cost
# 70 µs where others have emptied the caches. The function is a part of CPython's C API.
_unwritten = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_char_p, ctypes.c_ssize_t)(
    ("PyByteArray_FromStringAndSize", ctypes.pythonapi)
)


class Receiver(Protocol):
    """The protocol of a connection, which a body is received for."""

    def came(self) -> None:
        """Some of it is here."""

    def filled(self, body: bytearray) -> None:
        """All of it is; what comes next is the receiver's own again."""

    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class InPlace(asyncio.BufferedProtocol):
    """Stands for `receiver` at its transport until `length` bytes are there, of which `parts` are already."""

    def __init__(self, receiver: Receiver, length: int, parts: list[bytes]) -> None:
        self._receiver, self._at = receiver, 0
        self._body: bytearray = _unwritten(None, length)
        for part in parts:
            self._body[self._at : self._at + len(part)] = part
            self._at += len(part)

    def get_buffer(self, sizehint: int) -> memoryview:
        return memoryview(self._body)[self._at :]  # and no byte of what comes behind it

    def buffer_updated(self, nbytes: int) -> None:
        self._at += nbytes
        if self._at < len(self._body):
            self._receiver.came()
        else:
            self._receiver.filled(self._body)

    def eof_received(self) -> bool | None:
        return self._receiver.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.connection_lost(exc)

    def pause_writing(self) -> None:
        self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._receiver.resume_writing()


def length_in_place(headers: Fields, held: list[bytes]) -> int | None:
    """How long a body will be of which `held` is here, if the rest is worth receiving in place. Names of headers are in
    small letters."""
    lengths = [value for name, value in headers if name == b"content-length"]
    if len(lengths) != 1 or not lengths[0].isdigit() or any(name == b"transfer-encoding" for name, _ in headers):
        return None
    length = int(lengths[0])
    return length if length - sum(map(len, held)) >= MIN_BYTES and length <= MAX_BYTES else None
