"""Jobs: one server works on one at a time, whichever servers share the database, and none is lost with its server."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, Select, and_, case, delete, exists, insert, or_, select, update

from bettong.domain.jobs import Job, JobKind, JobLine, JobState
from bettong.errors import Conflict, NotFound
from bettong.storage.rows import in_batches, require, storable, utc_now
from bettong.storage.tables import job_connections, job_log_lines, jobs
from bettong.storage.workspaces import unknown_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Update
    from sqlalchemy import Connection as Transaction

    from bettong.storage.database import Database
    from bettong.storage.rows import Clock

_SHOWN = [column for column in jobs.c if column.name not in ("seq", "server", "leased_until")]
_IN_ORDER_OF_END = select(jobs.c.id).order_by(jobs.c.ended_at, jobs.c.seq)
_UNENDED = [state.value for state in JobState if not state.ended]


class SqlJobStore:
    """Keeps jobs. `attempts` fences: a server that lost a job to another one changes nothing of it any more."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add(self, job: Job) -> None:
        taken = Conflict(f"A job '{job.id}' exists already.", "Give each job an id of its own.")
        with self._database.write(taken=taken, unknown=unknown_workspace(job.workspace_id)) as tx:
            tx.execute(
                insert(jobs).values(
                    id=job.id,
                    kind=job.kind.value,
                    workspace_id=job.workspace_id,
                    created_by=job.created_by,
                    request=dict(job.request),
                    state=job.state.value,
                    created_at=job.created_at,
                    started_at=job.started_at,
                    ended_at=job.ended_at,
                    attempts=job.attempts,
                    cancel_asked=job.cancel_asked,
                    progress=_document(job.progress),
                    position=job.position,
                    result=_document(job.result),
                    error=storable(job.error),
                )
            )
            if touched := [{"job_id": job.id, "connection_id": c} for c in dict.fromkeys(job.connection_ids)]:
                tx.execute(insert(job_connections), touched)

    def get(self, job_id: str) -> Job:
        with self._database.read() as tx:
            return _one(tx, job_id)

    def all(
        self,
        workspace_ids: Iterable[int] | None,
        *,
        kinds: Iterable[JobKind] | None = None,
        unended: bool = False,
        connection_id: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Job]:
        query: Select[*tuple[Any, ...]] = select(*_SHOWN).order_by(jobs.c.seq.desc()).limit(limit)
        if workspace_ids is not None:
            query = query.where(jobs.c.workspace_id.in_(list(workspace_ids)))
        # Without what follows: a job that has ended meanwhile is still where a list of unended ones goes on.
        passed = query.with_only_columns(jobs.c.seq).where(jobs.c.id == after)
        if kinds is not None:
            query = query.where(jobs.c.kind.in_([kind.value for kind in kinds]))
        if unended:
            query = query.where(jobs.c.state.in_(_UNENDED))
        if connection_id is not None:
            touches = job_connections.c.job_id == jobs.c.id
            query = query.where(exists().where(touches, job_connections.c.connection_id == connection_id))
        with self._database.read() as tx:
            if after is not None:
                if (place := tx.execute(passed).scalar()) is None:
                    raise NotFound("The list has no job with the id to go on after.", "List from the start again.")
                query = query.where(jobs.c.seq < place)
            return _jobs(tx, tx.execute(query).all())

    def claim(
        self, server: str, *, lease_s: float, kinds: Iterable[JobKind] | None = None, besides: Iterable[str] = ()
    ) -> Job | None:
        now = self._now()
        free = or_(
            jobs.c.state == JobState.PENDING.value,
            and_(
                jobs.c.state == JobState.RUNNING.value,
                or_(jobs.c.leased_until.is_(None), jobs.c.leased_until <= now),
            ),
        )
        wanted = free if kinds is None else and_(free, jobs.c.kind.in_([kind.value for kind in kinds]))
        if own := list(besides):
            wanted = and_(wanted, jobs.c.id.not_in(own))
        oldest = select(jobs.c.id).where(wanted).order_by(jobs.c.seq).limit(1).with_for_update(skip_locked=True)
        taking = (
            update(jobs)
            .where(jobs.c.id == oldest.scalar_subquery(), free)
            .values(
                state=JobState.RUNNING.value,
                attempts=jobs.c.attempts + 1,
                started_at=case((jobs.c.started_at.is_(None), now), else_=jobs.c.started_at),
                server=server,
                leased_until=now + timedelta(seconds=lease_s),
            )
        )
        with self._database.write() as tx:
            return _changed(tx, taking)

    def renew(self, job_id: str, attempt: int, *, lease_s: float) -> Job | None:
        until = self._now() + timedelta(seconds=lease_s)
        with self._database.write() as tx:
            return _changed(tx, update(jobs).where(_held(job_id, attempt)).values(leased_until=until))

    def release(self, server: str) -> int:
        held = and_(jobs.c.server == server, jobs.c.state == JobState.RUNNING.value)
        with self._database.write() as tx:
            return int(tx.execute(update(jobs).where(held).values(leased_until=None, server=None)).rowcount)

    def report(
        self, job_id: str, attempt: int, *, progress: Mapping[str, Any] | None = None, position: str | None = None
    ) -> Job | None:
        known: dict[str, Any] = {"progress": _document(progress), "position": position}
        values = {name: value for name, value in known.items() if value is not None}
        changing = update(jobs).where(_held(job_id, attempt)).values(values or {"attempts": attempt})
        with self._database.write() as tx:
            return _changed(tx, changing)

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: str = "",
    ) -> Job | None:
        if not state.ended:
            raise ValueError(f"A job does not finish as {state.value}.")
        with self._database.write() as tx:
            return _changed(
                tx,
                update(jobs)
                .where(_held(job_id, attempt))
                .values(
                    state=state.value,
                    ended_at=self._now(),
                    result=_document(result),
                    error=storable(error),
                    server=None,
                    leased_until=None,
                ),
            )

    def ask_cancel(self, job_id: str) -> Job:
        pending = jobs.c.state == JobState.PENDING.value
        with self._database.write() as tx:
            tx.execute(
                update(jobs)
                .where(jobs.c.id == job_id, jobs.c.state.in_(_UNENDED))
                .values(
                    cancel_asked=True,
                    state=case((pending, JobState.CANCELLED.value), else_=jobs.c.state),
                    ended_at=case((pending, self._now()), else_=jobs.c.ended_at),
                )
            )
            return _one(tx, job_id)

    def append_log(self, job_id: str, lines: Sequence[str]) -> None:
        now = self._now()
        with self._database.write() as tx:
            require(tx, jobs.c.id == job_id, _unknown(job_id))
            if lines:
                tx.execute(
                    insert(job_log_lines), [{"job_id": job_id, "at": now, "line": storable(line)} for line in lines]
                )

    def log(self, job_id: str, *, after: int = 0, limit: int | None = None) -> list[JobLine]:
        of_job = select(job_log_lines.c.seq, job_log_lines.c.at, job_log_lines.c.line).where(
            job_log_lines.c.job_id == job_id, job_log_lines.c.seq > after
        )
        with self._database.read() as tx:
            require(tx, jobs.c.id == job_id, _unknown(job_id))
            newest_first = tx.execute(of_job.order_by(job_log_lines.c.seq.desc()).limit(limit)).all()
        return [JobLine(*row) for row in reversed(newest_first)]

    def ended_before(self, moment: datetime) -> list[str]:
        with self._database.read() as tx:
            return list(tx.execute(_IN_ORDER_OF_END.where(jobs.c.ended_at < moment)).scalars())

    def forget(self, job_id: str) -> None:
        with self._database.write() as tx:  # its log and its uses of connections go with it
            tx.execute(delete(jobs).where(jobs.c.id == job_id, jobs.c.state.not_in(_UNENDED)))


