"""Connections: how code reaches a data source. Their details are asked for, never shown."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo.connection_reports import (
    AuditEntry,
    AuditList,
    ConnectionVersion,
    ConnectionVersionList,
    Entry,
    EntryList,
    Rotation,
    TestReport,
    UsedBy,
)
from wallaroo.object import EntityNotFoundError, Object, RequestRefused, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from wallaroo._row_streams import Form
    from wallaroo.client import Client

MASK = "*****"
_ROOT = "/v1/api/connections"
_TAKEN = "This connection already exists.  Please choose a different connection name."
_BATCH_TIMEOUT_S = 60.0
_WRITE_TIMEOUT_S = 3600.0
_MARGIN_S = 15.0  # the platform's own limit comes first: it has words for it


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

    def version(self) -> int:
        """How often its details were changed, and one."""
        return int(self._get("version"))

    def use_only(self) -> bool:
        """Whether only its creator and administrators may reveal and link it."""
        return bool(self._get("use_only"))

    # Use: the platform reaches the data source; nobody needs to see the details for it.

    def test(self, details: Mapping[str, Any] | None = None) -> TestReport:
        """Whether it works, layer by layer: details, secret, DNS, TCP, TLS, login, permission, sample.

        Args:
            details: changes to try without keeping them; `"*****"` stands for what is stored.
        """
        request = {} if details is None else {"details": details}
        return TestReport(self._call("test", request, "test"))

    def browse(self, path: str = "") -> EntryList:
        """What lies under `path`: schemas, tables, folders, topics. "" is the top."""
        found = self._call("browse", {"path": path}, "browse")["entries"]
        return EntryList(self._client, (Entry(entry) for entry in found))

    def preview(self, table: str = "", rows: int = 10) -> pd.DataFrame:
        """The first rows of a table, at most 1,000. Without a name, of what the details name."""
        request = {"table": table, "rows": rows}
        found: pd.DataFrame = self._read("preview", request, "pandas", _BATCH_TIMEOUT_S, "preview")
        return found

    def read(
        self,
        query: str = "",
        as_: Form = "pandas",
        *,
        parameters: Sequence[Any] | None = None,
        limit: int | None = None,
        purpose: str = "",
        timeout_s: float = _BATCH_TIMEOUT_S,
    ) -> Any:
        """Rows: of a query, a table, a path, a topic, whatever the type reads; "" means what the details name.

        Args:
            as_: "pandas", "arrow", "polars", or "batches": an iterator of record batches, one in memory at a time.
            parameters: bound to the query's placeholders, never formatted in.
            limit: the most rows; all without it.
            purpose: what for, in your words; it goes into the audit.
            timeout_s: the most seconds between two batches.

        Raises:
            RequestRefused: the platform or the source refuses, and says why; also when rows break off in the middle.
            TypeError: `parameters` is no list.
        """
        request = {"query": query, "parameters": bound(parameters), "purpose": purpose, "timeout_s": timeout_s}
        if limit is not None:
            request["limit"] = limit
        return self._read("read", request, as_, timeout_s, "read")

    def write(
        self,
        table: str,
        data: Any,
        mode: str = "append",
        keys: Sequence[str] = (),
        *,
        purpose: str = "",
        timeout_s: float = _WRITE_TIMEOUT_S,
    ) -> int:
        """Write rows; how many were written. Where the source has transactions, all of them are, or none.

        Args:
            data: a pandas or polars DataFrame, an Arrow table, record batches as `read(as_="batches")` gives them,
                or a list of dicts. Batches are sent as they come.
            mode: "append", "replace" (what was in the table goes), or "upsert" (rows of the same `keys` are replaced).
            timeout_s: the most seconds for all of it.

        Raises:
            RequestRefused: the platform or the source refuses, and says why.
            TypeError, ValueError: `data` are no rows.
        """
        from wallaroo import _row_streams  # pyarrow takes longer to import than all else of this package

        if isinstance(keys, str):
            raise TypeError(f"keys is a text. Pass a list of column names: keys=[{keys!r}].")
        progress = _row_streams.Progress(self._client._screen, "Writing")
        params = [("id", self.id()), ("table", table), ("mode", mode), ("timeout_s", str(timeout_s))]
        params += [("purpose", purpose)] * bool(purpose) + [("keys", key) for key in keys]
        content = _row_streams.encoded(data, progress)
        try:
            answer = self._client._transport.post_stream(
                f"{_ROOT}/write", params, content, _row_streams.ARROW_STREAM, timeout_s=timeout_s + _MARGIN_S
            )
        except WallarooAPIError as error:
            raise self._refused("write", error) from None
        return int(answer["rows"])

    # Change: for its creator and administrators.

    def update(
        self, details: Mapping[str, Any] | None = None, *, remove: Iterable[str] = (), replace: bool = False
    ) -> Connection:
        """Change details: those given go over what is stored, as a new version. Nothing is tested; `rotate` does.

        Args:
            details: `"*****"` for a value keeps the one that is stored, at any depth.
            remove: names of fields to drop.
            replace: drop every field that `details` does not name.
        """
        request = {"details": dict(details or {}), "remove": list(remove), "replace": replace}
        return self._changed(self._call("update", request, "update"))

    def rotate(self, details: Mapping[str, Any]) -> Rotation:
        """Test changed details, and put them in force only if they work."""
        rotation = self._call("rotate", {"details": dict(details)}, "rotate")
        self._changed(rotation["connection"])
        return Rotation(rotation)

    def masked_details(self) -> dict[str, Any]:
        """The details with every value masked: a form to change and send to `update` or `rotate`."""
        masked: dict[str, Any] = self._call("masked", {}, "look at")["details"]
        return masked

    def versions(self) -> ConnectionVersionList:
        """The versions that are kept, newest first, with the names of what changed."""
        kept = self._call("versions", {}, "look at")["versions"]
        return ConnectionVersionList(self._client, (ConnectionVersion(version) for version in kept))

    def rollback(self, version: int) -> Connection:
        """Put the details of an older version in force again, as a new version."""
        return self._changed(self._call("rollback", {"version": version}, "roll back"))

    def purge(self) -> int:
        """Forget every version but the one in force; how many were forgotten."""
        return int(self._call("purge", {}, "purge")["purged"])

    def set_use_only(self, use_only: bool = True) -> Connection:
        """Let members use it and nothing else, or let them reveal and link it again."""
        return self._changed(self._call("set_use_only", {"use_only": use_only}, "change"))

    def used_by(self) -> UsedBy:
        """Workspaces, unended jobs and the last use: what to look at before it is changed or deleted."""
        return UsedBy(self._client, self._call("used_by", {}, "look at"))

    def audit(self, limit: int = 100) -> AuditList:
        """What was done with it and by whom, newest first. For its creator and administrators."""
        events = self._call("audit", {"limit": limit}, "look at")["events"]
        return AuditList(self._client, (AuditEntry(event) for event in events))

    def delete_connection(self, force: bool = False) -> None:
        """Remove the connection and every link to it. With unended jobs on it only by `force`: they fail then."""
        request = {"name": self.name(), "force": True} if force else {"name": self.name()}
        _refusable(self._client, "delete", request, "Failed to delete connection.")

    def add_connection_to_workspace(self, workspace_id: int) -> None:
        link(self._client, self.id(), workspace_id)

    def remove_connection_from_workspace(self, workspace_id: int) -> None:
        unlink(self._client, self.id(), workspace_id)

    def _call(self, call: str, request: Mapping[str, Any], verb: str) -> Any:
        try:
            return self._client._transport.post(f"{_ROOT}/{call}", {"id": self.id(), **request})
        except WallarooAPIError as error:
            raise self._refused(verb, error) from None

    def _read(self, call: str, request: Mapping[str, Any], as_: Form, timeout_s: float, verb: str) -> Any:
        from wallaroo import _row_streams

        progress = _row_streams.Progress(self._client._screen, "Reading")
        asked = {"id": self.id(), **request}
        try:
            rows = _row_streams.read(
                self._client._transport, f"{_ROOT}/{call}", asked, as_, timeout_s + _MARGIN_S, progress
            )
        except WallarooAPIError as error:
            raise self._refused(verb, error) from None
        return rows

    def _refused(self, verb: str, error: WallarooAPIError) -> RequestRefused:
        return RequestRefused.because(f"Failed to {verb} connection '{self.name()}':", error)

    def _changed(self, record: Mapping[str, Any]) -> Connection:
        self._record.pop("details", None)
        self._record.update(record)
        return self

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


def bound(parameters: object) -> list[Any]:
    """The values for a query's placeholders, in their order. Raises TypeError for what is no list of values."""
    if parameters is None:
        return []
    if isinstance(parameters, (str, bytes, Mapping)) or not isinstance(parameters, Iterable):
        told = f"parameters is of type {type(parameters).__name__}. Pass a list or a tuple, such as parameters=[11]."
        raise TypeError(told)
    return list(parameters)


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
        if error.code == 409:
            raise RequestRefused(409, error=_instead(name), response=error.response, prefix=_TAKEN) from None
        raise RequestRefused.because("Failed to create connection:", error) from None
    return Connection(client, {"id": answer["id"], "name": name, "type": connection_type})


def _instead(name: str) -> str:
    one = f"wl.get_connection({name!r})"
    return f"To change the one that there is: {one}.update({{…}}), or .rotate({{…}}), which tests it first."


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
