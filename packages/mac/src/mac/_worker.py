"""The worker child: `python -m mac._worker FD` runs one model and answers frames on the socket FD.

A frame is `u32 header bytes | u32 body bytes | header (UTF-8 JSON) | body`, little-endian. The worker lives on when
model code raises, and ends when the socket does. It never unpickles what it reads.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import socket
import struct
import sys
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from mac._frames import ColumnReader, write_answer
from mac._loaders import load

READ_BYTES = 1 << 18
MAX_BODY_BYTES = 1 << 31
MAX_WORDS = 4000
MAX_TRACEBACK = 20000
SMALL_FRAME_BYTES = 1 << 16
MAX_PARTS = 512  # of one sendmsg; systems take 1024

_to_json = json.JSONEncoder(separators=(",", ":")).encode  # json.dumps makes a new encoder at each call


def main() -> None:
    _keep_memory_private()
    os.set_inheritable(int(sys.argv[1]), False)
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    message = channel.receive()
    if message is None:
        return
    try:
        step = _loaded(message[0])
    except BaseException as failed:  # sys.exit() at the top of a model's file is a failed load, too
        channel.fail(None, failed)
        return
    gc.collect()
    gc.freeze()  # what loading made stays: later collections need not look at it
    channel.send({"do": "ready"}, [])
    while True:
        message = channel.receive()
        if message is None or message[0]["do"] == "stop":
            return
        header, body = message
        try:
            columns, buffers = step.run(header, body)
        except Exception as raised:
            channel.fail(header["id"], raised, made_up=header.get("made_up", False))
        else:
            channel.send({"do": "result", "id": header["id"], "columns": columns}, buffers)


def _loaded(message: Dict[str, Any]) -> Step:
    """What the `load` message asks for."""
    inputs, outputs = message["input"], message["output"]
    folder = _enter(message["folder"])
    return Step(load(message["framework"], folder, inputs, outputs, message["config"]).predict, outputs, inputs)


class Step:
    """A model's `predict` and the schemas it answers for."""

    def __init__(self, function: Callable[..., Any], output: List[Dict[str, Any]], input: List[Dict[str, Any]]) -> None:
        self._function = function
        self._names = [field["name"] for field in input]
        self._output = output
        self._loop: Optional[asyncio.AbstractEventLoop] = None

    def run(self, header: Dict[str, Any], body: memoryview) -> Tuple[List[Dict[str, Any]], List[Any]]:
        reader = ColumnReader(body)
        rows = {name: reader.column(tree) for name, tree in zip(self._names, header["columns"])}
        answer = self._function(rows)
        if inspect.isawaitable(answer):
            answer = self._wait_for(answer)
        columns, buffers = write_answer(answer, self._output, header["rows"])
        size = sum(buffer.nbytes for buffer in buffers)
        if size >= MAX_BODY_BYTES:
            raise OverflowError(
                "The answer has %d bytes; at most %d can be returned. Send fewer rows." % (size, MAX_BODY_BYTES)
            )
        return columns, buffers

    def _wait_for(self, answer: Any) -> Any:
        async def finish() -> Any:
            return await answer

        if self._loop is None:  # one for all requests: what a model opens in it stays open
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(finish())


class Channel:
    """Frames over the socket, one at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._chunk = bytearray(READ_BYTES)
        self._view = memoryview(self._chunk)
        self._start = self._end = 0  # what is read of the chunk and not yet taken

    def receive(self) -> Optional[Tuple[Dict[str, Any], memoryview]]:
        """The next message and its body; None when the parent has closed the socket."""
        lengths = self._take(8)
        if lengths is None:
            return None
        header_bytes, body_bytes = struct.unpack("<II", lengths)
        header = self._take(header_bytes)
        body = self._take(body_bytes)
        if header is None or body is None:
            return None
        return json.loads(bytes(header)), body

    def send(self, header: Dict[str, Any], buffers: List[Any]) -> None:
        text = _to_json(header).encode()
        body_bytes = 0
        parts: List[Any] = [b"", text]
        for buffer in buffers:
            size = buffer.nbytes
            padding = -size % 8
            body_bytes += size + padding
            parts.append(buffer.tobytes() if size <= SMALL_FRAME_BYTES else memoryview(buffer.reshape(-1).view("u1")))
            if padding:
                parts.append(bytes(padding))
        parts[0] = struct.pack("<II", len(text), body_bytes)
        if body_bytes <= SMALL_FRAME_BYTES:
            self._connection.sendall(b"".join(parts))
        else:
            self._send_all(parts)

    def _send_all(self, parts: List[Any]) -> None:
        """Everything in as few calls as the socket's buffer and the system allow, without joining it."""
        waiting = [memoryview(part) for part in parts if len(part)]
        while waiting:
            sent = self._connection.sendmsg(waiting[:MAX_PARTS])
            while waiting and sent >= len(waiting[0]):
                sent -= len(waiting.pop(0))
            if sent:
                waiting[0] = waiting[0][sent:]

    def fail(self, request: Optional[int], failed: BaseException, made_up: bool = False) -> None:
        words = "".join(traceback.format_exception(type(failed), failed, failed.__traceback__))
        if made_up:
            print("A made-up row to warm up with failed (%s); that is no error." % type(failed).__name__)
        else:
            print(words, end="", file=sys.stderr)
        try:
            message = str(failed)
        except Exception:
            message = "(its message cannot be shown)"
        header = {
            "do": "failed",
            "id": request,
            "error": type(failed).__name__,
            "message": message[:MAX_WORDS],
            "traceback": words[-MAX_TRACEBACK:],
        }
        self.send(header, [])

    def _take(self, size: int) -> Optional[memoryview]:
        if self._start == self._end:
            self._start = self._end = 0
        while self._end - self._start < size <= READ_BYTES - self._start:
            got = self._connection.recv_into(self._view[self._end :])
            if not got:
                return None
            self._end += got
        have = min(size, self._end - self._start)
        taken = np.empty(size, "u1").data  # not zeroed first, as a bytearray would be
        taken[:have] = self._view[self._start : self._start + have]
        self._start += have
        while have < size:
            got = self._connection.recv_into(taken[have:])
            if not got:
                return None
            have += got
        return taken


def _enter(folder: str) -> str:
    """Make the artifact the current folder, for data files named relative to it; where it cannot be entered, stay."""
    try:
        os.chdir(folder)
    except OSError:
        print("The artifact folder cannot be entered; staying in %s." % os.getcwd(), file=sys.stderr)
    return folder


def _keep_memory_private() -> None:
    """No core dump, and no look into this process by another one of the same user: its memory holds request rows."""
    if sys.platform.startswith("linux"):
        try:
            import ctypes
        except ImportError:  # an interpreter built without libffi; the limit on core files holds all the same
            return
        ctypes.CDLL(None).prctl(4, ctypes.c_ulong(0), 0, 0, 0)  # PR_SET_DUMPABLE


if __name__ == "__main__":
    main()
