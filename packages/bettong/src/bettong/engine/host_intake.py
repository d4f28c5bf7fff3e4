"""A host's port: connections are accepted, wait in a bounded line, and go to a replica, or are refused with a 503."""

from __future__ import annotations

import errno
import json
import logging
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.engine.replica import BEAT_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.deployments import DeploymentSpec
    from bettong.engine.host_replica import ReplicaHandle

FAREWELL_S = 2.0  # for a refused client to read its 503
QUIET_S = 3 * BEAT_S  # a replica silent for longer gets connections only when there is no other
ACCEPT_PAUSE_S = 0.2  # after the system has run out of descriptors or memory
BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_BUSY = json.dumps(
    {
        "code": 503,
        "status": "error",
        "error": "No replica of this deployment takes requests at the moment. Try again, or look at its status.",
        "source": "engine",
    }
).encode()
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_BUSY), _BUSY)
)

log = logging.getLogger("bettong.host")


@dataclass(frozen=True, slots=True)
class Taker:
    """A replica that takes connections, and when it last gave a sign of life."""

    handle: ReplicaHandle
    beat_s: float


class Intake:
    """The listening socket and every connection that no replica has yet.

    It knows nothing of generations: `route` tells it whose time-out and limit hold, and who takes connections.
    Port 0, or one that is taken, becomes a free one: `port`.

    Raises:
        OSError: the address is not one of this machine.
    """

    def __init__(self, spec: DeploymentSpec, selector: selectors.BaseSelector) -> None:
        self._spec, self._selector = spec, selector
        self._takers: Sequence[Taker] = ()
        self._hopeless = False
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._farewells: dict[socket.socket, float] = {}
        self._turn = 0  # so that ties go round
        self._accept_again_s: float | None = None
        self._listener = _listen(spec.host, spec.port)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._listen_on()

    def route(self, spec: DeploymentSpec, takers: Sequence[Taker], *, hopeless: bool) -> None:
        """From now on connections go to `takers`, within the limits of `spec`; with no hope, all are refused."""
        self._spec, self._takers, self._hopeless = spec, takers, hopeless
        self._hand_out()

    def take_back(self, socks: Sequence[socket.socket]) -> None:
        """Connections that a dead replica had not taken: they are the next, with a time-out of their own."""
        due_s = time.monotonic() + self._spec.request_timeout_s
        self._waiting.extendleft((sock, due_s) for sock in reversed(socks))

    def refuse(self, sock: socket.socket) -> None:
        """Answer 503 and close so that the client can read it: a reset would take the answer away."""
        try:
            sock.send(_REFUSAL)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        self._farewells[sock] = time.monotonic() + FAREWELL_S
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._read_away(sock))

    def next_due_s(self) -> float:
        due = list(self._farewells.values())
        if self._waiting:
            due.append(self._waiting[0][1])
        if self._accept_again_s is not None:
            due.append(self._accept_again_s)
        return min(due, default=float("inf"))

    def on_time(self, now_s: float) -> None:
        for sock in [s for s, due_s in self._farewells.items() if due_s <= now_s]:
            self._end_farewell(sock)
        while self._waiting and self._waiting[0][1] <= now_s:
            self.refuse(self._waiting.popleft()[0])
        if self._accept_again_s is not None and self._accept_again_s <= now_s:
            self._accept_again_s = None
            self._listen_on()

    def stop_listening(self) -> None:
        self._listener.close()

    def close_descriptors(self) -> None:
        """Close all that is held here. Leaves the selector alone: a forked child has its parent's."""
        for sock in (self._listener, *self._farewells, *(sock for sock, _ in self._waiting)):
            sock.close()

    # --- in ---

    def _listen_on(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as fault:
                if fault.errno in _OUT_OF_RESOURCES:
                    log.error("host cannot accept", extra={"fields": {"errno": errno.errorcode[fault.errno]}})
                    self._selector.unregister(self._listener)
                    self._accept_again_s = time.monotonic() + ACCEPT_PAUSE_S
                    break
                continue  # the client was gone before it was accepted
            sock.setblocking(False)
            self._waiting.append((sock, time.monotonic() + self._spec.request_timeout_s))
        self._hand_out()
        while len(self._waiting) > self._spec.max_queued_requests:
            self.refuse(self._waiting.pop()[0])

    # --- on to a replica ---

    def _hand_out(self) -> None:
        """Give waiting connections to replicas, each to the one that has the fewest."""
        if not self._waiting:
            return
        if self._hopeless:
            while self._waiting:
                self.refuse(self._waiting.popleft()[0])
        quiet_since_s = time.monotonic() - QUIET_S
        takers = [(t.handle, t.beat_s < quiet_since_s) for t in self._takers if t.handle.reachable]
        while self._waiting and takers:
            self._turn += 1
            shift = self._turn % len(takers)
            handle, _ = min(takers[shift:] + takers[:shift], key=lambda t: (t[1], t[0].connections))
            sock, _ = self._waiting.popleft()
            handle.hand(sock)

    # --- out with a 503 ---

    def _read_away(self, sock: socket.socket) -> None:
        try:
            if sock.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass  # reset by the client: as good as closed
        self._end_farewell(sock)

    def _end_farewell(self, sock: socket.socket) -> None:
        del self._farewells[sock]
        self._selector.unregister(sock)
        sock.close()


def _listen(host: str, port: int) -> socket.socket:
    """Listen on `port`, or on any when it is 0 or taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in (port, 0):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of the last host may linger
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit it
            sock.bind((host, wanted))
            sock.listen(BACKLOG)
        except OSError as fault:
            sock.close()
            if fault.errno != errno.EADDRINUSE or wanted == 0:
                raise
            log.warning("port is taken", extra={"fields": {"host": host, "port": wanted}})
        else:
            return sock
    raise AssertionError("port 0 either binds or raises")
