"""Changing connections: each change is a new version, tried first where it is a rotation, and can be taken back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as dataclass_replace
from typing import TYPE_CHECKING, Any

from bettong.domain.declarations import Declaration, held_back
from bettong.domain.details import Changes, changed, difference, masked, replaced
from bettong.errors import BadInput, BettongError, Unavailable
from bettong.secrets.details import seal_details
from bettong.services.connection_use import TEST_TIMEOUT_S
from bettong.services.connections import owns, to_bytes
from bettong.services.workspaces import scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from bettong.domain.connections import Connection, SealedDetails
    from bettong.domain.drivers import DriverCalls, TestReport
    from bettong.domain.identity import AuditEvent, Principal
    from bettong.domain.jobs import Job
    from bettong.domain.ports import AuditStore, ConnectionStore, JobStore, Keyring
    from bettong.services.connections import ConnectionService


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a connection's details. `changes` are against the version before it, None where that is gone;
    `readable` is False when no key opens it. `read_as` says in words how its driver reads fields of an earlier form."""

    version: int
    created_by: str
    created_at: datetime
    current: bool
    readable: bool
    changes: Changes | None
    read_as: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotation:
    """What came of trying new credentials: `switched` only when the test went well."""

    connection: Connection
    switched: bool
    report: TestReport


@dataclass(frozen=True, slots=True)
class Exported:
    """Connections as declarations, and why others were left out: a sentence by name."""

    declared: tuple[Declaration, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class UsedBy:
    """Where a connection is used. The caller is told names of what they may see, and how much more there is."""

    connection: Connection
    hidden_workspaces: int
    jobs: tuple[Job, ...]
    hidden_jobs: int


class ConnectionVersions:
    """All but `used_by` and `export` is for who may edit the connection: else Forbidden, or NotFound where it may not
    be seen."""

    def __init__(
        self,
        connections: ConnectionService,
        store: ConnectionStore,
        drivers: DriverCalls,
        keyring: Keyring,
        jobs: JobStore,
        audit: AuditStore,
    ) -> None:
        self._connections, self._store, self._drivers = connections, store, drivers
        self._keyring, self._jobs, self._audit = keyring, jobs, audit

    def shown(self, principal: Principal, connection_id: str) -> dict[str, Any]:
        """The details with every value masked, to be filled in and sent back."""
        connection = self._connections.editable(principal, connection_id)
        return masked(self._connections.opened(self._store.sealed(connection.id)))

    def export(self, principal: Principal, workspace_id: int | None = None) -> Exported:
        """The connections that the caller sees, or those of a workspace, without a secret: of types that have a driver
        the fields that it knows and does not call secret, and references; all else is masked. One that the caller may
        not edit, or that no key opens, is left out. Each export is in the audit.

        Raises:
            NotFound: the caller may not see the workspace.
        """
        declared, left_out = [], {}
        for connection in self._connections.all(principal, workspace_id):
            if not owns(principal, connection):
                left_out[connection.name] = (
                    f"You may use connection '{connection.name}'; its creator and administrators may export it."
                )
                continue
            try:
                details = self._connections.opened(self._store.sealed(connection.id))
            except Unavailable as locked:
                left_out[connection.name] = str(locked)
                continue
            self._connections.record(principal, "connection.export", connection)
            shown = held_back(details, self._plain_fields(connection.type))
            declared.append(
                Declaration(connection.name, connection.type, shown, connection.use_only, connection.workspace_names)
            )
        return Exported(tuple(declared), left_out)

    def update(
        self,
        principal: Principal,
        connection_id: str,
        details: Mapping[str, Any],
        *,
        remove: Iterable[str] = (),
        replace: bool = False,
    ) -> Connection:
        """Put changed details in force: `details` over what is stored, or with `replace` in place of it. A mask keeps
        what is stored there, at any depth. When nothing changes, no version is made.

        Raises:
            BadInput: a mask stands for nothing, or a field to remove is not there.
            Conflict: somebody else changed it at the same time.
        """
        connection = self._connections.editable(principal, connection_id)
        sealed, stored, new = self._tried(connection, details, remove, replace)
        if difference(stored, new) == Changes():
            return connection
        return self._put(principal, connection, sealed.version + 1, new, "connection.update")

    def rotate(self, principal: Principal, connection_id: str, details: Mapping[str, Any]) -> Rotation:
        """Test changed details and put them in force if they work; else everything stays as it is.

        Raises:
            BadInput: there is no driver that could test it; or as `update`.
            Conflict: somebody else changed it meanwhile.
        """
        connection = self._connections.editable(principal, connection_id)
        if self._drivers.info(connection.type) is None:
            raise BadInput(
                f"Connection '{connection.name}' has the type '{connection.type}', which no driver can test.",
                "Change it with update, which does not test.",
            )
        sealed, _, new = self._tried(connection, details, (), False)
        self._connections.record(principal, "connection.test", connection, "rotate")
        report = self._drivers.test(connection.type, new, TEST_TIMEOUT_S)
        if not report.ok:
            return Rotation(connection, switched=False, report=report)
        changed_now = self._put(principal, connection, sealed.version + 1, new, "connection.rotate")
        return Rotation(changed_now, switched=True, report=report)

    def rollback(self, principal: Principal, connection_id: str, version: int) -> Connection:
        """Put the details of an older version in force again, as a new version.

        Raises:
            NotFound: there is no such version, or no longer.
        """
        connection = self._connections.editable(principal, connection_id)
        if version == connection.version:
            raise BadInput(f"Version {version} of connection '{connection.name}' is in force.", "Name an older one.")
        old = self._connections.opened(self._store.sealed(connection.id, version))
        return self._put(
            principal, connection, connection.version + 1, old, "connection.rollback", f"to version {version}"
        )

    def versions(self, principal: Principal, connection_id: str) -> list[Version]:
        """Those that are kept, newest first."""
        connection = self._connections.editable(principal, connection_id)
        kept = self._store.versions(connection.id)
        opened = {each.version: self._opened_or_none(each) for each in kept}
        return [
            Version(
                version=each.version,
                created_by=each.created_by,
                created_at=each.created_at,
                current=each.version == connection.version,
                readable=opened[each.version] is not None,
                changes=_changes(opened.get(each.version - 1), opened[each.version]),
                read_as=self._read_as(connection.type, opened[each.version]),
            )
            for each in kept
        ]

    def purge(self, principal: Principal, connection_id: str) -> int:
        """Forget every version but the one in force; how many were forgotten."""
        connection = self._connections.editable(principal, connection_id)
        self._connections.record(principal, "connection.purge", connection)
        return self._store.purge(connection.id)

    def audit(self, principal: Principal, connection_id: str, limit: int) -> list[AuditEvent]:
        """What was done with it, newest first."""
        connection = self._connections.editable(principal, connection_id)
        return self._audit.of_subject("connection", connection.id, limit=limit)

    def used_by(self, principal: Principal, connection_id: str, limit: int = 100) -> UsedBy:
        """The workspaces it is linked to and the unended jobs that read or write it, for whoever sees it."""
        connection = self._connections.get_by_id(principal, connection_id)
        linked = self._store.workspaces_of(connection.id)
        scope = scope_of(principal)
        jobs = self._jobs.all(None, unended=True, connection_id=connection.id)
        visible = [job for job in jobs if scope is None or job.workspace_id in scope]
        return UsedBy(
            connection=connection,
            hidden_workspaces=len(linked) - len(connection.workspace_names),
            jobs=tuple(visible[:limit]),
            hidden_jobs=len(jobs) - len(visible),
        )

    def _plain_fields(self, kind: str) -> frozenset[str]:
        """The fields of a type that its driver knows and does not call secret; none without a driver."""
        try:
            driver = self._drivers.info(kind)
        except Unavailable:  # a driver of others that does not import: nobody says what is secret
            return frozenset()
        if driver is None:
            return frozenset()
        return frozenset(driver.details_schema.get("properties", {})) - frozenset(driver.secret_fields)

    def _tried(
        self, connection: Connection, details: Mapping[str, Any], remove: Iterable[str], replace: bool
    ) -> tuple[SealedDetails, dict[str, Any], dict[str, Any]]:
        """What is in force, its details, and what they would be after the change."""
        to_bytes(dict(details))  # before it is walked through: depth and size have bounds
        sealed = self._store.sealed(connection.id)
        stored = self._connections.opened(sealed)
        new = replaced(stored, details) if replace else changed(stored, details, remove=remove)
        return sealed, stored, new

    def _put(
        self,
        principal: Principal,
        connection: Connection,
        version: int,
        details: Mapping[str, Any],
        action: str,
        what: str = "",
    ) -> Connection:
        with suppress(BettongError):  # a driver that is broken keeps nobody from changing details
            details, _ = self._drivers.upgraded(connection.type, details)
        sealed = seal_details(self._keyring, to_bytes(dict(details)), connection.id, version)
        self._store.add_version(connection.id, sealed, version=version, created_by=principal.user_id)
        self._connections.record(principal, action, connection, what or f"version {version}")
        return dataclass_replace(connection, version=version)

    def _read_as(self, kind: str, details: Mapping[str, Any] | None) -> tuple[str, ...]:
        if details is None:
            return ()
        try:
            return self._drivers.upgraded(kind, details)[1]
        except BettongError as fault:  # of a driver that is broken: it is told of wherever it is used
            return (str(fault),)

    def _opened_or_none(self, sealed: SealedDetails) -> dict[str, Any] | None:
        try:
            return self._connections.opened(sealed)
        except Unavailable:
            return None


def _changes(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> Changes | None:
    return None if before is None or after is None else difference(before, after)
