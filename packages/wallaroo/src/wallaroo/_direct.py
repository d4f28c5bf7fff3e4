"""Inferences to this machine over plain HTTP, without the general client: that takes longer than a small model.

One row costs 0.2 ms of CPU here and 0.9 over httpx. Whatever needs more than a socket (TLS, proxies, another machine)
goes over httpx.
"""

from __future__ import annotations

import http.client
import select
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

KEEP_S = 30.0  # an idle connection
_ONE_SEND_BYTES = 64 * 2**10


class Refused(OSError):
    """Nothing accepts connections there."""


class Connections:
    """Connections to replicas of this machine. Safe in several threads, each request on a connection of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: dict[tuple[str, int], list[tuple[float, _Connection]]] = {}
        self._generation = 0

    def post(
        self,
        host: str,
        port: int,
        target: str,
        content: bytes,
        headers: Mapping[str, str],
        *,
        connect_timeout_s: float,
        timeout_s: float,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in small letters) and body of the answer, of any status. Never sent twice.

        Raises:
            Refused: no connection could be made.
            TimeoutError: the other side did nothing for `timeout_s`.
            OSError, http.client.HTTPException: the connection ended before the answer, or the answer is none.
        """
        generation = self._generation
        connection = self._take(host, port) or _Connection.to(host, port, connect_timeout_s)
        try:
            connection.sock.settimeout(timeout_s)
            answer = connection.ask(target, content, headers)
            told = {name.lower(): value for name, value in answer.getheaders()}
            body = answer.read()
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._give_back((host, port), connection, generation)
        return answer.status, told, body

    def drop(self) -> None:
        """The next requests open new connections; those in flight end in peace."""
        with self._lock:
            self._generation += 1
            for connections in self._idle.values():
                for _, connection in connections:
                    connection.close()
            self._idle.clear()

    def _take(self, host: str, port: int) -> _Connection | None:
        while True:
            with self._lock:
                connections = self._idle.get((host, port))
                if not connections:
                    return None
                since, connection = connections.pop()
            # something to read before anything was asked: the other side has closed it
            if time.monotonic() - since < KEEP_S and not select.select([connection.sock], [], [], 0)[0]:
                return connection
            connection.close()

    def _give_back(self, place: tuple[str, int], connection: _Connection, generation: int) -> None:
        with self._lock:
            if generation == self._generation:
                self._idle.setdefault(place, []).append((time.monotonic(), connection))
                return
        connection.close()


class _Connection(http.client.HTTPConnection):
    """Sends the head of a request and a small body in one piece: a server has all of it at once then."""

    _held: list[bytes]

    @classmethod
    def to(cls, host: str, port: int, timeout_s: float) -> _Connection:
        made = cls(host, port, timeout=timeout_s)
        try:
            made.connect()
        except OSError as failed:
            raise Refused(*failed.args) from failed
        return made

    def ask(self, target: str, content: bytes, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        self._held = []
        self.request("POST", target, content, dict(headers))
        parts = [b"".join(self._held)] if len(content) <= _ONE_SEND_BYTES else self._held
        try:
            for part in parts:
                self.sock.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it may have answered before it had read everything: a body that is too large
        return self.getresponse()

    def send(self, data: bytes) -> None:  # type: ignore[override]
        self._held.append(data)
