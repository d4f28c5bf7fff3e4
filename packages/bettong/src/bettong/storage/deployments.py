"""What is wanted of each pipeline: deployed or not, which version, how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, select, update

from bettong.domain.deployments import Deployment
from bettong.errors import NotFound
from bettong.storage.database import upsert
from bettong.storage.pipelines import unknown_pipeline, unknown_pipeline_version
from bettong.storage.rows import in_batches, require, utc_now
from bettong.storage.tables import deployments, pipeline_versions, pipelines
from bettong.storage.workspaces import unknown_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bettong.storage.database import Database
    from bettong.storage.rows import Clock


class SqlDeploymentStore:
    """Keeps one row per pipeline that was ever deployed; its id never changes."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def get(self, deployment_id: int) -> Deployment:
        with self._database.read() as tx:
            row = tx.execute(select(deployments).where(deployments.c.id == deployment_id)).first()
        if row is None:
            raise _unknown(deployment_id)
        return _deployment(row)

    def of_pipeline(self, pipeline_id: int) -> Deployment | None:
        with self._database.read() as tx:
            row = tx.execute(select(deployments).where(deployments.c.pipeline_id == pipeline_id)).first()
        return None if row is None else _deployment(row)

    def all(self, workspace_ids: Iterable[int] | None) -> list[Deployment]:
        """Oldest first."""
        query = select(deployments).order_by(deployments.c.id)
        with self._database.read() as tx:
            if workspace_ids is None:
                return [_deployment(row) for row in tx.execute(query)]
            found = [
                _deployment(row)
                for ids in in_batches(workspace_ids)
                for row in tx.execute(query.where(deployments.c.workspace_id.in_(ids)))
            ]
        return sorted(found, key=lambda deployment: deployment.id)

    def wanted(self) -> list[Deployment]:
        query = select(deployments).where(deployments.c.deployed.is_(True)).order_by(deployments.c.id)
        with self._database.read() as tx:
            return [_deployment(row) for row in tx.execute(query)]

    def target(
        self, pipeline_id: int, name: str, workspace_id: int, version_id: int, engine_config: dict[str, Any]
    ) -> Deployment:
        """Ask for a pipeline version. Two callers at once get two generations; the larger one counts."""
        now = self._now()
        wanted = {
            "name": name,
            "workspace_id": workspace_id,
            "deployed": True,
            "pipeline_version_id": version_id,
            "engine_config": engine_config,
            "updated_at": now,
        }
        with self._database.write(unknown=unknown_workspace(workspace_id)) as tx:
            require(tx, pipelines.c.id == pipeline_id, unknown_pipeline(pipeline_id))
            require(tx, pipeline_versions.c.id == version_id, unknown_pipeline_version(version_id))
            row = tx.execute(
                upsert(tx, deployments)
                .values(pipeline_id=pipeline_id, generation=1, port=0, created_at=now, **wanted)
                .on_conflict_do_update(
                    index_elements=["pipeline_id"],
                    set_={**wanted, "generation": deployments.c.generation + 1},
                )
                .returning(*deployments.c)
            ).one()
        return _deployment(row)

    def reseal(self, before: Deployment, engine_config: dict[str, Any]) -> bool:
        """Replace the config of a deployment. False, and nothing done, when it is no longer as it was `before`."""
        row = deployments.c.id == before.id
        with self._database.write() as tx:
            kept = tx.execute(select(deployments.c.engine_config).where(row).with_for_update()).scalar()
            if kept != before.engine_config:
                return False
            tx.execute(update(deployments).where(row).values(engine_config=engine_config))
            return True

    def set_port(self, deployment_id: int, port: int) -> None:
        self._change(deployment_id, port=port)

    def set_undeployed(self, deployment_id: int) -> Deployment:
        return self._change(deployment_id, deployed=False, updated_at=self._now())

    def _change(self, deployment_id: int, **values: object) -> Deployment:
        with self._database.write() as tx:
            row = tx.execute(
                update(deployments).where(deployments.c.id == deployment_id).values(**values).returning(*deployments.c)
            ).first()
        if row is None:
            raise _unknown(deployment_id)
        return _deployment(row)


def _unknown(deployment_id: int) -> NotFound:
    return NotFound(f"No deployment has the id {deployment_id}.", "List the deployments to see which there are.")


def _deployment(row: Row[*tuple[Any, ...]]) -> Deployment:
    return Deployment(
        id=row.id,
        pipeline_id=row.pipeline_id,
        name=row.name,
        workspace_id=row.workspace_id,
        deployed=row.deployed,
        generation=row.generation,
        pipeline_version_id=row.pipeline_version_id,
        engine_config=row.engine_config,
        port=row.port,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
