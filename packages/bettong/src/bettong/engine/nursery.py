"""The nursery: a process that has imported the engine and opened nothing, and forks hosts on request.

Hosts forked from it share its pages and start in milliseconds. They are detached: they outlive the nursery and the
server. The nursery itself ends when the server does.

`compose` puts `forking.SINGLE_THREADED` into the environment before it imports this module: importing the engine must
not start a thread, because only a process of a single thread can be forked safely.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.domain.deployments import DeploymentSpec
from bettong.domain.models import is_native
from bettong.engine import host
from bettong.engine.forking import become, close_others, keep_pandas_out, require_single_thread
from bettong.engine.replica import runner_of
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.replica import OpenLog, OpenRunner

START_TIMEOUT_S = 20.0  # for a host to listen; it loads no model before that
_MAX_REPLY_BYTES = 65536

log = logging.getLogger("bettong.nursery")


class Nursery:
    """The server's handle on its nursery. Safe to call from several threads.

    A nursery that died, or does not answer, is replaced when the next host is to be started: by a program of its own,
    since the server has threads by then and cannot be forked any more. `command` starts it; the number of the
    descriptor that it is to `serve` is added as the last argument.
    """

    def __init__(self, pid: int, line: socket.socket, command: Sequence[str] = ()) -> None:
        self.pid = pid
        self._line = line
        self._command = command
        self._turn = threading.Lock()

    @classmethod
    def start(cls, open_log: OpenLog, open_runner: OpenRunner = runner_of, *, command: Sequence[str] = ()) -> Nursery:
        """Fork the nursery. Call it first thing: before a thread, a database or a socket is open.

        `open_log` and `open_runner` are called in each replica, for its log and for each of its models. Without a
        `command` it is not replaced.

        Raises:
            RuntimeError: this process has more than one thread; says which.
        """
        require_single_thread()
        ours, theirs = socket.socketpair()
        gc.collect()
        gc.freeze()  # what is imported by now stays: a collection in a child would copy every shared page
        pid = os.fork()
        if pid == 0:
            become(lambda: _nurse(theirs, open_log, open_runner))
        theirs.close()
        ours.settimeout(START_TIMEOUT_S + 5)
        return cls(pid, ours, command)

    def launch(self, spec_file: Path, control_socket: Path, log_file: Path) -> None:
        """Start a host for a deployment file. When this returns it listens and answers on its control socket.

        Raises:
            Unavailable: it did not start, with its reason; or the nursery is gone, and so is the one in its place.
        """
        request = {"spec": str(spec_file), "control": str(control_socket), "log": str(log_file)}
        line = json.dumps(request).encode() + b"\n"
        with self._turn:
            answer = self._ask(line)
            if not answer and self._command:
                self._replace()
                answer = self._ask(line)  # a host that the first one has started all the same keeps a second one out
        if not answer:
            raise Unavailable(f"The process that starts hosts (pid {self.pid}) is gone.", "Restart the server.")
        if error := json.loads(answer)["error"]:
            raise Unavailable(f"The host for '{spec_file.parent.name}' did not start: {error}", f"See {log_file}.")

    def close(self) -> None:
        """End the nursery. Hosts stay. Twice is no error."""
        with self._turn:
            self._line.close()
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)

    def _ask(self, request: bytes) -> bytes:
        """The nursery's answer; empty when it is gone or silent."""
        try:
            self._line.sendall(request)
            return _read_line(self._line)
        except OSError:
            return b""

    def _replace(self) -> None:
        """Have another nursery in place of this one, which is ended if it only hangs: a late answer is nobody's."""
        log.warning("nursery is replaced", extra={"fields": {"pid": self.pid}})
        self._line.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self._line, theirs = socket.socketpair()
        self._line.settimeout(START_TIMEOUT_S + 5)
        with theirs:
            process = subprocess.Popen([*self._command, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        self.pid = process.pid
        process.returncode = 0  # `close` waits for it, by its pid


def serve(line: int, open_log: OpenLog, open_runner: OpenRunner = runner_of) -> None:
    """Be a nursery that was started as a program of its own, until the descriptor `line` closes at the other end.

    Raises:
        RuntimeError: this process has more than one thread; says which.
    """
    require_single_thread()
    gc.collect()
    gc.freeze()
    _nurse(socket.socket(fileno=line), open_log, open_runner)


# --- in the nursery -------------------------------------------------------------------------------------------------


def _nurse(line: socket.socket, open_log: OpenLog, open_runner: OpenRunner) -> None:
    """Serve requests until the server's end of the line closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches the whole terminal; the closed line ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    close_others({line.fileno()})
    keep_pandas_out()
    while request := _read_line(line):
        line.sendall(json.dumps({"error": _launch(json.loads(request), line, open_log, open_runner)}).encode() + b"\n")


def _launch(request: dict[str, str], theirs: socket.socket, open_log: OpenLog, open_runner: OpenRunner) -> str | None:
    """Fork a host, detached; why it does not listen, or None when it does."""
    _import_for(Path(request["spec"]))
    reading, writing = socket.socketpair()
    reading.settimeout(START_TIMEOUT_S)
    with reading:
        pid = os.fork()
        if pid == 0:
            become(lambda: _detach(request, theirs, reading, writing, open_log, open_runner))
        writing.close()
        os.waitpid(pid, 0)  # the child in between ends at once: the host belongs to init
        try:
            answer = _read_line(reading)
        except TimeoutError:
            return f"it did not listen within {START_TIMEOUT_S:g} s"
    return json.loads(answer)["error"] if answer else "it ended before it listened"


def _import_for(spec_file: Path) -> None:
    """Import onnxruntime before the first host with a native model is forked, so that all of those share its pages.

    A file that cannot be read is the host's to tell.
    """
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        spec = DeploymentSpec.from_json(spec_file.read_bytes())
        if any(is_native(model.framework) for model in spec.models):
            importlib.import_module("onnxruntime")
            gc.freeze()


def _detach(
    request: dict[str, str],
    theirs: socket.socket,
    reading: socket.socket,
    writing: socket.socket,
    open_log: OpenLog,
    open_runner: OpenRunner,
) -> None:
    os.setsid()
    if os.fork() != 0:
        return
    theirs.close()
    reading.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _own_stdio(Path(request["log"]))
    close_others({writing.fileno()})

    def listening(error: str | None) -> None:
        with contextlib.suppress(OSError):  # nobody waits any more: the host goes on all the same
            writing.sendall(json.dumps({"error": error}).encode() + b"\n")
        writing.close()

    host.main(Path(request["spec"]), Path(request["control"]), open_log, open_runner, listening)


def _own_stdio(log_file: Path) -> None:
    out = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.close(out)
    os.close(null)


def _read_line(line: socket.socket) -> bytes:
    """Up to the newline; empty when the other side is gone."""
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = line.recv(_MAX_REPLY_BYTES)
        if not chunk:
            return b""
        data += chunk
    return bytes(data)
