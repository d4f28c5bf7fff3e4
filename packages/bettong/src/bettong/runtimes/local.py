"""Deployments as processes of this machine: one host each, found again through its control socket."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import Observed
from bettong.domain.metrics import DeploymentMetrics
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bettong.domain.deployments import DeploymentSpec

ANSWER_TIMEOUT_S = 10.0  # a host answers within its probe time-out of 2 s unless the machine is out of breath
END_TIMEOUT_S = 10.0  # beyond the host's own deadline, and for a killed process to be gone
ORPHANS_TIMEOUT_S = 60.0  # replicas without a host finish what is in flight within their drain time
KEPT_GENERATIONS = 3
MAX_SOCKET_PATH_BYTES = 100
_POLL_S = 0.02
_TRIES = 20
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_GENERATION = re.compile(r"generation-(\d+)\.json")


class LocalRuntime:
    """A `Runtime`. Keeps nothing in memory but locks: what runs is asked of the hosts, so a restart loses nothing.

    Args:
        folder: `deployments/`; a deployment's files lie in a folder of its label.
        run_folder: where the control sockets are; made with mode 0700.
        launch: starts a host for (deployment file, control socket, log file); returns when it listens, or raises
            Unavailable.
    """

    def __init__(self, folder: Path, run_folder: Path, launch: Callable[[Path, Path, Path], None]) -> None:
        self._folder, self._run_folder, self._launch = folder, run_folder, launch
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def deploy(self, spec: DeploymentSpec) -> None:
        """Bring `spec` up, or roll the running host over to it. A generation that is served or loaded already, or
        older than the newest one asked for, changes nothing; one that did not load is tried again.

        Raises:
            BadInput: the label is no name.
            Unavailable: no host could be started, or the running one does not answer.
        """
        folder, control = self._paths(spec.label)
        with self._turns[spec.label]:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            file = folder / f"generation-{spec.generation}.json"
            _write(file, (spec if spec.port else replace(spec, port=_last_port(folder))).to_json())
            for _ in range(_TRIES):  # another server's host may come or go between the two
                if self._roll(control, file) or self._start(control, file, folder / "host.log"):
                    break
            else:
                raise Unavailable(f"The host of '{spec.label}' is just starting or ending.", "Deploy again.")
            _forget_older(folder, KEPT_GENERATIONS)

    def undeploy(self, deployment_id: int, label: str) -> None:
        """Drain and stop. When this returns nothing of the deployment runs. No error when nothing did.

        Raises:
            BadInput: the label is no name.
            Unavailable: a process of it could not be ended in time, not even by force.
        """
        folder, control = self._paths(label)
        with self._turns[label]:
            _stop(control)
            if folder.is_dir():
                _forget_older(folder, 0)  # they may hold a model's secrets in its environment variables

    def observe(self, deployment_id: int, label: str) -> Observed | None:
        """By a live probe; None when nothing of it runs.

        Raises:
            BadInput: the label is no name.
            Unavailable: its host is there and does not answer.
        """
        _, control = self._paths(label)
        answer = _ask(control, {"do": "status"})
        return None if answer is None else Observed.from_json(json.dumps(answer))

    def metrics(self, deployment_id: int, label: str) -> DeploymentMetrics | None:
        """What the deployment has counted since its host began; None when nothing of it runs.

        Raises:
            BadInput: the label is no name.
            Unavailable: its host is there and does not answer, or is one of another release.
        """
        _, control = self._paths(label)
        answer = _ask(control, {"do": "metrics"})
        if answer is None:
            return None
        try:
            return DeploymentMetrics.from_json(json.dumps(answer))
        except (ValueError, KeyError) as other:
            raise Unavailable(f"The host of '{label}' does not count as this release does.", "Redeploy it.") from other

    def _paths(self, label: str) -> tuple[Path, Path]:
        """The deployment's folder and its control socket."""
        if not _LABEL.fullmatch(label):
            raise BadInput(
                "The deployment's label is not a name.", "Labels are lower-case letters, digits and hyphens."
            )
        control = self._run_folder / f"{label}.sock"
        if len(os.fsencode(control)) > MAX_SOCKET_PATH_BYTES:
            control = self._run_folder / f"{hashlib.sha256(label.encode()).hexdigest()[:16]}.sock"
        return self._folder / label, control

    def _roll(self, control: Path, file: Path) -> bool:
        """Have a running host take `file`; False when there is none."""
        answer = _ask(control, {"do": "roll", "file": str(file)})
        if answer is None:
            return False
        error = answer.get("error")
        if error == "stopping":
            _stop(control)
            return False
        if error:
            raise Unavailable(f"The host of '{file.parent.name}' did not take its new file: {error}", "Deploy again.")
        return True

    def _start(self, control: Path, file: Path, log_file: Path) -> bool:
        """Start a host; False when another one turned out to be there."""
        try:
            self._launch(file, control, log_file)
        except Unavailable:
            if _holder(control) is None:
                raise
            return False
        return True


