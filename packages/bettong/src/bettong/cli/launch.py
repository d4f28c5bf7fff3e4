"""Start and stop the platform of this machine from outside: what `bettong up` and `bettong stop` do."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil

from bettong.cli import record
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

LOG = "server.log"
START_TIMEOUT_S = 60.0


def up(home: Path, environment: Mapping[str, str]) -> tuple[record.Record, bool]:
    """Find the platform of `home` or start it; (where it runs, whether it was started now).

    Safe to call from several processes at once: one of them starts it, the others find it.

    Raises:
        Unavailable: the server ended or did not answer in time; its last log line is told.
    """
    if found := record.running(home):
        return found, False
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(home / "start.lock"):
        if found := record.running(home):
            return found, False
        return _start(home, environment), True


def wait_for_end(pid: int, timeout_s: float) -> bool:
    """True when the process has ended within `timeout_s`, whether its parent has taken notice or not."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def _start(home: Path, environment: Mapping[str, str]) -> record.Record:
    log = home / LOG
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        began_at = os.fstat(descriptor).st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "bettong", "serve"],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,  # it outlives the notebook and its Ctrl-C
            cwd=home,
            env=dict(environment),
        )
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if (found := record.running(home)) and found.pid == process.pid:
            process.returncode = 0  # it is not ours to wait for any more: no warning about a running child
            return found
        if process.poll() is not None:
            raise Unavailable(
                f"The server ended with code {process.returncode} while it started: {_last_line(log, began_at)}",
                f"The whole log is in {log}.",
            )
        time.sleep(0.02)
    process.kill()
    raise Unavailable(f"The server did not answer within {START_TIMEOUT_S:g} s.", f"Its log is in {log}.")


def _last_line(log: Path, began_at: int) -> str:
    with log.open("rb") as file:
        file.seek(began_at)
        lines = file.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing")
    return last.removeprefix("Error: ")  # it is told as part of an error


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; wait for whoever has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
