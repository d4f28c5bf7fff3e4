"""Connections: kept sealed, listed without details, revealed to few, and each reveal answered for.

Who may do what stands in docs/design/connections.md; `ConnectionService` decides it for its sisters that use and
change connections too.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.domain.connections import MAX_DETAILS_BYTES, Connection
from bettong.domain.details import json_kind, refuse_masks
from bettong.domain.identity import AuditEvent
from bettong.domain.names import check_free_name
from bettong.errors import BadInput, Conflict, Forbidden, NotFound, TooLarge, Unavailable
from bettong.secrets.details import open_details, seal_details
from bettong.services.workspaces import scope_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bettong.domain.connections import SealedDetails
    from bettong.domain.identity import Principal
    from bettong.domain.ports import AuditStore, ConnectionStore, JobStore, Keyring
    from bettong.services.workspaces import WorkspaceService

MAX_DEPTH = 100  # of nested details: deeper JSON is nobody's account file, and recursion has an end


class ConnectionService:
    """A connection is seen by its creator, by administrators and by members of a workspace it is linked to."""

    def __init__(
        self,
        connections: ConnectionStore,
        workspaces: WorkspaceService,
        keyring: Keyring,
        audit: AuditStore,
        jobs: JobStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._connections, self._workspaces, self._jobs = connections, workspaces, jobs
        self._keyring, self._audit, self._clock = keyring, audit, clock

    def create(self, principal: Principal, name: str, kind: str, details: object) -> Connection:
        """Seal and keep a new connection. `details` is a JSON object, or None for an empty one.

        Raises:
            BadInput: the name, type or details are none, or a mask stands for a value.
            TooLarge: the details are over 4 MiB as JSON.
            Conflict: a connection of this name exists on this platform.
        """
        check_free_name("Connection", name)
        check_free_name("Connection type", kind)
        plain = to_bytes(details)
        refuse_masks(details)
        connection = Connection(str(uuid4()), name, kind, principal.user_id, self._clock())
        self._connections.add(connection, seal_details(self._keyring, plain, connection.id, connection.version))
        self.record(principal, "connection.create", connection)
        return connection

    def get(self, principal: Principal, name: str) -> Connection:
        """The connection of this name, without its details. Raises NotFound."""
        found = self._connections.by_name(name, scope_of(principal))
        if found is None or not self._may_see(principal, found):
            raise _unknown(f"'{name}'")
        return found

    def get_by_id(self, principal: Principal, connection_id: str) -> Connection:
        """The same by id."""
        found = self._connections.by_id(connection_id, scope_of(principal))
        if found is None or not self._may_see(principal, found):
            raise _unknown("with that id")
        return found

    def editable(self, principal: Principal, connection_id: str) -> Connection:
        """The connection, if the caller may change it.

        Raises:
            NotFound: the caller may not see it.
            Forbidden: it is neither the caller's own, nor is the caller an administrator.
        """
        connection = self.get_by_id(principal, connection_id)
        if not owns(principal, connection):
            raise _lacking("edit", connection)
        return connection

    def may_reveal(self, principal: Principal, connection: Connection) -> bool:
        return self._may_see(principal, connection) and (not connection.use_only or owns(principal, connection))

    def reveal(self, principal: Principal, connection: Connection) -> dict[str, Any]:
        """The details in clear, secret references as they were given. The audit has it on disk before this returns.

        Raises:
            NotFound: the caller may not see the connection, or it is gone.
            Forbidden: it is for use only, and neither the caller's own, nor is the caller an administrator.
            Unavailable: no key of the ring opens it; which connection and which key is said.
        """
        if not self._may_see(principal, connection):
            raise _unknown(f"'{connection.name}'")
        if not self.may_reveal(principal, connection):
            raise _lacking("reveal", connection)
        details = self.opened(self._connections.sealed(connection.id))
        self.record(principal, "connection.reveal", connection)
        return details

    def opened(self, sealed: SealedDetails) -> dict[str, Any]:
        """The details of a version, for the services beside this one: nobody was asked, and nothing is audited.

        Raises:
            Unavailable: no key of the ring opens them.
        """
        try:
            details: dict[str, Any] = json.loads(open_details(self._keyring, sealed))
        except Unavailable as locked:
            raise _locked(sealed.name, locked) from locked
        return details

    def all(
        self,
        principal: Principal,
        workspace_id: int | None = None,
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Connection]:
        """Those the caller may see in order of creation; with a workspace, those linked to it, oldest link first.

        At most `limit` of them, from behind the one with the id `after`.

        Raises:
            NotFound: the caller may not see the workspace, or the list has no connection with the id `after`.
        """
        if workspace_id is not None:
            self._workspaces.visible(principal, workspace_id)
            return self._connections.linked_to(workspace_id, scope_of(principal), limit=limit, after=after)
        seen_by = None if principal.is_admin else principal.user_id
        return self._connections.all(seen_by=seen_by, workspace_ids=principal.workspace_ids, limit=limit, after=after)

    def link(self, principal: Principal, workspace_id: int, connection_id: str) -> str:
        """Open a connection to the members of a workspace; the id of the link. Linking again gives the first one's.

        Raises:
            NotFound: the caller may not see the workspace or the connection.
            Forbidden: it is for use only, and neither the caller's own, nor is the caller an administrator.
        """
        self._workspaces.visible(principal, workspace_id)
        connection = self.get_by_id(principal, connection_id)
        if connection.use_only and not owns(principal, connection):
            raise _lacking("link", connection)
        self.record(principal, "connection.link", connection)
        return self._connections.link(connection.id, workspace_id)

    def unlink(self, principal: Principal, workspace_id: int, connection_id: str) -> None:
        """Take a connection out of a workspace; it stays otherwise. No error when it is not in it.

        Raises:
            NotFound: the caller may not see the workspace or the connection.
        """
        self._workspaces.visible(principal, workspace_id)
        connection = self.get_by_id(principal, connection_id)
        self._connections.unlink(connection.id, workspace_id)
        self.record(principal, "connection.unlink", connection)

    def set_use_only(self, principal: Principal, connection_id: str, use_only: bool) -> Connection:
        """Whether those who may use it may also reveal and link it. Raises NotFound, Forbidden as `editable`."""
        connection = self.editable(principal, connection_id)
        self.record(principal, "connection.use_only" if use_only else "connection.not_use_only", connection)
        self._connections.set_use_only(connection.id, use_only)
        return self.get_by_id(principal, connection_id)

    def delete(self, principal: Principal, name: str, *, force: bool = False) -> None:
        """Remove a connection, its details in every version, and every link.

        Raises:
            NotFound: the caller may not see it.
            Forbidden: it is neither the caller's own, nor is the caller an administrator.
            Conflict: jobs that have not ended read or write it, and it was not to be forced. They would fail.
        """
        connection = self.get(principal, name)
        if not owns(principal, connection):
            raise _lacking("edit", connection)
        if not force and (busy := self._jobs.all(None, unended=True, connection_id=connection.id)):
            shown = ", ".join(f"{job.kind.value} {job.id} ({job.state.value})" for job in busy[:5])
            more = f" and {len(busy) - 5} more" if len(busy) > 5 else ""
            raise Conflict(
                f"Connection '{name}' is used by {len(busy)} unended job{'s' * (len(busy) > 1)}: {shown}{more}.",
                "Wait for them, cancel them, or delete it with force: then they fail.",
            )
        self.record(principal, "connection.delete", connection)  # first: nothing vanishes without a word
        self._connections.delete(connection.id)

    def unreadable(self, principal: Principal) -> list[str]:
        """Names of the caller's connections that no key of the ring opens. No value is looked at."""
        visible = {c.id for c in self.all(principal)}
        return [name for name, _ in self._locked_ones(visible)]

    def unreadable_reasons(self) -> list[str]:
        """One sentence per connection that cannot be opened, for the log of a start and the operator."""
        return [str(_locked(name, reason)) for name, reason in self._locked_ones(None)]

    def _locked_ones(self, among: set[str] | None) -> list[tuple[str, Unavailable]]:
        found = []
        for sealed in self._connections.all_sealed():
            if among is not None and sealed.connection_id not in among:
                continue
            try:
                open_details(self._keyring, sealed)
            except Unavailable as locked:
                found.append((sealed.name, locked))
        return found

    def _may_see(self, principal: Principal, connection: Connection) -> bool:
        return (
            principal.is_admin
            or connection.created_by == principal.user_id
            or not self._connections.workspaces_of(connection.id).isdisjoint(principal.workspace_ids)
        )

    def record(self, principal: Principal, action: str, connection: Connection, detail: str = "") -> None:
        """Put what somebody does with a connection into the audit; it is on disk when this returns."""
        self._audit.record(
            AuditEvent(
                self._clock(),
                principal.user_id,
                principal.email,
                principal.origin,
                action,
                "connection",
                connection.id,
                connection.name,
                detail,
            )
        )


def owns(principal: Principal, connection: Connection) -> bool:
    """Whether the caller made the connection or is an administrator: who may reveal, edit and link it in any case."""
    return principal.is_admin or connection.created_by == principal.user_id


def to_bytes(details: object) -> bytes:
    """Details as the JSON bytes that are sealed: read back they are equal, to the last digit and key order.

    Raises:
        BadInput: they are no JSON object (None counts as an empty one).
        TooLarge: they are over 4 MiB.
    """
    if details is None:
        return b"{}"
    if not isinstance(details, dict):
        raise BadInput(
            f"The details of a connection are {json_kind(details)}.",
            'Send a JSON object such as {"url": "https://host/file"}, or leave them out.',
        )
    if deeper_than(details, MAX_DEPTH):
        raise BadInput(f"The details are nested more than {MAX_DEPTH} levels deep.", "Flatten them.")
    try:
        plain = json.dumps(details, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):  # its text may carry a value: not passed on
        raise BadInput(
            "The details hold something that JSON does not know, such as NaN or Infinity.", "Send JSON values only."
        ) from None
    if len(plain) > MAX_DETAILS_BYTES:
        raise TooLarge(
            f"The details are {len(plain)} bytes of JSON, and at most {MAX_DETAILS_BYTES} are kept.",
            "Keep large files elsewhere and name their place in the details.",
        )
    return plain


def deeper_than(value: object, levels: int) -> bool:
    """Whether lists and objects are nested more than `levels` deep. Found without recursion."""
    layer: list[object] = [value]
    for _ in range(levels):
        layer = [
            child
            for holder in layer
            if isinstance(holder, (dict, list))
            for child in (holder.values() if isinstance(holder, dict) else holder)
        ]
        if not layer:
            return False
    return any(isinstance(v, (dict, list)) for v in layer)


def _unknown(which: str) -> NotFound:
    return NotFound(
        f"There is no connection {which} that you may see.",
        "List the connections, or ask its creator to link it to a workspace of yours.",
    )


def _lacking(right: str, connection: Connection) -> Forbidden:
    why = " It is for use only." if right != "edit" else ""
    return Forbidden(
        f"You may use connection '{connection.name}', but the right to {right} it is missing.{why}",
        "Its creator and administrators have it: ask one of them.",
    )


def _locked(name: str, reason: Unavailable) -> Unavailable:
    return Unavailable(f"Connection '{name}' cannot be opened: {reason.problem}", reason.next_step)
