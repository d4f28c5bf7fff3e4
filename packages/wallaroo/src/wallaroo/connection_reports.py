"""What a connection tells of itself: whether it works, what is in it, its versions, where it is used, who used it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo._html import ObjectList, fields, grid, text_fields, text_grid
from wallaroo._times import parse

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from wallaroo._html import Row
    from wallaroo.client import Client


class Stage:
    """One layer of a test: `details`, `secret`, `dns`, `tcp`, `tls`, `login`, `permission` or `sample`.

    Attributes:
        ok: None when the layer was not reached, or does not apply.
        took_ms: milliseconds.
        said, next_step: what was found, and what to do next. Where a layer holds and says what to do all the same, it
            found something worth a look, such as a field that its driver does not know.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.name = str(record["stage"])
        self.ok: bool | None = record["ok"]
        self.took_ms = float(record["took_ms"])
        self.said, self.next_step = str(record["said"]), str(record["next_step"])

    @property
    def state(self) -> str:
        return {True: "ok", False: "failed", None: "-"}[self.ok]

    def __repr__(self) -> str:
        return f"Stage({self.name!r}, {self.state}, {self.said!r})"


class TestReport:
    """Every layer of a connection down to the first that failed. True when none did."""

    __test__ = False  # pytest: not a test class

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.ok = bool(record["ok"])
        self.stages = [Stage(stage) for stage in record["stages"]]

    def __bool__(self) -> bool:
        return self.ok

    @property
    def failed(self) -> Stage | None:
        """The layer that failed."""
        return next((stage for stage in self.stages if stage.ok is False), None)

    def _summary(self) -> str:
        failed = self.failed
        if failed is None:
            return "It works."
        return f"It fails at {failed.name}: {failed.said} {failed.next_step}".strip()

    def _repr_html_(self) -> str:
        rows = [(s.name, s.state, f"{s.took_ms:.1f}", s.said, s.next_step) for s in self.stages]
        return grid(("layer", "state", "ms", "found", "next step"), rows)

    def __repr__(self) -> str:
        table = text_grid(("layer", "state", "ms"), [(s.name, s.state, f"{s.took_ms:.1f}") for s in self.stages])
        remarks = [f"Mind {s.name}: {s.said}. {s.next_step}" for s in self.stages if s.ok and s.next_step]
        return "\n".join([table, *remarks, self._summary()])


class Rotation:
    """What came of a rotation: `switched` when the new details work; else the old ones are in force as before."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.switched = bool(record["switched"])
        self.report = TestReport(record["report"])
        self.version = int(record["connection"]["version"])

    def __bool__(self) -> bool:
        return self.switched

    def _says(self) -> str:
        if self.switched:
            return f"Switched to version {self.version}."
        return f"Not switched: version {self.version} stays in force."

    def _repr_html_(self) -> str:
        return f"<p>{self._says()}</p>{self.report._repr_html_()}"

    def __repr__(self) -> str:
        return f"{self._says()}\n{self.report!r}"


class Entry:
    """One thing in a data source; `kind` is schema, table, view, file, folder, topic, …"""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.name, self.kind, self.detail = str(record["name"]), str(record["kind"]), str(record["detail"])

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.kind!r})"


class EntryList(ObjectList[Entry]):
    columns = ("name", "kind", "detail")
    empty = "(nothing there)"

    def _row(self, item: Entry) -> Sequence[Any]:
        return (item.name, item.kind, item.detail)


class ConnectionVersion:
    """One version of a connection's details. What changed is told by names of fields.

    Attributes:
        readable: False when the platform lacks the key that it is sealed under.
        added, removed, changed: against the version before; None when that one is gone.
        read_as: how fields of an earlier form are read, in words, where its driver has changed since.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.version = int(record["version"])
        self.created_by = str(record["created_by"])
        self.created_at: datetime | None = parse(record["created_at"])
        self.current, self.readable = bool(record["current"]), bool(record["readable"])
        changes = record["changes"] or {}
        self.added: list[str] | None = changes.get("added")
        self.removed: list[str] | None = changes.get("removed")
        self.changed: list[str] | None = changes.get("changed")
        self.read_as: list[str] = list(record.get("read_as", ()))

    def __repr__(self) -> str:
        return f"ConnectionVersion({self.version})"


