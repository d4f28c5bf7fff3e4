"""The audit: who did what worth answering for."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from bettong.domain.identity import AuditEvent
from bettong.storage.tables import audit_events

if TYPE_CHECKING:
    from bettong.storage.database import Database

_COLUMNS = [audit_events.c[field.name] for field in fields(AuditEvent)]


class SqlAuditStore:
    """Keeps audit events; there is no way to change or remove one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, event: AuditEvent) -> None:
        with self._database.write() as tx:
            tx.execute(insert(audit_events).values(asdict(event)))

    def of_subject(self, subject_kind: str, subject_id: str, *, limit: int | None = None) -> list[AuditEvent]:
        query = (
            select(*_COLUMNS)
            .where(audit_events.c.subject_kind == subject_kind, audit_events.c.subject_id == subject_id)
            .order_by(audit_events.c.seq.desc())
            .limit(limit)
        )
        with self._database.read() as tx:
            return [AuditEvent(*row) for row in tx.execute(query)]
