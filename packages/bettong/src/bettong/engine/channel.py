"""The line between a host and one of its replicas: JSON lines over a Unix socket pair, some of them with a socket."""

from __future__ import annotations

import array
import json
import os
import socket
from collections import deque
from typing import Any

MAX_LINE_BYTES = 2**20
_MAX_FDS_AT_ONCE = 64
_READ_BYTES = 65536
_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # not on macOS; there os.set_inheritable does it a moment later


class Channel:
    """One end. Never blocks: what the other side does not take yet is kept until `flush`.

    After the other side is gone `closed` is true, and sending does nothing: a process learns of the other's death by
    reading, in one place, and not in each call.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._unsent: deque[tuple[bytes, int | None]] = deque()
        self._read = bytearray()
        self._fds: deque[int | None] = deque()  # None: one that was lost, this process having too many open
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def wants_write(self) -> bool:
        return bool(self._unsent) and not self.closed

    def send(self, message: dict[str, Any], fd: int | None = None) -> None:
        """Send a message. The receiver gets a duplicate of `fd`, which has to stay open until it has answered."""
        if fd is not None:
            message = {**message, "fd": True}
        self._unsent.append((json.dumps(message).encode() + b"\n", fd))
        self.flush()

    def flush(self) -> None:
        while self._unsent and not self.closed:
            data, fd = self._unsent[0]
            ancillary = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
            try:
                sent = self._socket.sendmsg([data], ancillary)
            except BlockingIOError:
                return
            except OSError:  # reset or broken pipe: the other side is gone
                self.closed = True
                return
            self._unsent.popleft()
            if sent < len(data):  # the descriptor went with the first byte
                self._unsent.appendleft((data[sent:], None))

    def receive(self) -> list[tuple[dict[str, Any], int | None]]:
        """The messages that are here, with the descriptor that came with each. The caller owns the descriptors.

        A descriptor that this process has no room for is lost: its message comes without, as one that had none.
        """
        messages: list[tuple[dict[str, Any], int | None]] = []
        while True:
            try:
                data, ancillary, flags, _ = self._socket.recvmsg(
                    _READ_BYTES, socket.CMSG_SPACE(_MAX_FDS_AT_ONCE * array.array("i").itemsize), _CLOEXEC
                )
            except BlockingIOError:
                return messages
            except OSError:
                data, ancillary, flags = b"", [], 0
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                    self._fds.extend(fds)
            if flags & socket.MSG_CTRUNC:  # the system hands over one message's descriptor at a time
                self._fds.append(None)
            if not data:
                self.closed = True
                return messages
            self._read += data
            *lines, rest = bytes(self._read).split(b"\n")
            self._read = bytearray(rest)
            for line in lines:
                messages.append(self._message(line))
            if len(rest) > MAX_LINE_BYTES:
                raise ValueError(f"A message on a replica's channel has more than {MAX_LINE_BYTES} bytes.")

    def close(self) -> None:
        """Twice is no error."""
        self.closed = True
        while self._fds:
            if (fd := self._fds.popleft()) is not None:
                os.close(fd)
        self._socket.close()

    def _message(self, line: bytes) -> tuple[dict[str, Any], int | None]:
        message: dict[str, Any] = json.loads(line)
        if not message.pop("fd", False):
            return message, None
        fd = self._fds.popleft()  # descriptors arrive with or before the first byte of their message, in order
        if fd is not None:
            os.set_inheritable(fd, False)
        return message, fd
