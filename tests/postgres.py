"""A private PostgreSQL for tests: made with initdb, on loopback and a free port, gone at the end.

PostgreSQL refuses to run as root; then it runs as a user of this machine that owns nothing else.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certificates import Certificate

UNPRIVILEGED = ("postgres", "nobody")


@dataclass(frozen=True)
class Postgres:
    """A running server. Anyone on this machine may log in as `bettong`; it listens on loopback alone."""

    port: int

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://bettong@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """The URL of a fresh database, a copy of `template`."""
        name = f"test_{uuid4().hex}"
        self._run(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected to it."""
        name = url.rpartition("/")[2]
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)


@contextmanager
def running_postgres(certificate: Certificate | None = None) -> Iterator[Postgres]:
    """Start a server, yield it, stop it and remove its files; with a certificate it speaks TLS, too. Raises
    RuntimeError when it is not installed."""
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    # Not under pytest's temporary folder: that one may be entered by its owner alone.
    folder = Path(tempfile.mkdtemp(prefix="bettong-postgres-"))
    as_user = _unprivileged(folder)
    data, log = folder / "data", folder / "server.log"
    try:
        _run([initdb, "-D", str(data), "-U", "bettong", "--auth=trust", "-E", "UTF8", "--no-sync"], folder, as_user)
        more = _with_tls(certificate, folder, as_user) if certificate is not None else ""
        port = _start(pg_ctl, data, log, folder, as_user, more)
        try:
            yield Postgres(port)
        finally:
            _run([pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop"], folder, as_user)
    finally:
        shutil.rmtree(folder)


def _with_tls(certificate: Certificate, folder: Path, as_user: dict[str, Any]) -> str:
    """The options for a server that speaks TLS; it takes no key that others may read."""
    paths = certificate.write(folder)
    if as_user:
        for path in paths:
            os.chown(path, as_user["user"], as_user["group"])
    return f" -c ssl=on -c ssl_cert_file='{paths[0]}' -c ssl_key_file='{paths[1]}'"


def _start(pg_ctl: str, data: Path, log: Path, folder: Path, as_user: dict[str, Any], more: str) -> int:
    for attempts_left in (2, 1, 0):  # a free port may be taken by somebody else before the server has it
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='{folder}' -c fsync=off{more}"
        command = [pg_ctl, "-D", str(data), "-o", options, "-l", str(log), "-w", "-t", "60", "start"]
        try:
            _run(command, folder, as_user)
        except RuntimeError as failed:
            if not attempts_left:
                raise RuntimeError(f"{failed}\n{log.read_text()}") from failed
        else:
            return port
    raise AssertionError("unreachable")


def _run(command: list[str], folder: Path, as_user: dict[str, Any]) -> None:
    # The server inherits the output of pg_ctl: a file, since a pipe would stay open for as long as it runs.
    with tempfile.TemporaryFile() as output:
        ended = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "Asia/Kathmandu"},  # not UTC, to find who assumes it
            check=False,
            **as_user,
        )
        if ended.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[0]} ended with {ended.returncode}: {output.read().decode(errors='replace')}")


def _program(name: str) -> str:
    places = [os.environ["PATH"], *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    if (found := shutil.which(name, path=os.pathsep.join(places))) is None:
        raise RuntimeError(
            f"These tests need PostgreSQL: '{name}' is neither on the PATH nor in /usr/lib/postgresql. "
            "Install its server (Debian, Ubuntu: apt install postgresql; macOS: brew install postgresql)."
        )
    return found


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Give the folder to a user who may run PostgreSQL; what subprocess needs to become that user."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        try:
            user = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, user.pw_uid, user.pw_gid)
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise RuntimeError(f"PostgreSQL does not run as root, and this machine has none of the users {UNPRIVILEGED}.")
