"""Calls of drivers, each in a process of its own under a deadline: what hangs, crashes or leaks there stays there."""

from __future__ import annotations

import base64
import threading
from contextlib import closing, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyarrow as pa

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
from bettong.drivers.abilities import require
from bettong.drivers.arrow_forms import one_row, plain_reader
from bettong.drivers.child_process import ChildProcess
from bettong.drivers.earlier import upgraded
from bettong.drivers.handing_over import handed_over
from bettong.drivers.leases import Loan
from bettong.drivers.ready import Ready
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bettong.domain.drivers import Egress
    from bettong.drivers.leases import Manager
    from bettong.drivers.references import ReferencePolicy
    from bettong.drivers.registry import Registry

MAX_AT_ONCE = 16
KEEP_READY_S = 30.0
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
        managers: of secrets, by the scheme of the references that name what they keep.
        max_at_once: how many calls there are at most; a call waits for its turn within its own deadline.
        keep_ready_s: for how long after a call a process waits for the next one, so that its start is over by then. No
            process serves two calls.
    """

    def __init__(
        self,
        registry: Registry,
        egress: Egress,
        policy: ReferencePolicy,
        environment: Mapping[str, str],
        managers: Mapping[str, Manager] = MappingProxyType({}),
        *,
        max_at_once: int = MAX_AT_ONCE,
        keep_ready_s: float = KEEP_READY_S,
    ) -> None:
        self._registry, self._egress, self._policy, self._environment = registry, egress, policy, environment
        self._managers = managers
        self._turns = threading.BoundedSemaphore(max_at_once)
        self._ready = Ready(self._start, keep_ready_s)

    def close(self) -> None:
        """End the process that waits, if one does. Calls that run go on."""
        self._ready.close()

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that uses connections: of the server's variables, the few that it needs to run."""
        return {**{name: self._environment[name] for name in _BASE if name in self._environment}, **_FIXED}

    def loan(self) -> Loan:
        """What one use has from managers of secrets, to be closed when the use is over."""
        return Loan(self._managers, self._policy)

    def handed_over(self, kind: str, details: Mapping[str, Any], loan: Loan, timeout_s: float) -> dict[str, Any]:
        """What a process of its own, such as a job's, is told to open a connection by itself. It holds secrets.

        Raises:
            BadInput: the type has no driver, or a reference in the details is none.
        """
        return handed_over(
            self._registry, self._egress, self._policy, self._environment, kind, details, loan, timeout_s
        )

    def info(self, kind: str) -> DriverInfo | None:
        return self._registry.info(kind)

    def all(self) -> list[DriverInfo]:
        return self._registry.all()

    def upgraded(self, kind: str, details: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        if self._registry.info(kind) is None:
            return dict(details), ()
        return upgraded(self._registry.driver(kind).details, kind, details)

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
    ) -> Iterator[ChildProcess]:
        if not self._turns.acquire(timeout=timeout_s):
            raise Unavailable("Too many connections are being used at once.", "Try again in a moment.")
        try:
            with closing(self.loan()) as loan:
                words = {**asked, **self.handed_over(kind, details, loan, timeout_s)}
                child = self._ready.take()
                try:
                    child.begin(kind.upper(), words, timeout_s)
                    yield child
                finally:
                    child.end()
                    self._ready.refill(expected_after(words["driver"]))
        finally:
            self._turns.release()

    def _start(self) -> ChildProcess:
        return ChildProcess(self.environment)


def expected_after(driver: str) -> str:
    """The driver that a process gets ready for after a call of this one: the same, so that calls of one kind in a row
    find their libraries imported. What others wrote is loaded for calls of their own types alone."""
    return driver if driver.startswith("bettong.drivers.") else ""


def _packed(parameters: tuple[Any, ...]) -> str:
    """Parameters as text that keeps their types; "" without any. Raises BadInput for what has no Arrow type."""
    row = one_row(parameters)
    if row is None:
        return ""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, row.schema) as writer:
        writer.write_batch(row)
    return base64.b64encode(sink.getvalue()).decode()