class ConnectionVersionList(ObjectList[ConnectionVersion]):
    columns = ("version", "in force", "created at", "changed", "added", "removed", "earlier form")
    empty = "(no versions)"

    def _row(self, item: ConnectionVersion) -> Sequence[Any]:
        names = (", ".join(found or ()) for found in (item.changed, item.added, item.removed))
        state = "yes" if item.current else "" if item.readable else "unreadable"
        return (item.version, state, self._date(item.created_at), *names, "; ".join(item.read_as))


class AuditEntry:
    """One thing that somebody did with a connection; `detail` says what for."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.at: datetime | None = parse(record["at"])
        self.email, self.origin = str(record["email"]), str(record["origin"])
        self.action, self.detail = str(record["action"]), str(record["detail"])

    def __repr__(self) -> str:
        return f"AuditEntry({self.action!r}, {self.email!r})"


class AuditList(ObjectList[AuditEntry]):
    columns = ("at", "who", "from", "did", "what for")
    empty = "(nothing was done)"

    def _row(self, item: AuditEntry) -> Sequence[Any]:
        return (self._date(item.at), item.email, item.origin, item.action.removeprefix("connection."), item.detail)


class UsedBy:
    """Where a connection is used.

    Attributes:
        workspace_names: the workspaces it is linked to, of those that you may see; `hidden_workspaces` counts others.
        jobs: records of the jobs that have not ended; `hidden_jobs` counts those you may not see.
        last_used_at: None when nobody has used it yet.
    """

    def __init__(self, client: Client, record: Mapping[str, Any]) -> None:
        self._client = client
        self.workspace_names = [str(name) for name in record["workspace_names"]]
        self.hidden_workspaces = int(record["hidden_workspaces"])
        self.jobs: list[dict[str, Any]] = list(record["jobs"])
        self.hidden_jobs = int(record["hidden_jobs"])
        self.last_used_at: datetime | None = parse(record["last_used_at"])

    def _rows(self) -> Sequence[Row]:
        jobs = [f"{job['kind']} {job['id']} ({job['state']})" for job in self.jobs]
        used = self.last_used_at.strftime(self._client.time_format) if self.last_used_at else "never"
        return [
            ("Workspaces", _with_hidden(self.workspace_names, self.hidden_workspaces)),
            ("Unended jobs", _with_hidden(jobs, self.hidden_jobs)),
            ("Last used", used),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows())

    def __repr__(self) -> str:
        return text_fields("Used by", self._rows())


class DriverRecord:
    """What connections of a type can do on this platform.

    Attributes:
        types: its type names; case does not matter.
        details_schema: a JSON schema of the details.
        installed: whether its libraries are there; if not, `extra` says which to install: `bettong[extra]`.
    """

    def __init__(self, record: Mapping[str, Any]) -> None:
        self.types = [str(name) for name in record["types"]]
        self.title = str(record["title"])
        self.capabilities = [str(name) for name in record["capabilities"]]
        self.details_schema: dict[str, Any] = dict(record["details_schema"])
        self.secret_fields = [str(name) for name in record["secret_fields"]]
        self.extra, self.installed = str(record["extra"]), bool(record["installed"])
        self.rebinding_safe = bool(record["rebinding_safe"])

    def __repr__(self) -> str:
        return f"DriverRecord({self.types[0]!r})"


class DriverList(ObjectList[DriverRecord]):
    columns = ("types", "what", "can", "ready")
    empty = "(no drivers)"

    def _row(self, item: DriverRecord) -> Sequence[Any]:
        ready = "yes" if item.installed else f'pip install "bettong[{item.extra}]"'
        return (", ".join(item.types), item.title, ", ".join(item.capabilities), ready)


def drivers(client: Client) -> DriverList:
    records = client._transport.post("/v1/api/connections/drivers", {})["drivers"]
    return DriverList(client, (DriverRecord(record) for record in records))


def _with_hidden(shown: Iterable[str], hidden: int) -> str:
    names = [*shown, *([f"{hidden} that you may not see"] if hidden else [])]
    return ", ".join(names) or "none"