def _held(job_id: str, attempt: int) -> ColumnElement[bool]:
    """The job, as long as it runs and nobody has claimed it after that attempt."""
    return and_(jobs.c.id == job_id, jobs.c.attempts == attempt, jobs.c.state == JobState.RUNNING.value)


def _changed(tx: Transaction, changing: Update) -> Job | None:
    row = tx.execute(changing.returning(*_SHOWN)).first()
    return None if row is None else _jobs(tx, [row])[0]


def _one(tx: Transaction, job_id: str) -> Job:
    row = tx.execute(select(*_SHOWN).where(jobs.c.id == job_id)).first()
    if row is None:
        raise _unknown(job_id)
    return _jobs(tx, [row])[0]


def _jobs(tx: Transaction, rows: Sequence[Row[*tuple[Any, ...]]]) -> list[Job]:
    touched: dict[str, list[str]] = {}
    for ids in in_batches(row.id for row in rows):
        of_jobs = select(job_connections).where(job_connections.c.job_id.in_(ids)).order_by(job_connections.c.seq)
        for link in tx.execute(of_jobs):
            touched.setdefault(link.job_id, []).append(link.connection_id)
    return [
        Job(
            id=row.id,
            kind=JobKind(row.kind),
            workspace_id=row.workspace_id,
            created_by=row.created_by,
            request=row.request,
            state=JobState(row.state),
            created_at=row.created_at,
            started_at=row.started_at,
            ended_at=row.ended_at,
            attempts=row.attempts,
            cancel_asked=row.cancel_asked,
            progress=row.progress,
            position=row.position,
            result=row.result,
            error=row.error,
            connection_ids=tuple(touched.get(row.id, ())),
        )
        for row in rows
    ]


def _document(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if value is None else dict(value)


def _unknown(job_id: str) -> NotFound:
    return NotFound(f"No job has the id '{job_id}'.", "List the jobs to see which there are.")
