"""Calls of drivers, each in a process of its own under a deadline: what hangs, crashes or leaks there stays there."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong import errors
from bettong.domain.drivers import (
    Capability,
    DriverInfo,
    Entry,
    ReadRequest,
    Stage,
    StageResult,
    TestReport,
    WriteMode,
    WriteRequest,
    WriteResult,
)
from bettong.drivers import frames, references
from bettong.drivers.abilities import require
from bettong.drivers.arrow_forms import bounded, one_row, plain_reader
from bettong.drivers.layers import after
from bettong.errors import BadInput, BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bettong.domain.drivers import Egress
    from bettong.drivers.references import ReferencePolicy
    from bettong.drivers.registry import Registry

log = logging.getLogger("bettong.drivers")

MAX_AT_ONCE = 16
HANDED_ON_ROWS = 65_536
# Of the server's environment, what a process needs to find certificates, a place for temporary files and the time zone.
_BASE = ("PATH", "LD_LIBRARY_PATH", "TMPDIR", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FIXED = {"LANG": "C.UTF-8", "HOME": "/nonexistent", "OPENBLAS_NUM_THREADS": "1", "PYDANTIC_DISABLE_PLUGINS": "__all__"}


class DriverProcesses:
    """Implements `domain.drivers.DriverCalls`. Safe to use from many threads.

    A process is started for a call and is gone when the call is over, however it ends; it ends by itself when this
    process does. Details and what was resolved of them reach it over a pipe, never by argument, environment or file.

    Args:
        registry: the drivers there are.
        egress: which addresses and folders they may reach.
        policy: which secrets references may name.
        environment: the server's variables. Processes get the few that they need to run; `env:` references reach those
            that `policy` allows.
        max_at_once: how many processes there are at most; a call waits for its turn within its own deadline.
    """

    def __init__(
        self,
        registry: Registry,
        egress: Egress,
        policy: ReferencePolicy,
        environment: Mapping[str, str],
        *,
        max_at_once: int = MAX_AT_ONCE,
    ) -> None:
        self._registry, self._egress, self._policy, self._environment = registry, egress, policy, environment
        self._turns = threading.BoundedSemaphore(max_at_once)

    def info(self, kind: str) -> DriverInfo | None:
        return self._registry.info(kind)

    def all(self) -> list[DriverInfo]:
        return self._registry.all()

    def test(self, kind: str, details: Mapping[str, Any], timeout_s: float) -> TestReport:
        self._registry.driver(kind)
        try:
            with self._child(kind, details, timeout_s, {"do": "test"}) as child:
                return TestReport(tuple(child.stages()))
        except BadInput as refused:  # a reference that is none is found before there is a process
            return TestReport((StageResult(Stage.DETAILS, False, 0.0, refused.problem, refused.next_step),))

    def browse(self, kind: str, details: Mapping[str, Any], path: str, timeout_s: float) -> list[Entry]:
        require(kind, self._registry.driver(kind), Capability.BROWSE)
        with self._child(kind, details, timeout_s, {"do": "browse", "path": path}) as child:
            return [Entry(*entry) for entry in child.answer()["entries"]]

    @contextmanager
    def read(
        self, kind: str, details: Mapping[str, Any], request: ReadRequest, timeout_s: float
    ) -> Iterator[pa.RecordBatchReader]:
        require(kind, self._registry.driver(kind), Capability.READ)
        asked = {
            "do": "read",
            "query": request.query,
            "parameters": _packed(request.parameters),
            "batch_rows": request.batch_rows,
            "limit": request.limit,
        }
        with self._child(kind, details, timeout_s, asked) as child:
            schema = child.schema()
            yield pa.RecordBatchReader.from_batches(schema, child.batches(schema))

    def write(
        self,
        kind: str,
        details: Mapping[str, Any],
        request: WriteRequest,
        rows: pa.RecordBatchReader,
        timeout_s: float,
    ) -> WriteResult:
        needed = Capability.UPSERT if request.mode is WriteMode.UPSERT else Capability.WRITE
        require(kind, self._registry.driver(kind), needed)
        if request.mode is WriteMode.UPSERT and not request.keys:
            raise BadInput("Upsert needs key columns, and none were named.", "Pass keys, such as keys=['day'].")
        asked = {"do": "write", "table": request.table, "mode": request.mode.value, "keys": list(request.keys)}
        with self._child(kind, details, timeout_s, asked) as child:
            child.hand_on(plain_reader(rows))
            return WriteResult(int(child.answer()["rows"]))

    @contextmanager
    def _child(
        self, kind: str, details: Mapping[str, Any], timeout_s: float, asked: dict[str, Any]
    ) -> Iterator[_Child]:
        driver = self._registry.driver(kind)
        until = time.monotonic() + timeout_s
        words = {
            **asked,
            "kind": kind.upper(),
            "driver": f"{driver.__module__}:{driver.__qualname__}",
            "folders": list(self._registry.folders),
            "details": dict(details),
            "egress": asdict(self._egress),
            "references": asdict(self._policy),
            "variables": references.variables_for(details, self._policy, self._environment),
            "timeout_s": timeout_s,
        }
        if not self._turns.acquire(timeout=timeout_s):
            raise Unavailable("Too many connections are being used at once.", "Try again in a moment.")
        try:
            child = _Child(kind.upper(), timeout_s, self._child_environment())
            try:
                child.begin(words, until)
                yield child
            finally:
                child.end()
        finally:
            self._turns.release()

    def _child_environment(self) -> dict[str, str]:
        return {**{name: self._environment[name] for name in _BASE if name in self._environment}, **_FIXED}


class _Child:
    """One running process and the pipes to it."""

    def __init__(self, kind: str, timeout_s: float, environment: Mapping[str, str]) -> None:
        self._kind, self._timeout_s = kind, timeout_s
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        child_life, self._life = os.pipe()
        theirs = (child_in, child_out, child_life)
        try:
            for descriptor in (self._out, self._in):
                frames.widen(descriptor)
            os.set_blocking(self._out, False)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "bettong.drivers._child", *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(environment),
                pass_fds=theirs,
                start_new_session=True,
            )
        except OSError as failed:
            self._close()
            raise Unavailable("No process could be started for the driver.", "Try again in a moment.") from failed
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._line = frames.Line(self._in, self._out)

    def begin(self, words: dict[str, Any], until: float) -> None:
        with self._patience():
            self._line.say(words, until)

    def stages(self) -> Iterator[StageResult]:
        """The layers as they come. The one that takes longer than there is time fails."""
        until = time.monotonic() + self._timeout_s
        seen: list[StageResult] = []
        while True:
            try:
                said = self.answer(until)
            except DeadlineExceeded as late:
                yield StageResult(
                    after(seen) or Stage.SAMPLE, False, self._timeout_s * 1000, late.problem, late.next_step
                )
                return
            if "stage" not in said:
                return
            stage, ok, took_ms, text, next_step = said["stage"]
            seen.append(StageResult(Stage(stage), ok, took_ms, text, next_step))
            yield seen[-1]

    def answer(self, until: float | None = None) -> dict[str, Any]:
        """The next words. Raises what they tell of, DeadlineExceeded, or Unavailable when the process died."""
        kind, body = self._receive(until)
        if kind != frames.WORDS:
            raise self._died()
        return self._heard(body)

    def schema(self) -> pa.Schema:
        kind, body = self._receive()
        if kind == frames.WORDS:
            self._heard(body)
        if kind != frames.SCHEMA:
            raise self._died()
        return pa.ipc.read_schema(body)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            kind, body = self._receive()
            if kind == frames.ROWS:
                yield pa.ipc.read_record_batch(body, schema)
            elif kind == frames.WORDS:
                self._heard(body)
            elif kind == frames.END:
                return
            else:
                raise self._died()

    def hand_on(self, rows: pa.RecordBatchReader) -> None:
        """Send every batch. An error in `rows` leaves the process without the end of them, so nothing is kept."""
        self._send(lambda until: self._line.send_schema(rows.schema, until))
        for batch in bounded(rows, HANDED_ON_ROWS):
            if not self._send(lambda until, batch=batch: self._line.send_batch(batch, until, listen=True)):
                return
        self._send(lambda until: self._line.send(frames.END, b"", until, listen=True))

    def end(self) -> None:
        """Nothing of the process is left when this returns. The last call."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _send(self, send: Any) -> bool:
        """Whether it was taken. If not, the process has words to tell why."""
        with self._patience():
            try:
                send(time.monotonic() + self._timeout_s)
            except frames.Interrupted:
                return False
        return True

    def _receive(self, until: float | None = None) -> tuple[bytes, pa.Buffer]:
        with self._patience():
            return self._line.receive(time.monotonic() + self._timeout_s if until is None else until)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        failed: BettongError
        try:
            yield
            return
        except TimeoutError:
            failed = DeadlineExceeded(
                f"The {self._kind} connection did not answer within {self._timeout_s:g} s.",
                "Test it to see which layer is slow, or allow more time.",
            )
        except frames.Ended:
            failed = self._died()
        raise failed

    def _heard(self, body: pa.Buffer) -> dict[str, Any]:
        said = frames.words(body)
        if "failed" in said:
            code, problem, next_step = said["failed"]
            raise _by_code(code)(problem, next_step)
        return said

    def _died(self) -> Unavailable:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        log.warning("driver process died kind=%s %s", self._kind, how)
        return Unavailable(f"The process that used the {self._kind} connection ended {how}.", "Try again.")

    def _close(self) -> None:
        for descriptor in (self._out, self._in, self._life):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _packed(parameters: tuple[Any, ...]) -> str:
    """Parameters as text that keeps their types; "" without any. Raises BadInput for what has no Arrow type."""
    row = one_row(parameters)
    if row is None:
        return ""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_batch(row)
    return base64.b64encode(sink.getvalue()).decode()


def _by_code(code: str) -> type[BettongError]:
    known = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BettongError)]
    return next((kind for kind in known if kind.code == code), Unavailable)
