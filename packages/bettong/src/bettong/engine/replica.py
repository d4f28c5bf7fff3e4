"""A replica: one forked process that loads a generation's models and serves the connections its host hands over."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import socket
import time
from dataclasses import asdict, dataclass, replace
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, cast

import numpy.ma  # noqa: F401  # pyarrow and uvicorn import these two when first used; here all replicas share them
import uvicorn
import uvicorn.lifespan.off
import uvloop
from uvicorn.server import ServerState

from bettong.domain.logs import challengers_topic_of
from bettong.domain.models import grows_by_processes, is_native
from bettong.engine.app import InferenceApp
from bettong.engine.batching import Batching
from bettong.engine.forking import open_descriptors, thread_names
from bettong.engine.memory import keep_freed_memory
from bettong.engine.metrics import Gauges, Recorder
from bettong.engine.program import Program
from bettong.engine.protocol import guarded
from bettong.engine.runners.base import Queueing, workers_of
from bettong.engine.runners.onnx import OnnxRunner
from bettong.engine.runners.python import PythonRunner
from bettong.engine.sessions import Sessions
from bettong.engine.tokens import TokenVerifier
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bettong.domain.deployments import DeploymentSpec, ModelSpec
    from bettong.domain.ports import LogWriter
    from bettong.engine.channel import Channel
    from bettong.engine.metrics import Memory
    from bettong.engine.runners.base import Runner

    OpenLog = Callable[[DeploymentSpec, str], LogWriter]  # (spec, replica name)
    OpenRunner = Callable[["ModelSpec", "Place"], Runner]

BEAT_S = 1.0
KEPT_DESCRIPTORS = 64  # not for clients: for the log, workers and their pipes

log = logging.getLogger("bettong.replica")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a runner of this replica works: its workers' log, a private folder that does not exist yet, its CPUs, the
    sessions of native models, and how long a request may take."""

    log_file: Path
    scratch: Path
    cpus: int
    sessions: Sessions
    deadline_s: float


def runner_of(model: ModelSpec, place: Place) -> Runner:
    """The runner for a model's framework."""
    if is_native(model.framework):
        return OnnxRunner(model, place.sessions)
    workers, threads = (place.cpus, 1) if grows_by_processes(model.framework) else (1, place.cpus)
    return PythonRunner(
        model,
        log_file=place.log_file,
        scratch=place.scratch,
        threads=threads,
        workers=workers,
        deadline_s=place.deadline_s,
        warm_up=True,
    )


def run(
    spec: DeploymentSpec,
    name: str,
    folder: Path,
    channel: Channel,
    alive: Path,
    counters: Memory,
    open_log: OpenLog,
    open_runner: OpenRunner,
) -> int:
    """Live as a replica, from the fork to the end. Returns the exit code.

    Args:
        folder: the deployment's: worker logs and scratch folders are made in it.
        channel: to the host. When it closes the host is gone, and the replica ends by itself.
        alive: a file that this process keeps locked (shared) for as long as it lives.
        counters: what is counted here, which the host has before its eyes.
    """
    if fault := _unclean(channel):
        channel.send({"event": "failed", "reason": f"The replica did not start clean: {fault}."})
        return 70
    keep_freed_memory()
    held = os.open(alive, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_Replica(spec, name, folder, channel, counters, open_log, open_runner).live())


def scratch_of(folder: Path, name: str) -> Path:
    """The folder of replica `name`'s temporary files; its host removes it when the replica is gone."""
    return folder / "scratch" / name


