"""Frames over a Unix socket on an event loop: the bytes, without their meaning."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import orjson

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from bettong.engine.workers.frames import Buffer

MAX_HEADER_BYTES = 4 * 2**20
MAX_BODY_BYTES = 2**31
_SCRATCH_BYTES = 2**18
_JOINED_BYTES = 2**16  # up to here one write of one joined buffer is cheaper than several


class Receiver(Protocol):
    def received(self, header: dict[str, Any], body: memoryview) -> None:
        """One whole frame. `body` is nobody else's and stays."""

    def broken(self, why: str) -> None:
        """Bytes came that are no frame; nothing more will be received."""

    def ended(self) -> None:
        """The other side is gone. The last call."""


class Channel(asyncio.BufferedProtocol):
    """Cuts what comes into frames. A large body is received right where it stays: it is not copied or moved again."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._transport: asyncio.Transport | None = None
        self._scratch = memoryview(bytearray(_SCRATCH_BYTES))
        self._start = self._end = 0
        self._header: dict[str, Any] | None = None
        self._body: memoryview | None = None  # of the frame whose header has come
        self._filled = 0

    @classmethod
    async def open(cls, end: socket.socket, receiver: Receiver) -> Channel:
        _, channel = await asyncio.get_running_loop().create_unix_connection(lambda: cls(receiver), sock=end)
        return channel

    def send(self, header: dict[str, Any], buffers: Sequence[Buffer] = (), body_bytes: int = 0) -> None:
        """Send one frame; returns at once. The buffers must not change until it is out. After the end it does nothing.

        Raises:
            ValueError: the body is larger than a frame may be.
        """
        if body_bytes > MAX_BODY_BYTES:
            raise ValueError(f"The rows are {body_bytes} bytes; a worker takes at most {MAX_BODY_BYTES} at a time.")
        if self._transport is None or self._transport.is_closing():
            return
        text = orjson.dumps(header)
        head = struct.pack("<II", len(text), body_bytes) + text
        if body_bytes <= _JOINED_BYTES:
            self._transport.write(b"".join([head, *buffers]))
            return
        for part in [head, *buffers]:
            self._transport.write(part)

    def close(self) -> None:
        """Close the socket; the worker ends when it notices. Twice is no error."""
        if self._transport is not None:
            self._transport.abort()

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._receiver.ended()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is not None and len(self._body) - self._filled > _SCRATCH_BYTES:
            return self._body[self._filled :]
        if self._start:  # keep what is left of the next frame at the front
            left = bytes(self._scratch[self._start : self._end])
            self._scratch[: len(left)] = left
            self._start, self._end = 0, len(left)
        if self._end == len(self._scratch):  # a header that is longer than the scratch
            larger = memoryview(bytearray(2 * len(self._scratch)))
            larger[: self._end] = self._scratch
            self._scratch = larger
        return self._scratch[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        if self._body is not None and len(self._body) - self._filled > _SCRATCH_BYTES:
            self._filled += nbytes
        else:
            self._end += nbytes
        while self._next_frame():
            pass

    def _next_frame(self) -> bool:
        if self._header is None and not self._next_header():
            return False
        assert self._body is not None
        taken = min(self._end - self._start, len(self._body) - self._filled)
        self._body[self._filled : self._filled + taken] = self._scratch[self._start : self._start + taken]
        self._filled += taken
        self._start += taken
        if self._filled < len(self._body):
            return False
        header, body = self._header, self._body
        assert header is not None
        self._header, self._body, self._filled = None, None, 0
        self._receiver.received(header, body)
        return True

    def _next_header(self) -> bool:
        have = self._end - self._start
        if have < 8:
            return False
        header_bytes, body_bytes = struct.unpack_from("<II", self._scratch, self._start)
        if header_bytes > MAX_HEADER_BYTES or body_bytes > MAX_BODY_BYTES:
            return self._break(f"a frame of {header_bytes} + {body_bytes} bytes")
        if have < 8 + header_bytes:
            return False
        first = self._start + 8
        try:
            header = orjson.loads(self._scratch[first : first + header_bytes])
        except orjson.JSONDecodeError:
            return self._break("a header that is not JSON")
        if not isinstance(header, dict):
            return self._break("a header that is not an object")
        self._start = first + header_bytes
        # numpy leaves the memory untouched until bytes arrive: a frame that lies about its size costs nothing
        self._header, self._body, self._filled = header, np.empty(body_bytes, "u1").data, 0
        return True

    def _break(self, why: str) -> bool:
        self._start = self._end = 0
        self._receiver.broken(why)
        self.close()
        return False
