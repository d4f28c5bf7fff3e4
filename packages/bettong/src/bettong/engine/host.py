"""The host: one process per deployment that owns its port, hands connections to replicas and watches them.

A single thread on `selectors` and no event loop, so that it can fork replicas at any time. It parses no request and
touches no Arrow. What follows an event is decided in `lifecycle`; here it is carried out.

Its parts: the port and who waits there (`host_intake`), a replica's process and channel (`host_replica`), the control
socket (`host_control`), probes of replicas (`host_probes`), what replicas count (`host_metrics`). They watch their own
sockets through the one selector, and say when they have to be called for a time-out; none of them knows the host.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import selectors
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import DeploymentSpec, Observed
from bettong.domain.metrics import step_names
from bettong.engine import lifecycle, replica
from bettong.engine.channel import Channel
from bettong.engine.forking import become
from bettong.engine.host_control import Control
from bettong.engine.host_intake import Intake, Taker
from bettong.engine.host_metrics import HostMetrics
from bettong.engine.host_probes import Probes, observed_replicas
from bettong.engine.host_replica import ReplicaHandle, exit_words
from bettong.engine.json_lines import log_json_lines
from bettong.engine.lifecycle import Beat, Exited, Ready, Refused, Roll, Stop, Tick
from bettong.engine.metrics import Memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.host_control import Answer
    from bettong.engine.host_probes import Answers
    from bettong.engine.replica import OpenLog, OpenRunner

log = logging.getLogger("bettong.host")

LOCK_PATIENCE_S = 0.5


def main(
    spec_file: Path,
    control_socket: Path,
    open_log: OpenLog,
    open_runner: OpenRunner,
    listening: Callable[[str | None], None],
) -> None:
    """Live as the host of a deployment file, until told to stop.

    `listening` is called once: with None as soon as the port and the control socket are open, or with the reason why
    they are not; then this returns.
    """
    log_json_lines()
    try:
        with contextlib.ExitStack() as undo:  # whoever hears that there is no host finds its lock free
            spec = DeploymentSpec.from_json(spec_file.read_bytes())
            lock = _lock(control_socket.with_suffix(".lock"))
            undo.callback(os.close, lock)
            host = _Host(spec, spec_file.parent, control_socket, lock, open_log, open_runner)
            undo.pop_all()
    except (OSError, ValueError, TypeError, KeyError) as broken:
        log.error("host did not start", exc_info=broken)
        listening(f"{type(broken).__name__}: {broken}")
        return
    listening(None)
    host.live()


class _Host:
    def __init__(
        self,
        spec: DeploymentSpec,
        folder: Path,
        control_socket: Path,
        lock: int,
        open_log: OpenLog,
        open_runner: OpenRunner,
    ) -> None:
        self._label, self._address = spec.label, spec.host
        self._folder, self._control_path = folder, control_socket
        self._open_log, self._open_runner = open_log, open_runner
        self._specs = {spec.generation: spec}
        self._handles: dict[str, ReplicaHandle] = {}
        self._probes = Probes()
        self._metrics = HostMetrics(spec.label, spec.name)
        self._lock = lock
        self._ended = False

        self._selector = selectors.DefaultSelector()
        self._intake = Intake(spec, self._selector)
        (folder / "port").write_text(f"{self._intake.port}\n")  # the next host of this deployment takes it again
        self._control = Control(control_socket, self._selector, self._on_request)
        self._woken, self._waker = socket.socketpair()
        for sock in (self._woken, self._waker):
            sock.setblocking(False)
        self._fleet, self._first_orders = lifecycle.begin(_plan(spec), secrets.token_hex(8), time.monotonic())

    def live(self) -> None:
        self._catch_signals()
        fields = {"deployment": self._label, "host": self._address, "port": self._intake.port}
        log.info("host listens", extra={"fields": fields})
        self._carry_out(self._first_orders)
        while not self._ended:
            pause = max(0.0, self._next_due_s() - time.monotonic())
            for key, mask in self._selector.select(pause if pause < 3600 else 3600):
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.fileobj is key.fileobj:  # else one before it in this round closed it
                    current.data(mask)
            self._on_time(time.monotonic())
        self._close()

    def _next_due_s(self) -> float:
        parts = (self._probes, self._control, self._intake)
        return min(lifecycle.next_due_s(self._fleet), *(part.next_due_s() for part in parts))

    def _on_time(self, now_s: float) -> None:
        if lifecycle.next_due_s(self._fleet) <= now_s:
            self._happen(Tick())
        for part in (self._probes, self._control, self._intake):
            part.on_time(now_s)

    # --- signals ---

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # what counts is the byte that wakes the selector
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda _: self._on_signal())

    def _on_signal(self) -> None:
        numbers = self._woken.recv(4096)
        if signal.SIGTERM in numbers:
            log.info("host was told to end", extra={"fields": {"signal": "SIGTERM"}})
            self._happen(Stop())
        for handle in list(self._handles.values()):
            if (code := handle.exit_code()) is not None:
                self._on_exit(handle, code)

    # --- requests on the control socket ---

    def _on_request(self, request: dict[str, Any], answer: Answer) -> None:
        match request["do"]:
            case "status":
                self._probes.start(self._handles, lambda answers: answer(json.loads(self._observed(answers).to_json())))
            case "metrics":  # counters are read, not asked for; a probe has each replica say how it is
                self._probes.start(
                    self._handles, lambda _: answer(self._metrics.now(self._handles.values()).to_document())
                )
            case "roll":
                if self._fleet.stopping:
                    answer({"error": "stopping"})
                    return
                self._roll(DeploymentSpec.from_json(Path(request["file"]).read_bytes()))
                answer({"ok": True, "target": self._fleet.target.generation})
            case "stop":
                answer({"ok": True, "pid": os.getpid(), "within_s": self._spec.drain_s + lifecycle.END_GRACE_S})
                log.info("host was told to end", extra={"fields": {"by": "control socket"}})
                self._happen(Stop())
            case what:
                raise ValueError(f"A host cannot {what!r}; it knows status, metrics, roll and stop.")

    def _roll(self, spec: DeploymentSpec) -> None:
        if spec.label != self._label:
            raise ValueError(f"This host serves '{self._label}'; the file is for '{spec.label}'.")
        if spec.generation >= self._fleet.target.generation:
            self._specs[spec.generation] = spec
        log.info("roll", extra={"fields": {"to": spec.generation, "target": self._fleet.target.generation}})
        self._happen(Roll(_plan(spec)))
        needed = {self._fleet.target.generation, *(h.generation for h in self._handles.values())}
        if self._fleet.serving is not None:
            needed.add(self._fleet.serving.generation)
        self._specs = {generation: s for generation, s in self._specs.items() if generation in needed}
        self._metrics.forget_steps(
            {name for s in self._specs.values() for name in step_names(m.name for m in s.models)}
        )

    def _observed(self, answers: Answers) -> Observed:
        fleet = self._fleet
        return Observed(
            label=self._label,
            pid=os.getpid(),
            host=self._address,
            port=self._intake.port,
            serving=fleet.serving.generation if fleet.serving else 0,
            target=fleet.target.generation,
            error=fleet.error,
            replicas=observed_replicas(fleet, self._specs, self._handles, answers),
        )

    # --- events and orders ---

    def _happen(self, event: lifecycle.Event) -> None:
        self._fleet, orders = lifecycle.step(self._fleet, event, time.monotonic())
        self._carry_out(orders)

    def _carry_out(self, orders: list[lifecycle.Order]) -> None:
        for order in orders:
            match order:
                case lifecycle.Start(name, generation):
                    self._start(name, generation)
                case lifecycle.Drain(name, linger_s, drain_s):
                    self._handles[name].send({"do": "drain", "linger_s": linger_s, "drain_s": drain_s})
                case lifecycle.Kill(name, reason):
                    log.warning("replica is killed", extra={"fields": {"replica": name, "reason": reason}})
                    self._handles[name].kill()
                case lifecycle.Serve(generation):
                    log.info("generation serves", extra={"fields": {"generation": generation}})
                case lifecycle.End():
                    self._ended = True
        takers = [Taker(self._handles[r.name], r.beat_s) for r in self._fleet.takers]
        self._intake.route(self._spec, takers, hopeless=self._fleet.hopeless)

    @property
    def _spec(self) -> DeploymentSpec:
        """The deployment file that holds for new connections."""
        return self._specs[(self._fleet.serving or self._fleet.target).generation]

    # --- replicas ---

    def _start(self, name: str, generation: int) -> None:
        ours, theirs = socket.socketpair()
        counters = Memory(self._specs[generation])
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as full:  # no more processes: as if it had died at once
            ours.close()
            theirs.close()
            counters.close()
            self._happen(Exited(name, f"The system starts no process: {full.strerror}."))
            return
        if pid == 0:
            become(lambda: self._be_replica(name, self._specs[generation], ours, theirs, counters))
        theirs.close()
        self._handles[name] = ReplicaHandle(name, pid, generation, Channel(ours), counters, self._selector, self._hear)
        log.info("replica starts", extra={"fields": {"replica": name, "replica_pid": pid}})

    def _be_replica(
        self, name: str, spec: DeploymentSpec, ours: socket.socket, theirs: socket.socket, counters: Memory
    ) -> int:
        """In the forked child: give back everything that is the host's, then live as a replica."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ours.close()
        self._close_descriptors()
        alive = self._control_path.with_suffix(".alive")
        channel = Channel(theirs)
        return replica.run(spec, name, self._folder, channel, alive, counters, self._open_log, self._open_runner)

    def _hear(self, handle: ReplicaHandle, message: dict[str, Any]) -> None:
        match message["event"]:
            case "beat":
                self._happen(Beat(handle.name))
            case "took":
                handle.took()
            case "full":
                self._intake.refuse(handle.handed_back())
            case "closed":
                handle.ended(message["n"])
            case "ready":
                log.info("replica is ready", extra={"fields": {"replica": handle.name}})
                self._happen(Ready(handle.name))
            case "failed":
                fields = {"replica": handle.name, "reason": message["reason"]}
                log.error("replica does not load", extra={"fields": fields})
                self._happen(Refused(handle.name, message["reason"]))
            case "probed":
                self._probes.on_answer(handle.name, message)
            case unknown:
                raise ValueError(f"Replica {handle.name} says {unknown!r}, which a host does not know.")

    def _on_exit(self, handle: ReplicaHandle, code: int) -> None:
        handle.hear()  # its last words, and which sockets it took
        del self._handles[handle.name]
        leaving = any(r.name == handle.name and r.phase == "leaving" for r in self._fleet.replicas)
        self._metrics.on_exit(handle, told=leaving)
        handle.let_go()
        shutil.rmtree(replica.scratch_of(self._folder, handle.name), ignore_errors=True)
        self._intake.take_back(handle.untaken)
        reason = exit_words(code)
        level = logging.INFO if code == 0 else logging.WARNING
        log.log(level, "replica ended", extra={"fields": {"replica": handle.name, "reason": reason}})
        self._happen(Exited(handle.name, reason))
        self._probes.on_exit(handle.name)

    # --- the end ---

    def _close(self) -> None:
        self._intake.stop_listening()  # first: no new client may think that somebody is here
        for path in (self._control_path, self._control_path.with_suffix(".alive")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        log.info("host ends", extra={"fields": {"deployment": self._label}})
        signal.set_wakeup_fd(-1)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        """Close all that the host has open, askers last: they take it for the end."""
        self._selector.close()
        self._intake.close_descriptors()
        for sock in (self._woken, self._waker):
            sock.close()
        for handle in self._handles.values():
            handle.close_descriptors()
        self._control.close_descriptors()
        os.close(self._lock)


def _plan(spec: DeploymentSpec) -> lifecycle.Plan:
    return lifecycle.Plan(
        generation=spec.generation,
        replicas=spec.replicas,
        load_timeout_s=max((m.load_timeout_s for m in spec.models), default=0.0),
        linger_s=spec.linger_s,
        drain_s=spec.drain_s,
    )


def _lock(path: Path) -> int:
    """Make sure that this is the only host of its deployment; the descriptor holds that as long as it is open.

    Who only looks whether there is a host holds the lock for a moment, too: that is waited out.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    until = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except OSError:
            if time.monotonic() > until:
                os.close(fd)
                raise
            time.sleep(LOCK_PATIENCE_S / 50)
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd
