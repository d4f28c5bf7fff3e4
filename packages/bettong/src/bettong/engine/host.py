"""The host: one process per deployment that owns its port, hands connections to replicas and watches them.

A single thread on `selectors` and no event loop, so that it can fork replicas at any time. It parses no request and
touches no Arrow. What follows an event is decided in `lifecycle`; here it is carried out.
"""

from __future__ import annotations

import contextlib
import errno
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
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import DeploymentSpec, Observed, ObservedReplica, ObservedWorker, State
from bettong.engine import lifecycle, replica
from bettong.engine.channel import Channel
from bettong.engine.forking import become
from bettong.engine.lifecycle import Beat, Exited, Ready, Refused, Roll, Stop, Tick

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.replica import OpenLog, OpenRunner

PROBE_TIMEOUT_S = 2.0
CONTROL_TIMEOUT_S = 10.0
FAREWELL_S = 2.0  # for a refused client to read its 503
QUIET_S = 3 * replica.BEAT_S  # a replica silent for longer gets connections only when there is no other
ACCEPT_PAUSE_S = 0.2  # after the system has run out of descriptors or memory
BACKLOG = 1024
_ACCEPTS_AT_ONCE = 64
_MAX_CONTROL_BYTES = 65536
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
        spec = DeploymentSpec.from_json(spec_file.read_bytes())
        host = _Host(spec, spec_file.parent, control_socket, open_log, open_runner)
    except (OSError, ValueError, TypeError, KeyError) as broken:
        log.error("host did not start", exc_info=broken)
        listening(f"{type(broken).__name__}: {broken}")
        return
    listening(None)
    host.live()


def log_json_lines() -> None:
    """Send this process's log to standard error, one JSON object a line. Replicas inherit it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "from": record.name,
            "pid": record.process,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event)


@dataclass(slots=True)
class _Handle:
    """A replica process as the host holds it. `untaken` are sockets that it has not said to have taken yet."""

    name: str
    pid: int
    channel: Channel
    generation: int
    connections: int = 0
    untaken: deque[socket.socket] = field(default_factory=deque)
    writing: bool = False
    watched: bool = True


@dataclass(slots=True)
class _Probe:
    """A `status` request that waits for the replicas' answers."""

    asker: _Asker
    due_s: float
    missing: set[str]
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Asker:
    """A client of the control socket: one line in, one line out."""

    sock: socket.socket
    due_s: float
    data: bytearray = field(default_factory=bytearray)
    answered: bool = False


