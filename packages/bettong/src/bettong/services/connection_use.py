"""Using connections: whoever sees one may have the server test, browse, read and write it, password unseen.

Each use is audited with what it was for before anything is opened. The work happens in a process of its own, behind
the port `DriverCalls`; secret references are resolved behind it and nowhere else.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.details import changed, refuse_masks
from bettong.domain.drivers import ReadRequest
from bettong.domain.identity import AuditEvent
from bettong.domain.names import check_free_name
from bettong.services.connections import to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from bettong.domain.drivers import DriverCalls, DriverInfo, Entry, TestReport, WriteRequest, WriteResult
    from bettong.domain.identity import Principal
    from bettong.domain.ports import AuditStore, ConnectionStore
    from bettong.services.connections import ConnectionService

TEST_TIMEOUT_S = 20.0
BROWSE_TIMEOUT_S = 30.0
BATCH_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 3600.0
MAX_PREVIEW_ROWS = 1000


class ConnectionUse:
    """Every call raises NotFound for a connection that the caller may not see, Unavailable for details that no key
    opens, and what `DriverCalls` raises. `purpose` is the caller's own words for the audit."""

    def __init__(
        self,
        connections: ConnectionService,
        store: ConnectionStore,
        drivers: DriverCalls,
        audit: AuditStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._connections, self._store, self._drivers = connections, store, drivers
        self._audit, self._clock = audit, clock

    def drivers(self) -> list[DriverInfo]:
        """What connections of which types can do here."""
        return self._drivers.all()

    def driver(self, kind: str) -> DriverInfo | None:
        """The driver of a type, None for one that is stored only."""
        return self._drivers.info(kind)

    def opened(self, principal: Principal, connection_id: str, action: str, purpose: str = "") -> tuple[str, Any]:
        """(type, details) of a connection for work that the server does for the caller, such as a job. They go to
        `DriverCalls` and nowhere else.

        Args:
            action: for the audit, such as "connection.read".
        """
        connection = self._connections.get_by_id(principal, connection_id)
        details = self._connections.opened(self._store.sealed(connection.id))
        self._connections.record(principal, action, connection, purpose)
        self._store.touch(connection.id)
        return connection.type, details

    def test(
        self, principal: Principal, connection_id: str, details: Mapping[str, Any] | None = None, purpose: str = ""
    ) -> TestReport:
        """Every layer down to the first that fails. With `details`, a mask or a missing field in them means what is
        stored: a change tried before it is made, for who may edit the connection.

        Raises:
            Forbidden: `details` are given and the caller may not edit it.
        """
        if details is None:
            kind, stored = self.opened(principal, connection_id, "connection.test", purpose)
            return self._drivers.test(kind, stored, TEST_TIMEOUT_S)
        connection = self._connections.editable(principal, connection_id)
        tried = changed(self._connections.opened(self._store.sealed(connection.id)), details)
        to_bytes(tried)
        self._connections.record(principal, "connection.test", connection, purpose)
        return self._drivers.test(connection.type, tried, TEST_TIMEOUT_S)

    def try_out(self, principal: Principal, kind: str, details: Mapping[str, Any]) -> TestReport:
        """Test details that are not kept anywhere. Raises BadInput for a mask among them."""
        check_free_name("Connection type", kind)
        to_bytes(dict(details))
        refuse_masks(details)
        self._audit.record(
            AuditEvent(
                self._clock(),
                principal.user_id,
                principal.email,
                principal.origin,
                "connection.try_out",
                "connection",
                "",
                kind,
            )
        )
        return self._drivers.test(kind, details, TEST_TIMEOUT_S)

    def browse(self, principal: Principal, connection_id: str, path: str = "", purpose: str = "") -> list[Entry]:
        """What lies under `path`; "" is the top."""
        kind, details = self.opened(principal, connection_id, "connection.browse", purpose)
        return self._drivers.browse(kind, details, path, BROWSE_TIMEOUT_S)

    def preview(
        self, principal: Principal, connection_id: str, table: str, rows: int = 10, purpose: str = ""
    ) -> pa.Table:
        """The first rows of a table, at most `MAX_PREVIEW_ROWS`."""
        few = min(rows, MAX_PREVIEW_ROWS)
        request = ReadRequest(table, batch_rows=max(few, 1), limit=few)
        kind, details = self.opened(principal, connection_id, "connection.preview", purpose)
        with self._drivers.read(kind, details, request, BATCH_TIMEOUT_S) as reader:
            return _first(reader, few)

    @contextmanager
    def read(
        self,
        principal: Principal,
        connection_id: str,
        request: ReadRequest,
        purpose: str = "",
        timeout_s: float = BATCH_TIMEOUT_S,
    ) -> Iterator[pa.RecordBatchReader]:
        """Stream rows; `timeout_s` bounds the time to each batch. Leaving the block ends the reading."""
        kind, details = self.opened(principal, connection_id, "connection.read", purpose)
        with self._drivers.read(kind, details, request, timeout_s) as reader:
            yield reader

    def write(
        self,
        principal: Principal,
        connection_id: str,
        request: WriteRequest,
        rows: pa.RecordBatchReader,
        purpose: str = "",
        timeout_s: float = WRITE_TIMEOUT_S,
    ) -> WriteResult:
        """Write every batch of `rows`, one in memory at a time."""
        kind, details = self.opened(principal, connection_id, "connection.write", purpose)
        return self._drivers.write(kind, details, request, rows, timeout_s)


def _first(reader: pa.RecordBatchReader, rows: int) -> pa.Table:
    batches, missing = [], rows
    for batch in reader:
        batches.append(batch.slice(0, missing))
        missing -= batches[-1].num_rows
        if missing <= 0:
            break
    return pa.Table.from_batches(batches, reader.schema)
