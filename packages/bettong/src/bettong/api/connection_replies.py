"""What callers get who use or change a connection, and how it is built from the services' values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.api.answers import iso
from bettong.api.replies import ConnectionRecord, Reply
from bettong.api.wire import connection_record

if TYPE_CHECKING:
    from bettong.domain.drivers import DriverInfo, Entry, TestReport
    from bettong.domain.identity import AuditEvent
    from bettong.domain.jobs import Job
    from bettong.services.connection_versions import Exported, Rotation, UsedBy, Version

    Record = dict[str, Any]


class StageRecord(Reply):
    stage: str
    ok: bool | None
    took_ms: float
    said: str
    next_step: str


class Report(Reply):
    ok: bool
    stages: list[StageRecord]


class EntryRecord(Reply):
    name: str
    kind: str
    detail: str


class Entries(Reply):
    entries: list[EntryRecord]


class Written(Reply):
    rows: int


class DriverRecord(Reply):
    types: list[str]
    title: str
    capabilities: list[str]
    details_schema: dict[str, Any]
    secret_fields: list[str]
    extra: str
    installed: bool
    rebinding_safe: bool


class Drivers(Reply):
    drivers: list[DriverRecord]


class Rotated(Reply):
    switched: bool
    report: Report
    connection: ConnectionRecord


class ChangesRecord(Reply):
    added: list[str]
    removed: list[str]
    changed: list[str]


class VersionRecord(Reply):
    version: int
    created_by: str
    created_at: str
    current: bool
    readable: bool
    changes: ChangesRecord | None
    read_as: list[str]


class Versions(Reply):
    versions: list[VersionRecord]


class MaskedDetails(Reply):
    details: dict[str, Any]


class DeclarationRecord(Reply):
    name: str
    type: str
    use_only: bool
    workspace_names: list[str]
    details: dict[str, Any]


class LeftOut(Reply):
    name: str
    why: str


class Exports(Reply):
    connections: list[DeclarationRecord]
    left_out: list[LeftOut]


class Purged(Reply):
    purged: int


class JobUse(Reply):
    id: str
    kind: str
    state: str
    workspace_id: int
    created_at: str


class Uses(Reply):
    workspace_names: list[str]
    hidden_workspaces: int
    jobs: list[JobUse]
    hidden_jobs: int
    last_used_at: str | None


class AuditRecord(Reply):
    at: str
    email: str
    origin: str
    action: str
    detail: str


class AuditRecords(Reply):
    events: list[AuditRecord]


def report(tested: TestReport) -> Record:
    stages = [
        {"stage": s.stage.value, "ok": s.ok, "took_ms": s.took_ms, "said": s.said, "next_step": s.next_step}
        for s in tested.stages
    ]
    return {"ok": tested.ok, "stages": stages}


def entries(found: list[Entry]) -> Record:
    return {"entries": [{"name": e.name, "kind": e.kind, "detail": e.detail} for e in found]}


def drivers(known: list[DriverInfo]) -> Record:
    return {
        "drivers": [
            {
                "types": list(d.types),
                "title": d.title,
                "capabilities": sorted(c.value for c in d.capabilities),
                "details_schema": dict(d.details_schema),
                "secret_fields": list(d.secret_fields),
                "extra": d.extra,
                "installed": d.installed,
                "rebinding_safe": d.rebinding_safe,
            }
            for d in known
        ]
    }


def rotated(rotation: Rotation) -> Record:
    return {
        "switched": rotation.switched,
        "report": report(rotation.report),
        "connection": connection_record(rotation.connection),
    }


def versions(kept: list[Version]) -> Record:
    return {
        "versions": [
            {
                "version": v.version,
                "created_by": v.created_by,
                "created_at": iso(v.created_at),
                "current": v.current,
                "readable": v.readable,
                "changes": None
                if v.changes is None
                else {
                    "added": list(v.changes.added),
                    "removed": list(v.changes.removed),
                    "changed": list(v.changes.changed),
                },
                "read_as": list(v.read_as),
            }
            for v in kept
        ]
    }


def exports(exported: Exported) -> Record:
    return {
        "connections": [
            {
                "name": d.name,
                "type": d.type,
                "use_only": d.use_only,
                "workspace_names": list(d.workspaces),
                "details": dict(d.details),
            }
            for d in exported.declared
        ],
        "left_out": [{"name": name, "why": why} for name, why in exported.left_out.items()],
    }


def uses(used: UsedBy) -> Record:
    last = used.connection.last_used_at
    return {
        "workspace_names": list(used.connection.workspace_names),
        "hidden_workspaces": used.hidden_workspaces,
        "jobs": [_job(job) for job in used.jobs],
        "hidden_jobs": used.hidden_jobs,
        "last_used_at": None if last is None else iso(last),
    }


def audit(events: list[AuditEvent]) -> Record:
    return {
        "events": [
            {"at": iso(e.at), "email": e.email, "origin": e.origin, "action": e.action, "detail": e.detail}
            for e in events
        ]
    }


def _job(job: Job) -> Record:
    return {
        "id": job.id,
        "kind": job.kind.value,
        "state": job.state.value,
        "workspace_id": job.workspace_id,
        "created_at": iso(job.created_at),
    }
