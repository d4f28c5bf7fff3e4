"""Workspaces: who works together on which models and pipelines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import _pipeline_lookup, _times, connection, model, user
from wallaroo._html import ObjectList
from wallaroo._names import check_dns_name
from wallaroo.object import EntityNotFoundError, Object, RequestRefused, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wallaroo.client import Client
    from wallaroo.connection import Connection, ConnectionList
    from wallaroo.model import Model
    from wallaroo.pipeline import Pipeline

_ROOT = "/v1/api/workspaces"


class Workspace(Object):
    def id(self) -> int:
        return int(self._get("id"))

    def name(self) -> str:
        return str(self._get("name"))

    def archived(self) -> bool:
        return bool(self._get("archived"))

    def created_by(self) -> str:
        return str(self._get("created_by"))

    def created_at(self) -> str:
        return str(self._get("created_at"))

    def models(self) -> list[Model]:
        return model.list_all(self._client, {"workspace_id": self.id(), "workspace_name": None})

    def pipelines(self) -> list[Pipeline]:
        return _pipeline_lookup.list_all(self._client, {"workspace_id": self.id(), "workspace_name": None})

    def users(self) -> list[str]:
        """E-mail addresses of the members."""
        answer = self._client._transport.post(f"{_ROOT}/list_users", {"workspace_id": self.id()})
        return [member.get("email") or user.REMOVED for member in answer["users"]]

    def add_user(self, email: str) -> Workspace:
        """Raises EntityNotFoundError for an unknown address, RequestRefused for a member."""
        return self._add(email, "COLLABORATOR")

    def add_owner(self, email: str) -> Workspace:
        """Raises EntityNotFoundError for an unknown address, RequestRefused for a member."""
        return self._add(email, "OWNER")

    def remove_user(self, email: str) -> Workspace:
        """Raises RequestRefused for the last member, and for the owner of a default workspace."""
        self._change_members("remove_user", {"workspace_id": self.id(), "email": email})
        return self

    def list_connections(self, limit: int | None = None, after: str | Connection | None = None) -> ConnectionList:
        """The linked connections, the newest link last; `limit` and `after` as in `Client.list_connections`."""
        return connection.list_all(self._client, self.id(), limit=limit, after=after)

    def add_connection(self, name: str) -> None:
        connection.link(self._client, connection.get(self._client, name).id(), self.id())

    def remove_connection(self, name: str) -> None:
        """Unlink; the connection itself stays."""
        connection.unlink(self._client, connection.get(self._client, name).id(), self.id())

    def _add(self, email: str, user_type: str) -> Workspace:
        request = {"workspace_id": self.id(), "email": email, "user_type": user_type}
        self._change_members("add_user", request)
        return self

    def _change_members(self, call: str, request: Mapping[str, Any]) -> None:
        try:
            self._client._transport.post(f"{_ROOT}/{call}", request)
        except WallarooAPIError as error:
            if error.code == 404:
                params = {"email": request["email"]}
                raise EntityNotFoundError("User", params, f"User not found: {params}. {error.error}") from None
            raise RequestRefused.because("", error) from None

    def _fetch(self) -> Mapping[str, Any]:
        record: Mapping[str, Any] = self._client._transport.post(f"{_ROOT}/get", {"id": self._record["id"]})
        return record

    def __repr__(self) -> str:
        record = self._fetch()
        shown = {
            "name": self.name(),
            "id": self.id(),
            "archived": self.archived(),
            "created_by": self.created_by(),
            "created_at": self.created_at(),
            "models": [_with_times(entry, ("last_update_time", "created_at")) for entry in record["model_entries"]],
            "pipelines": [
                {**_with_times(entry, ("create_time",)), "definition": "[]"} for entry in record["pipeline_entries"]
            ],
        }
        return str(shown)


class WorkspaceList(ObjectList[Workspace]):
    columns = ("Name", "Created At", "Users", "Models", "Pipelines")
    empty = "(no workspaces)"

    def _row(self, item: Workspace) -> Sequence[Any]:
        record = item._record
        return (
            item.name(),
            self._date(item._time("created_at")),
            record["users"],
            len(record["models"]),
            len(record["pipelines"]),
        )


def list_all(client: Client) -> WorkspaceList:
    records = client._transport.post(f"{_ROOT}/list", {})["workspaces"]
    return WorkspaceList(client, (Workspace(client, record) for record in records))


def create(client: Client, name: str) -> Workspace:
    """Raises InvalidNameError before anything is sent, RequestRefused for whatever the server refuses."""
    check_dns_name(name)
    try:
        answer = client._transport.post(f"{_ROOT}/create", {"workspace_name": name})
    except WallarooAPIError as error:
        raise RequestRefused.because("Failed to create workspace.", error) from None
    return Workspace(client, {"id": answer["workspace_id"], "name": name})


def get(client: Client, name: str, create_if_not_exist: bool) -> Workspace:
    """The visible workspace of exactly this name.

    Raises:
        EntityNotFoundError: there is none and it was not to be created.
    """
    for workspace in list_all(client):
        if workspace.name() == name:
            return workspace
    if create_if_not_exist:
        return create(client, name)
    raise EntityNotFoundError(
        "Workspace",
        {"name": name},
        f"Error: Workspace with name {name} does not exist. "
        "If you would like to create one, pass in create_if_not_exist=True.",
    )


def default(client: Client) -> Workspace:
    return Workspace(client, client._transport.post(f"{_ROOT}/default", {}))


def scope(workspace_id: int | None, workspace_name: str | None) -> dict[str, Any]:
    """The two keys that limit a list to a workspace. Raises TypeError for other types."""
    if workspace_id is not None and (isinstance(workspace_id, bool) or not isinstance(workspace_id, int)):
        raise TypeError("Workspace ID must be an integer.")
    if workspace_name is not None and not isinstance(workspace_name, str):
        raise TypeError("Workspace name must be a string.")
    return {"workspace_id": workspace_id, "workspace_name": workspace_name}


def _with_times(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {**entry, **{name: _times.parse(entry.get(name)) for name in names}}
