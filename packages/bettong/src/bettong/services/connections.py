"""Connections: kept sealed, listed without details, revealed to few, and each reveal answered for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.domain.connections import MAX_DETAILS_BYTES, Connection
from bettong.domain.identity import AuditEvent
from bettong.domain.names import check_free_name
from bettong.errors import BadInput, NotFound, TooLarge, Unavailable
from bettong.secrets.details import open_details, seal_details
from bettong.services.workspaces import scope_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bettong.domain.identity import Principal
    from bettong.domain.ports import AuditStore, ConnectionStore, Keyring
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
        clock: Callable[[], datetime],
    ) -> None:
        self._connections, self._workspaces = connections, workspaces
        self._keyring, self._audit, self._clock = keyring, audit, clock

    def create(self, principal: Principal, name: str, kind: str, details: object) -> Connection:
        """Seal and keep a new connection. `details` is a JSON object, or None for an empty one.

        Raises:
            BadInput: the name, type or details are none.
            TooLarge: the details are over 4 MiB as JSON.
            Conflict: a connection of this name exists on this platform.
        """
        check_free_name("Connection", name)
        check_free_name("Connection type", kind)
        plain = to_bytes(details)
        connection = Connection(str(uuid4()), name, kind, principal.user_id, self._clock())
        self._connections.add(connection, seal_details(self._keyring, plain, connection.id, connection.version))
        self._record(principal, "connection.create", connection)
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

    def reveal(self, principal: Principal, connection: Connection) -> dict[str, Any]:
        """The details in clear. The audit has it on disk before this returns.

        Raises:
            NotFound: the caller may not see the connection, or it is gone.
            Unavailable: no key of the ring opens it; which connection and which key is said.
        """
        if not self._may_see(principal, connection):
            raise _unknown(f"'{connection.name}'")
        sealed = self._connections.sealed(connection.id)
        try:
            plain = open_details(self._keyring, sealed)
        except Unavailable as locked:
            raise _locked(connection.name, locked) from locked
        self._record(principal, "connection.reveal", connection)
        details: dict[str, Any] = json.loads(plain)
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
        """
        self._workspaces.visible(principal, workspace_id)
        connection = self.get_by_id(principal, connection_id)
        self._record(principal, "connection.link", connection)
        return self._connections.link(connection.id, workspace_id)

    def unlink(self, principal: Principal, workspace_id: int, connection_id: str) -> None:
        """Take a connection out of a workspace; it stays otherwise. No error when it is not in it.

        Raises:
            NotFound: the caller may not see the workspace or the connection.
        """
        self._workspaces.visible(principal, workspace_id)
        connection = self.get_by_id(principal, connection_id)
        self._connections.unlink(connection.id, workspace_id)
        self._record(principal, "connection.unlink", connection)

    def delete(self, principal: Principal, name: str) -> None:
        """Remove a connection, its details and every link.

        Raises:
            NotFound: there is none that the caller may delete: one of their own, or any for an administrator.
        """
        connection = self.get(principal, name)
        if not principal.is_admin and connection.created_by != principal.user_id:
            raise NotFound(
                f"There is no connection '{name}' that you may delete.",
                "Ask its creator or an administrator, or remove it from the workspace instead.",
            )
        self._record(principal, "connection.delete", connection)  # first: nothing vanishes without a word
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

    def _record(self, principal: Principal, action: str, connection: Connection) -> None:
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
            )
        )


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
            f"The details of a connection are {_json_kind(details)}.",
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


def _json_kind(value: object) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return {str: "a text", list: "a list", int: "a number", float: "a number"}.get(type(value), "no JSON value")


def _unknown(which: str) -> NotFound:
    return NotFound(
        f"There is no connection {which} that you may see.",
        "List the connections, or ask its creator to link it to a workspace of yours.",
    )


def _locked(name: str, reason: Unavailable) -> Unavailable:
    return Unavailable(f"Connection '{name}' cannot be opened: {reason.problem}", reason.next_step)
