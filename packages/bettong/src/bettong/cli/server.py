"""Run the server in this process until it is told to stop."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import uuid4

import uvicorn

from bettong import __version__, compose
from bettong.cli import record
from bettong.errors import Conflict, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from bettong.settings import Settings

log = logging.getLogger("bettong.server")


class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is untyped to us
    """Leaves the record and starts the jobs once it answers."""

    def __init__(self, config: uvicorn.Config, platform: compose.Platform, home: Path, where: record.Record) -> None:
        super().__init__(config)
        self._platform, self._home, self._where = platform, home, where

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._platform.start_jobs()
        record.write(self._home, self._where)
        log.info("serving url=%s pid=%d version=%s", self._where.url, self._where.pid, __version__)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM, SIGINT or a stop call. Deployments outlive the server unless the stop call takes them along.

    Raises:
        Conflict: another server has this home.
        Unavailable: the address cannot be listened on.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells each plugin that it loads
    compose.prepare_home(settings)
    compose.raise_descriptor_limit()
    nursery = compose.start_nursery()  # first of all: it must have opened nothing, not even the lock
    compose.keep_pandas_out()
    with compose.closing_all() as stack:
        stack.callback(nursery.close)
        stack.callback(os.close, _take_home(settings.home))
        listener = _listen(settings)
        stack.callback(listener.close)
        url = f"http://{_shown(settings.host)}:{listener.getsockname()[1]}"
        where = record.Record(url, os.getpid(), str(uuid4()), __version__, datetime.now(UTC).isoformat())
        platform = compose.build(settings, nursery, url=url, instance=where.instance, started_at=where.started_at)
        stack.callback(platform.close)
        server = Server(compose.http_config(platform, settings), platform, settings.home, where)
        platform.on_stop(lambda: setattr(server, "should_exit", True))
        server.run(sockets=[listener])


def _take_home(home: Path) -> int:
    """Hold the lock of `home` until the descriptor is closed or the process ends."""
    descriptor = os.open(home / "serve.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(
            f"Another server has the home {home}.", "Use it, stop it (bettong stop), or set BETTONG_HOME."
        ) from None
    return descriptor


def _listen(settings: Settings) -> socket.socket:
    """Listen on the wanted port; with port 0 on the last one, so that clients find a restarted server where it was."""
    last = record.read(settings.home)
    wanted = [settings.port] if settings.port else [int(last.url.rpartition(":")[2]) if last else 0, 0]
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    for attempt, port in enumerate(wanted):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.host, port))
            listener.listen(1024)
            return listener
        except OSError as refused:
            listener.close()
            if attempt == len(wanted) - 1:
                raise _not_listening(settings.host, port, refused) from refused
    raise AssertionError("unreachable: the last attempt returns or raises")


def _not_listening(host: str, port: int, refused: OSError) -> Unavailable:
    if isinstance(refused, socket.gaierror) or refused.errno == errno.EADDRNOTAVAIL:
        return Unavailable(
            f"'{host}' is no address of this machine ({refused.strerror}).",
            "Give one that is with --host or BETTONG_HOST: 127.0.0.1, or 0.0.0.0 for all of its networks.",
        )
    return Unavailable(
        f"Port {port} on {host} cannot be listened on ({refused.strerror}).",
        "Free it, or give another one with --port.",
    )


def _shown(host: str) -> str:
    """The host as a client on this machine would write it in a URL."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
