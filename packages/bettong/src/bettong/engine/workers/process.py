"""One worker process: started through the sandboxing launcher, watched by its sentinel, ended with its children."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAST_WORDS_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker is started with. All folders are absolute; `scratch` takes its temporary folder while it runs."""

    environment: Path
    artifact: Path
    scratch: Path
    log_file: Path
    threads: int
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)


def launcher() -> Path:
    """Where `mac` keeps the launcher. Found, not imported: the worker's code never runs in this process.

    Raises:
        Unavailable: the platform's installation lacks bettong-mac.
    """
    spec = importlib.util.find_spec("mac")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / "_launch.py").is_file():
            return path
    raise Unavailable("The worker's launcher is not installed.", "Install the distribution bettong-mac beside bettong.")


def describe_sandbox() -> str:
    """What holds workers on this machine, in words, without the uid: the launcher tries it in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tried = subprocess.run(
            [sys.executable, "-I", "-S", str(launcher()), "--describe", folder],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    return tried.stdout.strip() or "unknown: the launcher did not run"


class WorkerProcess:
    """A started worker. `connection` is the parent's end of its socket; whoever takes it closes it."""

    def __init__(self, plan: Plan, on_exit: Callable[[str], None]) -> None:
        """Start it; takes a millisecond or two. `on_exit` is called once, on the running loop, with words like
        'ended (signal 9)'.

        Raises:
            OSError: the process could not be started; nothing is left behind.
        """
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._sentinel = -1
        plan.scratch.mkdir(parents=True, exist_ok=True)
        self.temporary = Path(tempfile.mkdtemp(prefix="worker-", dir=plan.scratch))
        self.connection, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with child, _open_log(plan.log_file) as log:
                self._log_file, self._log_start = plan.log_file, os.fstat(log.fileno()).st_size
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(launcher()), str(child.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[child.fileno()],
                    start_new_session=True,  # so that its children can be ended with it
                )
        except BaseException:
            self.connection.close()
            shutil.rmtree(self.temporary, ignore_errors=True)
            raise
        self.connection.setblocking(False)
        self._watch()

    @property
    def pid(self) -> int:
        return self._process.pid

    def message(self, plan: Plan) -> dict[str, Any]:
        """The first frame: for the launcher. Sent over the socket because `variables` may hold secrets."""
        return {
            "environment": str(plan.environment),
            "artifact": str(plan.artifact),
            "temporary": str(self.temporary),
            "threads": plan.threads,
            "variables": dict(plan.variables),
        }

    def kill(self) -> None:
        """End it and what it started. Its exit is told as usual. Harmless when it is gone."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()

    def last_words(self) -> str:
        """The last line that this run left in its log, '' without one."""
        with contextlib.suppress(OSError), self._log_file.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            began = self._log_start if self._log_start <= size else 0  # it was cut meanwhile
            log.seek(max(began, size - LAST_WORDS_BYTES))
            lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines()]
            return next((line for line in reversed(lines) if line), "")
        return ""

    async def remove_temporary(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self.temporary, ignore_errors=True)

    def _watch(self) -> None:
        if hasattr(os, "pidfd_open"):
            self._sentinel = os.pidfd_open(self._process.pid)
            self._loop.add_reader(self._sentinel, self._exited)
        else:  # macOS
            waiting = self._loop.run_in_executor(None, _wait_unreaped, self._process.pid)
            waiting.add_done_callback(lambda _: self._exited())

    def _exited(self) -> None:
        if self._sentinel >= 0:
            self._loop.remove_reader(self._sentinel)
            os.close(self._sentinel)
            self._sentinel = -1
        # Its group first: while the dead leader is not reaped, nobody else can have its number.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        self._on_exit(f"ended (signal {-code})" if code < 0 else f"ended (exit code {code})")


def _open_log(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab", buffering=0)


def _wait_unreaped(pid: int) -> None:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
