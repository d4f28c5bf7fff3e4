"""Rows in and out as Arrow streams over HTTP, one batch in memory at a time, however slow the other side is.

Sources are read by threads of their own, a few per server: one that does not answer holds up no other request.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.to_thread
import pyarrow as pa
from starlette.responses import StreamingResponse

from bettong.engine.codec import ARROW_STREAM
from bettong.engine.problem import status_of
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextlib import AbstractContextManager

    from fastapi import Request
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
log = logging.getLogger("bettong.api")

THREADS = 16
PROBLEM = b"bettong.problem"  # the key of a last batch without rows, which says why no more come


async def apart(request: Request, work: Callable[[], T]) -> T:
    """Run `work` in one of the threads that wait for data sources. Raises what it raises."""
    state = request.app.state
    if not hasattr(state, "source_threads"):
        state.source_threads = anyio.CapacityLimiter(THREADS)
    return await anyio.to_thread.run_sync(work, limiter=state.source_threads)


async def arrow_answer(
    request: Request, source: AbstractContextManager[pa.RecordBatchReader], request_id: str
) -> ArrowAnswer:
    """The rows of `source` as an answer. Whatever goes wrong before the first batch is an error of its own.

    An error after it ends the stream in its middle; before that comes a batch without rows whose metadata hold the
    problem, for clients that look.
    """
    outflow = _Outflow(source, request_id)
    return ArrowAnswer(request, outflow, await apart(request, outflow.start))


class ArrowAnswer(StreamingResponse):
    """Ends the reading when the last byte is out or the client is gone."""

    def __init__(self, request: Request, outflow: _Outflow, first: list[bytes]) -> None:
        super().__init__((), media_type=ARROW_STREAM)
        self._request, self._outflow, self._first = request, outflow, first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await apart(self._request, self._outflow.close)

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        pieces: list[bytes] | None = self._first
        while pieces is not None:
            for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            pieces = await apart(self._request, self._outflow.next)
        if self._outflow.broken:
            return  # an answer that is never completed makes the server end the connection
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _Outflow:
    """Batches of a source as the bytes of an Arrow stream. Called from one thread at a time."""

    def __init__(self, source: AbstractContextManager[pa.RecordBatchReader], request_id: str) -> None:
        self._source, self._request_id = source, request_id
        self._stack = ExitStack()
        self._sink = _Pieces()
        self._ended = False
        self.broken = False

    def start(self) -> list[bytes]:
        """Open the source and take its first batch. Raises what it raises; then there is nothing to close."""
        try:
            self._reader = self._stack.enter_context(self._source)
            self._batches: Iterator[pa.RecordBatch] = iter(self._reader)
            first = next(self._batches, None)
            self._writer = pa.ipc.new_stream(self._sink, self._reader.schema)
        except BaseException:
            self._stack.close()
            raise
        if first is None:
            self._end()
        else:
            self._writer.write_batch(first)
        return self._sink.taken()

    def next(self) -> list[bytes] | None:
        """The next bytes; None when there are no more, be it because the reading is `broken`."""
        if self._ended:
            return None
        try:
            batch = next(self._batches, None)
        except Exception as failed:
            return self._broken(failed)
        if batch is None:
            self._end()
        else:
            self._writer.write_batch(batch)
        return self._sink.taken()

    def close(self) -> None:
        self._stack.close()

    def _end(self) -> None:
        self._ended = True
        self._writer.close()

    def _broken(self, failed: Exception) -> list[bytes]:
        self._ended = self.broken = True
        told = failed if isinstance(failed, BettongError) else BettongError("The platform failed while it read rows.")
        log.warning(
            "rows_broke_off error=%s request_id=%s",
            told.code,
            self._request_id,
            exc_info=None if told is failed else failed,
        )
        problem = {
            "msg": str(told),
            "code": status_of(told),
            "error": told.code,
            "next_step": told.next_step,
            "request_id": self._request_id,
        }
        none = [pa.array([], field.type) for field in self._reader.schema]
        last = pa.RecordBatch.from_arrays(none, schema=self._reader.schema)
        self._writer.write_batch(last, custom_metadata={PROBLEM: json.dumps(problem).encode()})
        return self._sink.taken()


def table_as_stream(table: pa.Table) -> bytes:
    """A table that fits into memory as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


class _Pieces(io.RawIOBase):
    """A file that hands on what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces


async def arrow_body(request: Request) -> _Inflow:
    """The body of a request, for `read_rows` in a thread."""
    return _Inflow(request.stream(), asyncio.get_running_loop())


def read_rows(body: _Inflow) -> pa.RecordBatchReader:
    """The rows of a body that is an Arrow stream; more of it is received as they are read.

    Raises:
        BadInput: it does not begin as one. So does the reader, later, when it does not go on as one.
    """
    try:
        reader = pa.ipc.open_stream(pa.PythonFile(io.BufferedReader(body), mode="r"))
        return pa.RecordBatchReader.from_batches(reader.schema, _checked(reader))
    except (pa.ArrowInvalid, OSError):
        raise _no_stream() from None


def _checked(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch = reader.read_next_batch()
            batch.validate(full=True)
        except StopIteration:
            return
        except (pa.ArrowInvalid, OSError):
            raise _no_stream() from None
        yield batch


class _Inflow(io.RawIOBase):
    """A file in a thread over a body that arrives in the event loop. What is not asked for is not received."""

    def __init__(self, chunks: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._chunks, self._loop = chunks, loop
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes | None:
        return await anext(self._chunks, None)


def _no_stream() -> BadInput:
    return BadInput("The body is not a whole Arrow stream.", "Write it with pyarrow.ipc.new_stream, and to its end.")