class _Host:
    def __init__(
        self, spec: DeploymentSpec, folder: Path, control_socket: Path, open_log: OpenLog, open_runner: OpenRunner
    ) -> None:
        self._label, self._address = spec.label, spec.host
        self._folder, self._control_path = folder, control_socket
        self._open_log, self._open_runner = open_log, open_runner
        self._specs = {spec.generation: spec}
        self._handles: dict[str, _Handle] = {}
        self._waiting: deque[tuple[socket.socket, float]] = deque()
        self._farewells: dict[socket.socket, float] = {}
        self._askers: set[_Asker] = set()
        self._probes: dict[int, _Probe] = {}
        self._probe_ids = 0
        self._turn = 0  # so that ties go round
        self._accept_again_s: float | None = None
        self._ended = False

        self._lock = _lock(control_socket.with_suffix(".lock"))
        self._selector = selectors.DefaultSelector()
        self._listener = _listen(spec.host, spec.port)
        self._port: int = self._listener.getsockname()[1]
        (folder / "port").write_text(f"{self._port}\n")  # the next host of this deployment takes it again
        self._control = _listen_control(control_socket)
        self._woken, self._waker = socket.socketpair()
        for sock in (self._listener, self._control, self._woken, self._waker):
            sock.setblocking(False)
        self._fleet, self._first_orders = lifecycle.begin(_plan(spec), secrets.token_hex(8), time.monotonic())

    def live(self) -> None:
        self._catch_signals()
        self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())
        self._selector.register(self._control, selectors.EVENT_READ, lambda _: self._accept_asker())
        self._selector.register(self._woken, selectors.EVENT_READ, lambda _: self._on_signal())
        log.info(
            "host listens", extra={"fields": {"deployment": self._label, "host": self._address, "port": self._port}}
        )
        self._carry_out(self._first_orders)
        while not self._ended:
            pause = max(0.0, self._next_due_s() - time.monotonic())
            for key, mask in self._selector.select(pause if pause < 3600 else 3600):
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.fileobj is key.fileobj:  # else one before it in this round closed it
                    current.data(mask)
            self._on_time(time.monotonic())
        self._close()

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
                    self._send(self._handles[name], {"do": "drain", "linger_s": linger_s, "drain_s": drain_s})
                case lifecycle.Kill(name, reason):
                    log.warning("replica is killed", extra={"fields": {"replica": name, "reason": reason}})
                    os.kill(self._handles[name].pid, signal.SIGKILL)
                case lifecycle.Serve(generation):
                    log.info("generation serves", extra={"fields": {"generation": generation}})
                case lifecycle.End():
                    self._ended = True
        self._hand_out()

    def _next_due_s(self) -> float:
        due = [lifecycle.next_due_s(self._fleet)]
        due += [probe.due_s for probe in self._probes.values()]
        due += [asker.due_s for asker in self._askers if not asker.answered]
        due += self._farewells.values()
        if self._waiting:
            due.append(self._waiting[0][1])
        if self._accept_again_s is not None:
            due.append(self._accept_again_s)
        return min(due)

    def _on_time(self, now_s: float) -> None:
        if lifecycle.next_due_s(self._fleet) <= now_s:
            self._happen(Tick())
        for number in [n for n, probe in self._probes.items() if probe.due_s <= now_s]:
            self._answer_probe(number)
        for asker in [a for a in self._askers if not a.answered and a.due_s <= now_s]:
            self._drop_asker(asker)
        for sock in [s for s, due_s in self._farewells.items() if due_s <= now_s]:
            self._end_farewell(sock)
        while self._waiting and self._waiting[0][1] <= now_s:
            self._refuse(self._waiting.popleft()[0])
        if self._accept_again_s is not None and self._accept_again_s <= now_s:
            self._accept_again_s = None
            self._selector.register(self._listener, selectors.EVENT_READ, lambda _: self._accept())

    def _catch_signals(self) -> None:
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)  # what counts is the byte that wakes the selector
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _on_signal(self) -> None:
        numbers = self._woken.recv(4096)
        if signal.SIGTERM in numbers:
            log.info("host was told to end", extra={"fields": {"signal": "SIGTERM"}})
            self._happen(Stop())
        for handle in list(self._handles.values()):
            pid, status = os.waitpid(handle.pid, os.WNOHANG)
            if pid:
                self._on_exit(handle, os.waitstatus_to_exitcode(status))

    # --- replicas ---

    def _start(self, name: str, generation: int) -> None:
        ours, theirs = socket.socketpair()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError as full:  # no more processes: as if it had died at once
            ours.close()
            theirs.close()
            self._happen(Exited(name, f"The system starts no process: {full.strerror}."))
            return
        if pid == 0:
            become(lambda: self._be_replica(name, self._specs[generation], ours, theirs))
        theirs.close()
        handle = _Handle(name, pid, Channel(ours), generation)
        self._handles[name] = handle
        self._selector.register(ours, selectors.EVENT_READ, lambda mask: self._on_channel(handle, mask))
        log.info("replica starts", extra={"fields": {"replica": name, "replica_pid": pid}})

    def _be_replica(self, name: str, spec: DeploymentSpec, ours: socket.socket, theirs: socket.socket) -> int:
        """In the forked child: give back everything that is the host's, then live as a replica."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        ours.close()
        self._close_descriptors()
        alive = self._control_path.with_suffix(".alive")
        return replica.run(spec, name, self._folder, Channel(theirs), alive, self._open_log, self._open_runner)

    def _on_channel(self, handle: _Handle, mask: int) -> None:
        if mask & selectors.EVENT_WRITE:
            handle.channel.flush()
        if mask & selectors.EVENT_READ:
            self._hear(handle)
        self._watch(handle)

    def _hear(self, handle: _Handle) -> None:
        for message, _ in handle.channel.receive():
            match message["event"]:
                case "beat":
                    self._happen(Beat(handle.name))
                case "took":
                    handle.untaken.popleft().close()
                case "full":
                    handle.connections -= 1
                    self._refuse(handle.untaken.popleft())
                case "closed":
                    handle.connections -= message["n"]
                case "ready":
                    log.info("replica is ready", extra={"fields": {"replica": handle.name}})
                    self._happen(Ready(handle.name))
                case "failed":
                    fields = {"replica": handle.name, "reason": message["reason"]}
                    log.error("replica does not load", extra={"fields": fields})
                    self._happen(Refused(handle.name, message["reason"]))
                case "probed":
                    self._on_probed(handle.name, message)
                case unknown:
                    raise ValueError(f"Replica {handle.name} says {unknown!r}, which a host does not know.")

    def _send(self, handle: _Handle, message: dict[str, Any], fd: int | None = None) -> None:
        handle.channel.send(message, fd)
        self._watch(handle)

    def _watch(self, handle: _Handle) -> None:
        """Keep the selector's interest in a channel in step with what is left to send; none once it is closed."""
        if handle.channel.closed:
            if handle.watched:
                self._selector.unregister(handle.channel.fileno())
                handle.watched = False
        elif handle.writing != handle.channel.wants_write:
            handle.writing = handle.channel.wants_write
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if handle.writing else 0)
            data = self._selector.get_key(handle.channel.fileno()).data
            self._selector.modify(handle.channel.fileno(), mask, data)

    def _on_exit(self, handle: _Handle, code: int) -> None:
        self._hear(handle)  # its last words, and which sockets it took
        del self._handles[handle.name]
        if handle.watched:
            self._selector.unregister(handle.channel.fileno())
        handle.channel.close()
        shutil.rmtree(replica.scratch_of(self._folder, handle.name), ignore_errors=True)
        due_s = time.monotonic() + self._spec.request_timeout_s
        self._waiting.extendleft((sock, due_s) for sock in reversed(handle.untaken))
        reason = _exit_words(code)
        level = logging.INFO if code == 0 else logging.WARNING
        log.log(level, "replica ended", extra={"fields": {"replica": handle.name, "reason": reason}})
        self._happen(Exited(handle.name, reason))
        for number, probe in list(self._probes.items()):
            probe.missing.discard(handle.name)
            if not probe.missing:
                self._answer_probe(number)

    # --- connections ---

    @property
    def _spec(self) -> DeploymentSpec:
        return self._specs[(self._fleet.serving or self._fleet.target).generation]

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
            self._refuse(self._waiting.pop()[0])

    def _hand_out(self) -> None:
        """Give waiting connections to replicas, each to the one that has the fewest."""
        if not self._waiting:
            return
        if self._fleet.hopeless:
            while self._waiting:
                self._refuse(self._waiting.popleft()[0])
        quiet_since_s = time.monotonic() - QUIET_S
        takers = [(self._handles[r.name], r.beat_s < quiet_since_s) for r in self._fleet.takers]
        takers = [(handle, quiet) for handle, quiet in takers if not handle.channel.closed]
        while self._waiting and takers:
            self._turn += 1
            shift = self._turn % len(takers)
            handle, _ = min(takers[shift:] + takers[:shift], key=lambda t: (t[1], t[0].connections))
            sock, _ = self._waiting.popleft()
            handle.connections += 1
            handle.untaken.append(sock)
            self._send(handle, {"do": "serve"}, sock.fileno())

    def _refuse(self, sock: socket.socket) -> None:
        """Answer 503 and close so that the client can read it: a reset would take the answer away."""
        try:
            sock.send(_REFUSAL)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        self._farewells[sock] = time.monotonic() + FAREWELL_S
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._read_away(sock))

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

    # --- the control socket ---

    def _accept_asker(self) -> None:
        try:
            sock, _ = self._control.accept()
        except OSError:
            return
        sock.setblocking(False)
        asker = _Asker(sock, time.monotonic() + CONTROL_TIMEOUT_S)
        self._askers.add(asker)
        self._selector.register(sock, selectors.EVENT_READ, lambda _: self._on_asker(asker))

    def _on_asker(self, asker: _Asker) -> None:
        try:
            chunk = asker.sock.recv(_MAX_CONTROL_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk or len(asker.data) > _MAX_CONTROL_BYTES:
            self._drop_asker(asker)
            return
        asker.data += chunk
        if asker.data.endswith(b"\n") and not asker.answered:
            asker.answered = True  # it keeps its connection: the end of it tells that the host has ended
            try:
                request = json.loads(asker.data)
                self._do(asker, request["do"], request)
            except (ValueError, TypeError, KeyError, OSError) as broken:
                self._answer(asker, {"error": f"{type(broken).__name__}: {broken}"})

    def _do(self, asker: _Asker, what: str, request: dict[str, Any]) -> None:
        match what:
            case "status":
                self._probe(asker)
            case "roll":
                if self._fleet.stopping:
                    self._answer(asker, {"error": "stopping"})
                    return
                self._roll(DeploymentSpec.from_json(Path(request["file"]).read_bytes()))
                self._answer(asker, {"ok": True, "target": self._fleet.target.generation})
            case "stop":
                self._answer(
                    asker, {"ok": True, "pid": os.getpid(), "within_s": self._spec.drain_s + lifecycle.END_GRACE_S}
                )
                log.info("host was told to end", extra={"fields": {"by": "control socket"}})
                self._happen(Stop())
            case _:
                raise ValueError(f"A host cannot {what!r}; it knows status, roll and stop.")

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

    def _probe(self, asker: _Asker) -> None:
        self._probe_ids += 1
        probe = _Probe(asker, time.monotonic() + PROBE_TIMEOUT_S, set(self._handles))
        self._probes[self._probe_ids] = probe
        for handle in self._handles.values():
            self._send(handle, {"do": "probe", "id": self._probe_ids})
        if not probe.missing:
            self._answer_probe(self._probe_ids)

    def _on_probed(self, name: str, message: dict[str, Any]) -> None:
        number = message["id"]
        if (probe := self._probes.get(number)) is None:
            return  # it came too late
        probe.answers[name] = message
        probe.missing.discard(name)
        if not probe.missing:
            self._answer_probe(number)

    def _answer_probe(self, number: int) -> None:
        probe = self._probes.pop(number)
        self._answer(probe.asker, json.loads(self._observed(probe.answers).to_json()))

    def _observed(self, answers: dict[str, dict[str, Any]]) -> Observed:
        fleet = self._fleet
        replicas = [self._observed_replica(r, answers.get(r.name)) for r in fleet.replicas]
        replicas += [
            ObservedReplica(
                name=pause.name,
                pid=0,
                state=State.FAILED,
                generation=pause.generation,
                pipeline_version=self._specs[pause.generation].pipeline_version,
                reason=pause.reason,
                restarts=pause.restarts,
            )
            for pause in fleet.pauses
        ]
        return Observed(
            label=self._label,
            pid=os.getpid(),
            host=self._address,
            port=self._port,
            serving=fleet.serving.generation if fleet.serving else 0,
            target=fleet.target.generation,
            error=fleet.error,
            replicas=tuple(replicas),
        )

    def _observed_replica(self, known: lifecycle.Replica, answer: dict[str, Any] | None) -> ObservedReplica:
        reason: str | None
        if known.phase == "starting":
            state, reason = State.PENDING, "Loading."
        elif answer is None:
            state, reason = State.UNKNOWN, f"Did not answer a probe within {PROBE_TIMEOUT_S:g} s."
        else:
            state, reason = State.RUNNING, known.reason
        workers = (answer or {}).get("workers", [])
        return ObservedReplica(
            name=known.name,
            pid=self._handles[known.name].pid,
            state=state,
            generation=known.generation,
            pipeline_version=self._specs[known.generation].pipeline_version,
            reason=reason,
            draining=known.phase == "leaving",
            restarts=known.restarts,
            in_flight=(answer or {}).get("in_flight", 0),
            workers=tuple(ObservedWorker(**{**w, "state": State(w["state"])}) for w in workers),
        )

    def _answer(self, asker: _Asker, answer: dict[str, Any]) -> None:
        if asker not in self._askers:
            return  # it hung up
        try:
            asker.sock.setblocking(True)
            asker.sock.settimeout(1.0)  # one line into an empty buffer: it waits only for a client that never reads
            asker.sock.sendall(json.dumps(answer).encode() + b"\n")
            asker.sock.setblocking(False)
        except OSError:
            self._drop_asker(asker)

    def _drop_asker(self, asker: _Asker) -> None:
        self._askers.discard(asker)
        self._selector.unregister(asker.sock)
        asker.sock.close()

    # --- the end ---

    def _close(self) -> None:
        self._listener.close()  # first: no new client may think that somebody is here
        for path in (self._control_path, self._control_path.with_suffix(".alive")):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._folder / "scratch", ignore_errors=True)
        log.info("host ends", extra={"fields": {"deployment": self._label}})
        signal.set_wakeup_fd(-1)
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        """Close all that the host has open, askers last: they take it for the end."""
        self._selector.close()
        sockets: list[socket.socket] = [self._listener, self._control, self._woken, self._waker, *self._farewells]
        sockets += [sock for sock, _ in self._waiting]
        for handle in self._handles.values():
            handle.channel.close()
            sockets += handle.untaken
        sockets += [asker.sock for asker in self._askers]
        for sock in sockets:
            sock.close()
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
    """Make sure that this is the only host of its deployment; the descriptor holds that as long as it is open."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.parent.chmod(0o700)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


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


def _listen_control(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of a host that was killed: we hold the lock
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(64)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(before)
    return sock


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"Ended with exit code {code}."
    with contextlib.suppress(ValueError):
        return f"Was killed by signal {-code} ({signal.Signals(-code).name})."
    return f"Was killed by signal {-code}."
