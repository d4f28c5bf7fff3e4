"""A replica as its host holds it: a process, the channel to it, and the connections that were handed to it."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from bettong.engine.channel import Channel
    from bettong.engine.metrics import Memory


class ReplicaHandle:
    """One replica process of this host.

    `connections` counts those that it was given and that have not ended; `untaken` are the sockets among them that it
    has not said to have taken, oldest first: should it die, they are still the host's. `counters` is what it counts, in
    memory that outlives it. What it says goes to `heard`, one message after another.
    """

    def __init__(
        self,
        name: str,
        pid: int,
        generation: int,
        channel: Channel,
        counters: Memory,
        selector: selectors.BaseSelector,
        heard: Callable[[ReplicaHandle, dict[str, Any]], None],
    ) -> None:
        self.name, self.pid, self.generation, self.counters = name, pid, generation, counters
        self.connections = 0
        self.untaken: deque[socket.socket] = deque()
        self._channel, self._selector, self._heard = channel, selector, heard
        self._watched = True
        self._writing = False
        selector.register(channel, selectors.EVENT_READ, self._on_channel)

    @property
    def reachable(self) -> bool:
        """Whether its end of the channel is open; a replica that is gone is noticed there before its exit is."""
        return not self._channel.closed

    def hand(self, sock: socket.socket) -> None:
        """Give it a client's connection."""
        self.connections += 1
        self.untaken.append(sock)
        self.send({"do": "serve"}, sock.fileno())

    def took(self) -> None:
        """It has the oldest of `untaken` now."""
        self.untaken.popleft().close()

    def handed_back(self) -> socket.socket:
        """The oldest of `untaken`, for which it has no room."""
        self.connections -= 1
        return self.untaken.popleft()

    def ended(self, connections: int) -> None:
        """So many of its connections have ended."""
        self.connections -= connections

    def send(self, message: dict[str, Any], fd: int | None = None) -> None:
        self._channel.send(message, fd)
        self._watch()

    def hear(self) -> None:
        """Take what it has said so far."""
        for message, _ in self._channel.receive():
            self._heard(self, message)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """How the process ended, told once; None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None

    def let_go(self) -> None:
        """Close the channel to a replica that has ended, and its counters. Its `untaken` sockets stay open."""
        if self._watched:
            self._selector.unregister(self._channel)
            self._watched = False
        self._channel.close()
        self.counters.close()

    def close_descriptors(self) -> None:
        """Close all that is held here. Leaves the selector alone: a forked child has its parent's."""
        self._channel.close()
        self.counters.close()
        for sock in self.untaken:
            sock.close()

    def _on_channel(self, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            self._channel.flush()
        if mask & selectors.EVENT_READ:
            self.hear()
        self._watch()

    def _watch(self) -> None:
        """Keep the selector's interest in the channel in step with what is left to send; none once it is closed."""
        if self._channel.closed:
            if self._watched:
                self._selector.unregister(self._channel)
                self._watched = False
        elif self._writing != self._channel.wants_write:
            self._writing = self._channel.wants_write
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._writing else 0)
            self._selector.modify(self._channel, mask, self._on_channel)


def exit_words(code: int) -> str:
    """An exit code as people read it."""
    if code >= 0:
        return f"Ended with exit code {code}."
    with contextlib.suppress(ValueError):
        return f"Was killed by signal {-code} ({signal.Signals(-code).name})."
    return f"Was killed by signal {-code}."
