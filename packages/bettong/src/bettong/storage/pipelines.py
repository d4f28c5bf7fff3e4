"""Pipelines and their versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Row, insert, select, update

from bettong.domain.pipelines import Pipeline, PipelineVersion
from bettong.errors import Conflict, NotFound
from bettong.storage.rows import in_batches, utc_now
from bettong.storage.tables import pipeline_versions, pipelines
from bettong.storage.workspaces import unknown_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bettong.storage.database import Database
    from bettong.storage.rows import Clock


class SqlPipelineStore:
    """Keeps pipelines and the documents of their versions, as they were sent."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add(self, workspace_id: int, name: str, owner_id: str) -> Pipeline:
        now = self._now()
        taken = Conflict(
            f"A pipeline '{name}' exists already in this workspace.", "Add a version to it, or choose another name."
        )
        with self._database.write(taken=taken, unknown=unknown_workspace(workspace_id)) as tx:
            row = tx.execute(
                insert(pipelines)
                .values(workspace_id=workspace_id, name=name, owner_id=owner_id, created_at=now, updated_at=now)
                .returning(*pipelines.c)
            ).one()
        return _pipeline(row)

    def get(self, pipeline_id: int) -> Pipeline:
        with self._database.read() as tx:
            row = tx.execute(select(pipelines).where(pipelines.c.id == pipeline_id)).first()
        if row is None:
            raise unknown_pipeline(pipeline_id)
        return _pipeline(row)

    def by_name(self, workspace_id: int, name: str) -> Pipeline | None:
        with self._database.read() as tx:
            row = tx.execute(
                select(pipelines).where(pipelines.c.workspace_id == workspace_id, pipelines.c.name == name)
            ).first()
        return None if row is None else _pipeline(row)

    def all(self, workspace_ids: Iterable[int] | None) -> list[Pipeline]:
        query = select(pipelines).order_by(pipelines.c.id)
        with self._database.read() as tx:
            if workspace_ids is None:
                return [_pipeline(row) for row in tx.execute(query)]
            found = [
                _pipeline(row)
                for ids in in_batches(workspace_ids)
                for row in tx.execute(query.where(pipelines.c.workspace_id.in_(ids)))
            ]
        return sorted(found, key=lambda pipeline: pipeline.id)

    def add_version(self, pipeline_id: int, definition: dict[str, Any], created_by: str) -> PipelineVersion:
        now = self._now()
        with self._database.write() as tx:
            moved = tx.execute(update(pipelines).where(pipelines.c.id == pipeline_id).values(updated_at=now))
            if moved.rowcount == 0:
                raise unknown_pipeline(pipeline_id)
            row = tx.execute(
                insert(pipeline_versions)
                .values(
                    pipeline_id=pipeline_id,
                    version=str(uuid4()),
                    definition=definition,
                    created_by=created_by,
                    created_at=now,
                    updated_at=now,
                )
                .returning(*pipeline_versions.c)
            ).one()
        return _version(row)

    def version(self, version_id: int) -> PipelineVersion:
        with self._database.read() as tx:
            row = tx.execute(select(pipeline_versions).where(pipeline_versions.c.id == version_id)).first()
        if row is None:
            raise unknown_pipeline_version(version_id)
        return _version(row)

    def version_by_uuid(self, version: str) -> PipelineVersion | None:
        with self._database.read() as tx:
            row = tx.execute(select(pipeline_versions).where(pipeline_versions.c.version == version)).first()
        return None if row is None else _version(row)

    def versions(self, pipeline_ids: Iterable[int]) -> list[PipelineVersion]:
        with self._database.read() as tx:
            found = [
                _version(row)
                for ids in in_batches(pipeline_ids)
                for row in tx.execute(select(pipeline_versions).where(pipeline_versions.c.pipeline_id.in_(ids)))
            ]
        return sorted(found, key=lambda version: version.id, reverse=True)

    def touch(self, pipeline_id: int) -> None:
        with self._database.write() as tx:
            moved = tx.execute(update(pipelines).where(pipelines.c.id == pipeline_id).values(updated_at=self._now()))
        if moved.rowcount == 0:
            raise unknown_pipeline(pipeline_id)


def unknown_pipeline(pipeline_id: int) -> NotFound:
    return NotFound(f"No pipeline has the id {pipeline_id}.", "List the pipelines to see which there are.")


def unknown_pipeline_version(version_id: int) -> NotFound:
    return NotFound(
        f"No pipeline version has the id {version_id}.", "List the versions of the pipeline to see which there are."
    )


def _pipeline(row: Row[*tuple[Any, ...]]) -> Pipeline:
    return Pipeline(row.id, row.name, row.workspace_id, row.owner_id, row.created_at, row.updated_at)


def _version(row: Row[*tuple[Any, ...]]) -> PipelineVersion:
    return PipelineVersion(
        row.id, row.pipeline_id, row.version, row.definition, row.created_by, row.created_at, row.updated_at
    )