def _ask(control: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The host's answer; None when there is no host.

    Raises:
        Unavailable: there is one, and it does not answer.
    """
    with _connected(control, request) as line:
        return None if line is None else _answer(line, control)


@contextlib.contextmanager
def _connected(control: Path, request: dict[str, Any]) -> Any:
    """A connection to the host with the request sent; None when there is no host. A dead host's socket is removed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(ANSWER_TIMEOUT_S)
        try:
            line.connect(str(control))
            line.sendall(json.dumps(request).encode() + b"\n")
        except (FileNotFoundError, ConnectionError):
            _remove_stale(control)
            yield None
        except OSError as busy:  # a full backlog or a time-out: somebody holds the socket open and does not accept
            raise _silent(control) from busy
        else:
            yield line


def _answer(line: socket.socket, control: Path) -> dict[str, Any] | None:
    data = bytearray()
    try:
        while not data.endswith(b"\n"):
            chunk = line.recv(65536)
            if not chunk:
                return None  # it ended just now
            data += chunk
    except ConnectionError:
        return None
    except OSError as timeout:
        raise _silent(control) from timeout
    answer: dict[str, Any] = json.loads(data)
    return answer


def _silent(control: Path) -> Unavailable:
    return Unavailable(
        f"The host process (pid {_holder(control)}) of '{control.stem}' does not answer within {ANSWER_TIMEOUT_S:g} s.",
        "Undeploy it, which ends it by force, and deploy again.",
    )


def _stop(control: Path) -> None:
    """End the host and its replicas; by force what does not end in time."""
    pid = None
    try:
        with _connected(control, {"do": "stop"}) as line:
            if line is not None and (answer := _answer(line, control)) is not None:
                pid = answer["pid"]
                line.settimeout(answer["within_s"] + END_TIMEOUT_S)
                with contextlib.suppress(ConnectionError):
                    while line.recv(65536):  # the end of the connection is the end of the host
                        pass
    except (Unavailable, TimeoutError):
        pid = _holder(control)
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # its replicas notice and end by themselves
    if pid is not None:
        _wait_gone(pid)
    _wait_for_orphans(control)
    _remove_stale(control)


def _holder(control: Path) -> int | None:
    """The pid of the living host, whether it answers or not: it holds a lock for as long as it lives."""
    try:
        fd = os.open(control.with_suffix(".lock"), os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 32)
        return int(pid) if pid.strip() else None
    else:
        return None
    finally:
        os.close(fd)


def _remove_stale(control: Path) -> None:
    """Remove the control socket of a host that was killed; holding its lock, so that no new one binds meanwhile."""
    try:
        fd = os.open(control.with_suffix(".lock"), os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        control.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # a host is just starting
    finally:
        os.close(fd)


def _wait_for_orphans(control: Path) -> None:
    """Wait for replicas whose host was killed: each keeps the `.alive` file locked."""
    try:
        fd = os.open(control.with_suffix(".alive"), os.O_RDWR)
    except FileNotFoundError:
        return
    deadline_s = time.monotonic() + ORPHANS_TIMEOUT_S
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    raise Unavailable(
                        f"Replicas of '{control.stem}' still run {ORPHANS_TIMEOUT_S:g} s after their host was gone.",
                        "End the processes named in its host.log.",
                    ) from None
                time.sleep(_POLL_S)
    finally:
        os.close(fd)


def _wait_gone(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    deadline_s = time.monotonic() + END_TIMEOUT_S
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(ProcessLookupError):
            fd = os.pidfd_open(pid)
            try:
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                ended = bool(poll.poll(END_TIMEOUT_S * 1000))
            finally:
                os.close(fd)
            if not ended:
                raise Unavailable(f"The host process {pid} does not end.", f"End it: kill -9 {pid}.")
        return
    while time.monotonic() < deadline_s:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(_POLL_S)
    raise Unavailable(f"The host process {pid} does not end.", f"End it: kill -9 {pid}.")


def _write(file: Path, text: str) -> None:
    """Whole or not at all, readable by the owner only."""
    part = file.with_suffix(".part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as out:
        out.write(text)
    part.replace(file)


def _last_port(folder: Path) -> int:
    """The port that the last host listened on, so that the URL stays; 0 when there was none."""
    try:
        return int((folder / "port").read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _forget_older(folder: Path, keep: int) -> None:
    found = sorted((int(m[1]), file) for file in folder.iterdir() if (m := _GENERATION.fullmatch(file.name)))
    for _, file in found[: max(0, len(found) - keep)]:
        file.unlink(missing_ok=True)