class _Replica:
    """The event loop's side. `live` is the whole life, in order; what the host says only moves `_leave`."""

    def __init__(
        self,
        spec: DeploymentSpec,
        name: str,
        folder: Path,
        channel: Channel,
        counters: Memory,
        open_log: OpenLog,
        open_runner: OpenRunner,
    ) -> None:
        self._spec, self._name, self._folder, self._channel = spec, name, folder, channel
        self._metrics = Recorder(counters, self._look)
        self._open_log, self._open_runner = open_log, open_runner
        self._runners: list[Runner] = []
        self._sessions = Sessions(_cores_of_all(spec))
        self._writer: LogWriter | None = None
        self._late_writer: LogWriter | None = None  # of challengers for which answers do not wait
        self._door: _Door | None = None
        self._lost = 0  # connections that ended since the host was last told
        self._leave: tuple[float, float] | None = None  # when lingering and when draining ends, on the loop's clock
        self._changed = asyncio.Event()  # something that `_until` may wait for has happened

    async def live(self) -> int:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._drain, 0.0, self._spec.drain_s)
        loop.add_reader(self._channel.fileno(), self._on_channel)
        self._beat(loop)
        try:
            loading = asyncio.create_task(self._load())
            loading.add_done_callback(lambda _: self._changed.set())
            await self._until(lambda: loading.done() or self._leave is not None)
            if not loading.done():  # told to end before it was ready
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                return 0
            if (broken := loading.exception()) is not None:
                self._tell(event="failed", reason=_words(broken))
                return 1
            gc.collect()
            gc.freeze()  # the loaded program stays; collections look at requests only
            self._tell(event="ready")
            await self._until(lambda: self._leave is not None)
            await self._finish(loading.result())
            return 0
        finally:
            await self._close()
            loop.remove_reader(self._channel.fileno())

    async def _load(self) -> _Door:
        """Bring everything up that a request needs. Raises what kept it from that; `_close` cleans up either way."""
        scratch = scratch_of(self._folder, self._name)
        scratch.mkdir(parents=True, mode=0o700)
        for model in self._spec.models:
            place = Place(
                log_file=self._folder / f"{model.uid}.log",
                scratch=scratch / model.uid,
                cpus=_share_of_cores(model.cpus or self._spec.threads, self._spec.replicas),
                sessions=self._sessions,
                deadline_s=self._spec.request_timeout_s,
            )
            runner = self._open_runner(model, place)
            if model.batching is not None and len(self._spec.models) == 1:
                runner = Batching(runner, model.batching)
            self._runners.append(runner)
        program = Program(self._spec, self._runners)
        verifier = TokenVerifier(self._spec.public_key, audience=self._spec.audience)
        try:
            async with asyncio.TaskGroup() as starts:
                for runner in self._runners:
                    starts.create_task(runner.start())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the others were cancelled because of it
        self._writer = self._open_log(self._spec, self._name)
        if program.plan.aside:
            topic = challengers_topic_of(self._spec.workspace_id, self._spec.name)
            self._late_writer = self._open_log(replace(self._spec, topic=topic), self._name)
        app = InferenceApp(
            self._spec,
            program,
            self._writer,
            verifier,
            self._name,
            self._metrics,
            log_of_challengers=self._late_writer,
        )
        self._door = _Door(self._spec, app, self._on_lost)
        return self._door

    async def _finish(self, door: _Door) -> None:
        """Linger, then close what is idle, then wait for what is in flight; no longer than the host allows."""
        assert self._leave is not None
        door.app.draining = True
        await self._until(lambda: not door.connections, until=lambda: self._leave and self._leave[0])
        door.close_idle()
        await self._until(lambda: not door.connections, until=lambda: self._leave and self._leave[1])
        left = self._leave[1] - asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await door.app.drained()
        if door.connections:
            log.warning("replica ends under its clients", extra={"fields": {"connections": door.connections}})
            await door.abort()

    async def _close(self) -> None:
        closed = await asyncio.gather(*(r.close() for r in self._runners), return_exceptions=True)
        for fault in closed:
            if isinstance(fault, BaseException):
                log.error("a runner did not close", exc_info=fault)
        self._sessions.close()
        for writer in (self._writer, self._late_writer):
            if writer is not None:
                writer.close()

    async def _until(self, holds: Callable[[], bool], until: Callable[[], float | None] | None = None) -> None:
        """Wait until `holds()`, or until the loop's clock reaches `until()`, which may come nearer while waiting."""
        loop = asyncio.get_running_loop()
        while not holds():
            self._changed.clear()
            end = until() if until is not None else None
            timer = loop.call_at(end, self._changed.set) if end is not None else None
            if end is not None and loop.time() >= end:
                return
            try:
                await self._changed.wait()
            finally:
                if timer is not None:
                    timer.cancel()

    # --- what the host says and hears ---

    def _on_channel(self) -> None:
        for message, fd in self._channel.receive():
            match message["do"]:
                case "serve" if fd is None or self._full():
                    if fd is not None:
                        os.close(fd)
                    self._tell(event="full")
                case "serve":
                    self._tell(event="took")  # before the first byte is read: an untaken socket is handed to another
                    self._serve(socket.socket(fileno=fd))
                case "probe":
                    self._tell(event="probed", id=message["id"], **self._observed())
                case "drain":
                    self._drain(message["linger_s"], message["drain_s"])
                case unknown:
                    raise ValueError(f"The host asks a replica to {unknown!r}; it knows serve, probe and drain.")
        if self._channel.closed:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._drain(0.0, self._spec.drain_s)

    def _full(self) -> bool:
        """Whether one more connection would take a descriptor that the log or a worker's restart may need."""
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = self._door.connections if self._door else 0
        return limit != resource.RLIM_INFINITY and taken >= max(1, limit - KEPT_DESCRIPTORS)

    def _serve(self, connection: socket.socket) -> None:
        if self._door is None:
            connection.close()
            self._on_lost()
        else:
            self._door.take(connection)

    def _observed(self) -> dict[str, Any]:
        self._metrics.refresh()
        return {
            "connections": self._door.connections if self._door else 0,
            "in_flight": self._door.app.in_flight if self._door else 0,
            "log_problem": self._writer.problem if self._writer else None,
            "workers": [asdict(worker) for runner in self._runners for worker in workers_of(runner)],
        }

    def _look(self) -> tuple[Gauges, list[int]]:
        in_flight = self._door.app.in_flight if self._door else 0
        waiting = sum(runner.waiting for runner in self._runners if isinstance(runner, Queueing))
        return Gauges(in_flight, waiting), [runner.observed().restarts for runner in self._runners]

    def _drain(self, linger_s: float, drain_s: float) -> None:
        now = asyncio.get_running_loop().time()
        linger, drain = now + linger_s, now + linger_s + drain_s
        if self._leave is not None:
            linger, drain = min(linger, self._leave[0]), min(drain, self._leave[1])
        self._leave = (linger, drain)
        self._changed.set()

    def _on_lost(self) -> None:
        if self._lost == 0:
            asyncio.get_running_loop().call_soon(self._report_lost)
        self._lost += 1
        self._changed.set()

    def _report_lost(self) -> None:
        self._tell(event="closed", n=self._lost)
        self._lost = 0

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._tell(event="beat")
        if self._door is not None:
            self._door.set_date()
            self._metrics.refresh()
        loop.call_later(BEAT_S, self._beat, loop)

    def _tell(self, **message: Any) -> None:
        self._channel.send(message)
        if self._channel.wants_write:  # the host is slow: what is left goes when it reads again
            loop = asyncio.get_running_loop()
            loop.add_writer(self._channel.fileno(), self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._channel.flush()
        if not self._channel.wants_write:
            loop.remove_writer(self._channel.fileno())


class _Door:
    """Connections on uvicorn's protocol, without its server: sockets come from the host one by one."""

    def __init__(self, spec: DeploymentSpec, app: InferenceApp, lost: Callable[[], None]) -> None:
        self.app = app
        self._lost = lost
        self._state = ServerState()
        self._arriving: set[socket.socket] = set()  # taken, and not yet among uvicorn's connections
        self._tasks: set[asyncio.Task[None]] = set()  # the loop holds its tasks by weak references alone
        self._protocol = _counted(guarded(spec), lost)
        self._config = uvicorn.Config(
            app,
            http=self._protocol,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=spec.keep_alive_timeout_s,
        )
        self._config.load()
        self.set_date()

    @property
    def connections(self) -> int:
        """How many are open, those included that are just being set up."""
        return len(self._state.connections) + len(self._arriving)

    def take(self, connection: socket.socket) -> None:
        self._arriving.add(connection)
        task = asyncio.create_task(self._take(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: self._new_protocol(connection), connection)
        except OSError:  # the client hung up meanwhile
            self._arriving.discard(connection)
            connection.close()
            self._lost()

    def _new_protocol(self, connection: socket.socket) -> asyncio.Protocol:
        made: Any = self._protocol(config=self._config, server_state=self._state, app_state={})
        made.arrived = lambda: self._arriving.discard(connection)
        return cast("asyncio.Protocol", made)

    def close_idle(self) -> None:
        """Close the connections without a request; the others close after their answer."""
        for protocol in list(self._state.connections):
            protocol.shutdown()

    async def abort(self) -> None:
        """Cut off what is left and wait until its tasks have ended: the log closes after that."""
        for protocol in list(self._state.connections):
            protocol.transport.abort()
        running = list(self._state.tasks)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def set_date(self) -> None:
        """uvicorn's server does this once a second for its own connections."""
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]


def _counted(protocol: type[Any], lost: Callable[[], None]) -> type[Any]:
    """`protocol`, telling when a connection is there (`arrived`, set on each instance), and when it is gone."""

    class Counted(protocol):  # type: ignore[misc]
        arrived: Callable[[], None]

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.arrived()  # in the same step as uvicorn counts it: no connection is ever counted twice

        def connection_lost(self, exc: Exception | None) -> None:
            try:
                super().connection_lost(exc)
            finally:
                lost()

    return Counted


def _cores_of_all(spec: DeploymentSpec) -> int:
    """The CPUs of all replicas together: a session that is alone at work takes those that its siblings leave idle.

    With every replica at work it costs 1 to 3 % (two replicas, two cores: 10,000 rows through a small network, an image
    through a convolution), and with one 1.7 to 1.9 times the requests.
    """
    return _share_of_cores(spec.threads * spec.replicas, 1)


def _share_of_cores(cpus: int, replicas: int) -> int:
    """As many CPUs as asked for, and no more than the cores that there are for each replica."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, cores // replicas))


def _unclean(channel: Channel) -> str | None:
    """What the fork brought along that a replica must not have, in words."""
    if len(names := thread_names()) > 1:
        return f"it has the threads {', '.join(names)}"
    if stray := sorted(open_descriptors() - {0, 1, 2, channel.fileno()}):
        return f"it inherited the descriptors {stray}"
    return None


def _words(broken: BaseException) -> str:
    if isinstance(broken, BettongError):
        return str(broken)
    log.error("replica did not load", exc_info=broken)
    return f"The replica did not load: {type(broken).__name__}: {broken}"
