"""What goes between the server and a driver's process: frames of words (JSON) and of rows (Arrow) over two pipes.

A frame: one byte of kind, the length of its body in 8 bytes (little-endian), the body. Pipes fill up, so whoever sends
faster than the other reads has to wait: no more than a batch is in memory on either side.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import struct
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS, SCHEMA, ROWS, END = b"J", b"S", b"B", b"E"
MAX_BODY_BYTES = 2**31
_HEAD = struct.Struct("<cQ")
_PIPE_BYTES = 2**20
_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, Linux


class Ended(Exception):
    """The other side closed its pipe, or sent what is no frame."""


class Interrupted(Exception):
    """The other side has something to say before it takes more."""


class Line:
    """Both directions. `until` is a time of time.monotonic(); without one, a call waits as long as it takes."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self.incoming, self.outgoing = incoming, outgoing

    def say(self, words: dict[str, Any], until: float | None = None) -> None:
        self.send(WORDS, json.dumps(words, separators=(",", ":")).encode(), until)

    def send_schema(self, schema: pa.Schema, until: float | None = None) -> None:
        self.send(SCHEMA, schema.serialize(), until)

    def send_batch(self, batch: pa.RecordBatch, until: float | None = None, *, listen: bool = False) -> None:
        self.send(ROWS, batch.serialize(), until, listen=listen)

    def send(self, kind: bytes, body: Any = b"", until: float | None = None, *, listen: bool = False) -> None:
        """Send one frame.

        Raises:
            Ended: nobody reads any more.
            Interrupted: with `listen`: something came in while waiting. The frame is not whole: send no other.
            TimeoutError: it was not taken until then.
        """
        view = memoryview(body).cast("B")
        parts = [memoryview(_HEAD.pack(kind, len(view))), view]
        waits = until is not None or listen
        while parts:
            if waits:
                self._wait(self.outgoing, select.POLLOUT, until, listen=listen)
            try:
                sent = os.writev(self.outgoing, parts)
            except BlockingIOError:
                continue
            except OSError:
                raise Ended from None
            while parts and sent >= len(parts[0]):
                sent -= len(parts.pop(0))
            if parts:
                parts[0] = parts[0][sent:]

    def receive(self, until: float | None = None) -> tuple[bytes, pa.Buffer]:
        """The next frame. Raises Ended, or TimeoutError when it was not there in time."""
        head = bytearray(_HEAD.size)
        self._fill(memoryview(head), until)
        kind, size = _HEAD.unpack(head)
        if kind not in (WORDS, SCHEMA, ROWS, END) or size > MAX_BODY_BYTES:
            raise Ended
        body = pa.allocate_buffer(size)
        self._fill(memoryview(body).cast("B"), until)
        return kind, body

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        """The rows that come until the end is said. Raises Ended when it is not said."""
        while True:
            kind, body = self.receive()
            if kind == END:
                return
            if kind != ROWS:
                raise Ended
            yield pa.ipc.read_record_batch(body, schema)

    def _fill(self, space: memoryview, until: float | None) -> None:
        while space:
            if until is not None:
                self._wait(self.incoming, select.POLLIN, until)
            try:
                got = os.readv(self.incoming, [space])
            except BlockingIOError:
                continue
            except OSError:
                raise Ended from None
            if not got:
                raise Ended
            space = space[got:]

    def _wait(self, which: int, event: int, until: float | None, *, listen: bool = False) -> None:
        poll = select.poll()
        poll.register(which, event)
        if listen:
            poll.register(self.incoming, select.POLLIN)
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        ready = dict(poll.poll(left))
        if not ready:
            raise TimeoutError
        if listen and self.incoming in ready:
            raise Interrupted


def widen(descriptor: int) -> None:
    """Let a pipe hold a megabyte: fewer changes between the two processes. Systems that cannot keep theirs."""
    import fcntl

    with contextlib.suppress(OSError, ValueError):
        fcntl.fcntl(descriptor, _SET_PIPE_SIZE, _PIPE_BYTES)


def words(body: pa.Buffer) -> dict[str, Any]:
    """Raises Ended for what is no JSON object."""
    try:
        said = json.loads(body.to_pybytes())
    except ValueError:
        raise Ended from None
    if not isinstance(said, dict):
        raise Ended
    return said
