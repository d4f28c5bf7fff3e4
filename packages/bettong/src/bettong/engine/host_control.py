"""A host's control socket: whoever may open it sends one line of JSON and gets one back."""

from __future__ import annotations

import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CONTROL_TIMEOUT_S = 10.0
_MAX_CONTROL_BYTES = 65536

Answer = Callable[[dict[str, Any]], None]  # may be called later; harmless when the asker has hung up


@dataclass(slots=True, eq=False)
class _Asker:
    """A client of the control socket."""

    sock: socket.socket
    due_s: float
    data: bytearray = field(default_factory=bytearray)
    answered: bool = False


class Control:
    """The control socket and its askers.

    `asked` gets each request and the way to answer it, now or later. What it raises of ValueError, TypeError, KeyError
    and OSError is told to the asker. An answered asker keeps its connection: the end of it tells that the host ended.

    Raises:
        OSError: nothing can listen at `path`.
    """

    def __init__(
        self, path: Path, selector: selectors.BaseSelector, asked: Callable[[dict[str, Any], Answer], None]
    ) -> None:
        self._selector, self._asked = selector, asked
        self._askers: set[_Asker] = set()
        self._listener = _listen(path)
        self._listener.setblocking(False)
        selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())

    def next_due_s(self) -> float:
        return min((asker.due_s for asker in self._askers if not asker.answered), default=float("inf"))

    def on_time(self, now_s: float) -> None:
        for asker in [a for a in self._askers if not a.answered and a.due_s <= now_s]:
            self._drop(asker)

    def close_descriptors(self) -> None:
        """Close all that is held here. Leaves the selector alone: a forked child has its parent's."""
        self._listener.close()
        for asker in self._askers:
            asker.sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        asker = _Asker(sock, time.monotonic() + CONTROL_TIMEOUT_S)
        self._askers.add(asker)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._on_asker(asker))

    def _on_asker(self, asker: _Asker) -> None:
        try:
            chunk = asker.sock.recv(_MAX_CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk or len(asker.data) > _MAX_CONTROL_BYTES:
            self._drop(asker)
            return
        asker.data += chunk
        if asker.data.endswith(b"\n") and not asker.answered:
            asker.answered = True
            try:
                self._asked(json.loads(asker.data), lambda answer: self._answer(asker, answer))
            except (ValueError, TypeError, KeyError, OSError) as broken:
                self._answer(asker, {"error": f"{type(broken).__name__}: {broken}"})

    def _answer(self, asker: _Asker, answer: dict[str, Any]) -> None:
        if asker not in self._askers:
            return  # it hung up
        try:
            asker.sock.setblocking(True)
            asker.sock.settimeout(1.0)  # one line into an empty buffer: it waits only for a client that never reads
            asker.sock.sendall(json.dumps(answer).encode() + b"\n")
            asker.sock.setblocking(False)
        except OSError:
            self._drop(asker)

    def _drop(self, asker: _Asker) -> None:
        self._askers.discard(asker)
        self._selector.unregister(asker.sock)
        asker.sock.close()


def _listen(path: Path) -> socket.socket:
    """Listen at `path`, for this user alone."""
    path.unlink(missing_ok=True)  # of a host that was killed: the lock says that no other lives
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock
