"""Connections: how code reaches a data source. Their details are asked for, never shown."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo.object import EntityNotFoundError, Object, RequestRefused, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wallaroo.client import Client

MASK = "*****"
_ROOT = "/v1/api/connections"


class Connection(Object):
    """A named record of a type and details. Only `details()` reveals the details, and the platform notes who did."""

    def id(self) -> str:
        return str(self._get("id"))

    def name(self) -> str:
        return str(self._get("name"))

    def connection_type(self) -> str:
        return str(self._get("type"))

    def details(self) -> dict[str, Any]:
        """The details in plain text, as they were given; read once per object, and audited.

        Raises:
            RequestRefused: the platform does not reveal them, to this caller or at all, and says why.
        """
        if "details" not in self._record:
            try:
                revealed = self._client._transport.post(f"{_ROOT}/get_by_id", {"id": self.id(), "reveal": True})
            except WallarooAPIError as error:
                raise RequestRefused.because("Failed to get connection details.", error) from None
            self._record["details"] = revealed.get("details")
        details: dict[str, Any] = copy.deepcopy(self._record["details"])
        return details

    def created_at(self) -> str:
        return str(self._get("created_at"))

    def workspace_names(self) -> list[str]:
        """The workspaces it was linked to when this object was fetched, in the order of linking."""
        return list(self._get("workspace_names"))

    def delete_connection(self) -> None:
        """Remove the connection and every link to it."""
        _refusable(self._client, "delete", {"name": self.name()}, "Failed to delete connection.")

    def add_connection_to_workspace(self, workspace_id: int) -> None:
        link(self._client, self.id(), workspace_id)

    def remove_connection_from_workspace(self, workspace_id: int) -> None:
        unlink(self._client, self.id(), workspace_id)

    def _fetch(self) -> Mapping[str, Any]:
        key = {"id": self._record["id"]} if "id" in self._record else {"name": self._record["name"]}
        path = f"{_ROOT}/get_by_id" if "id" in key else f"{_ROOT}/get"
        record: dict[str, Any] = self._client._transport.post(path, {**key, "reveal": False})
        record.pop("details", None)  # only asked-for details are kept
        return record

    def _rows(self) -> Sequence[Row]:
        return [
            ("Name", self.name()),
            ("Connection Type", self.connection_type()),
            ("Details", MASK),
            ("Created At", show_time(self._client, self._time("created_at"))),
            ("Linked Workspaces", self.workspace_names()),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows(), heading=("Field", "Value"))

    def __repr__(self) -> str:
        return text_fields("Connection", self._rows())


class ConnectionList(ObjectList[Connection]):
    columns = ("name", "connection type", "details", "created at", "linked workspaces")
    empty = "(no connections)"

    def _row(self, item: Connection) -> Sequence[Any]:
        return (item.name(), item.connection_type(), MASK, self._date(item._time("created_at")), item.workspace_names())


def create(client: Client, name: str, connection_type: str, details: Mapping[str, Any] | None) -> Connection:
    """Keep a new connection.

    Raises:
        TypeError, ValueError: the details hold something that JSON does not know.
        RequestRefused: the details are no dict, or the name is taken, or the platform refuses it and says why.
    """
    if details is not None and not isinstance(details, Mapping):
        raise RequestRefused(
            400,
            error=f"The details of connection '{name}' are of type {type(details).__name__}. "
            'Pass a dict, such as {"url": "https://example.org/rows.json"}.',
            prefix="Failed to create connection:",
        )
    _check_json(name, details)
    try:
        request = {"name": name, "type": connection_type, "details": details}
        answer = client._transport.post(f"{_ROOT}/create", request)
    except WallarooAPIError as error:
        taken = "This connection already exists.  Please choose a different connection name."
        raise RequestRefused.because(taken if error.code == 409 else "Failed to create connection:", error) from None
    return Connection(client, {"id": answer["id"], "name": name, "type": connection_type})


def get(client: Client, name: str) -> Connection:
    """Raises EntityNotFoundError or RequestRefused, both starting with 'Failed to get connection'."""
    connection = Connection(client, {"name": name})
    try:
        connection.rehydrate()
    except WallarooAPIError as error:
        if error.code == 404:
            raise EntityNotFoundError(
                "Connection", {"name": name}, f"Failed to get connection '{name}': {error.error}"
            ) from None
        raise RequestRefused.because("Failed to get connection:", error) from None
    return connection


def list_all(
    client: Client,
    workspace_id: int | None = None,
    *,
    limit: int | None = None,
    after: str | Connection | None = None,
) -> ConnectionList:
    """Every connection the caller may see in order of creation, or a workspace's in order of linking.

    At most `limit` of them, from behind `after`.
    """
    after_id = after.id() if isinstance(after, Connection) else after
    wanted = {"workspace_id": workspace_id, "limit": limit, "after": after_id}
    request = {name: value for name, value in wanted.items() if value is not None}
    records = client._transport.post(f"{_ROOT}/list", request)["connections"]
    return ConnectionList(
        client, (Connection(client, {k: v for k, v in record.items() if k != "details"}) for record in records)
    )


def _check_json(name: str, details: object) -> None:
    try:
        json.dumps(details, allow_nan=False)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        what = f"{error}" if kind is TypeError else "it holds itself, or a number that is none (NaN, infinity)"
        raise kind(
            f"The details of connection '{name}' are no JSON: {what}. "
            "Use texts, numbers, True, False, None, and lists and dicts of these."
        ) from None


def link(client: Client, connection_id: str, workspace_id: int) -> None:
    request = {"workspace_id": workspace_id, "connection_id": connection_id}
    _refusable(client, "add_to_workspace", request, "Failed to add connection to workspace.")


def unlink(client: Client, connection_id: str, workspace_id: int) -> None:
    request = {"workspace_id": workspace_id, "connection_id": connection_id}
    _refusable(client, "remove_from_workspace", request, "Failed to remove connection from workspace.")


def _refusable(client: Client, call: str, request: Mapping[str, Any], first_words: str) -> None:
    try:
        client._transport.post(f"{_ROOT}/{call}", request)
    except WallarooAPIError as error:
        raise RequestRefused.because(first_words, error) from None
