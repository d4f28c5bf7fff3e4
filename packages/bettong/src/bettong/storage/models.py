"""Models, their versions, upload logs and configs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Row, Select, func, insert, select, update

from bettong.domain.batching import DynamicBatching
from bettong.domain.models import Model, ModelConfig, ModelStatus, ModelVersion, default_runtime
from bettong.errors import NotFound
from bettong.storage.database import upsert
from bettong.storage.rows import in_batches, require, storable, utc_now
from bettong.storage.tables import model_configs, model_versions, models, upload_log_lines
from bettong.storage.workspaces import unknown_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import Connection as Transaction

    from bettong.domain.models import NewModelVersion
    from bettong.storage.database import Database
    from bettong.storage.rows import Clock

_UNFINISHED = [status.value for status in ModelStatus if not status.terminal]


class SqlModelStore:
    """Keeps model families and versions. A family comes into being with its first version."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add_version(self, new: NewModelVersion, status: ModelStatus, created_by: str) -> ModelVersion:
        """Keep a version, its model if it is the first of that name, and its first config; all or nothing."""
        now = self._now()
        with self._database.write(unknown=unknown_workspace(new.workspace_id)) as tx:
            # Whoever comes second waits here for the first, then adds a version to the model that is there.
            model_id: int = tx.execute(
                upsert(tx, models)
                .values(
                    workspace_id=new.workspace_id, name=new.name, owner_id=created_by, created_at=now, updated_at=now
                )
                .on_conflict_do_update(index_elements=["workspace_id", "name"], set_={"updated_at": now})
                .returning(models.c.id)
            ).scalar_one()
            version_id: int = tx.execute(
                insert(model_versions)
                .values(
                    model_id=model_id,
                    version=str(uuid4()),
                    visibility=new.visibility,
                    status=status,
                    framework=new.framework,
                    python_version=new.python_version,
                    requirements=list(new.requirements),
                    framework_config=dict(new.framework_config) or None,
                    arch=new.arch,
                    accel=new.accel,
                    file_name=new.file_name,
                    file_size=new.file_size,
                    sha=new.sha,
                    created_by=created_by,
                    created_at=now,
                    updated_at=now,
                )
                .returning(model_versions.c.id)
            ).scalar_one()
            tx.execute(
                insert(model_configs).values(
                    model_version_id=version_id,
                    runtime=default_runtime(new.framework),
                    input_schema=new.input_schema,
                    output_schema=new.output_schema,
                )
            )
            return _one_version(tx, version_id)

    def model(self, model_id: int) -> Model:
        with self._database.read() as tx:
            row = tx.execute(select(models).where(models.c.id == model_id)).first()
        if row is None:
            raise NotFound(f"No model has the id {model_id}.", "List the models to see which there are.")
        return _model(row)

    def model_by_name(self, workspace_id: int, name: str) -> Model | None:
        with self._database.read() as tx:
            row = tx.execute(select(models).where(models.c.workspace_id == workspace_id, models.c.name == name)).first()
        return None if row is None else _model(row)

    def models(self, workspace_ids: Iterable[int] | None) -> list[Model]:
        query = select(models).order_by(models.c.id)
        with self._database.read() as tx:
            if workspace_ids is None:
                return [_model(row) for row in tx.execute(query)]
            found = [
                _model(row)
                for ids in in_batches(workspace_ids)
                for row in tx.execute(query.where(models.c.workspace_id.in_(ids)))
            ]
        return sorted(found, key=lambda model: model.id)

    def version(self, version_id: int) -> ModelVersion:
        with self._database.read() as tx:
            return _one_version(tx, version_id)

    def version_by_uuid(self, version: str) -> ModelVersion | None:
        with self._database.read() as tx:
            row = tx.execute(_versions().where(model_versions.c.version == version)).first()
        return None if row is None else _version(row)

    def versions(self, model_ids: Iterable[int]) -> list[ModelVersion]:
        with self._database.read() as tx:
            found = [
                _version(row)
                for ids in in_batches(model_ids)
                for row in tx.execute(_versions().where(model_versions.c.model_id.in_(ids)))
            ]
        return sorted(found, key=lambda version: version.id, reverse=True)

    def unfinished(self) -> list[ModelVersion]:
        query = _versions().where(model_versions.c.status.in_(_UNFINISHED)).order_by(model_versions.c.id)
        with self._database.read() as tx:
            return [_version(row) for row in tx.execute(query)]

    def set_status(
        self,
        version_id: int,
        status: ModelStatus,
        *,
        error_summary: str | None = None,
        environment: str | None = None,
        image_path: str | None = None,
    ) -> ModelVersion:
        """Move a version to `status`. The error summary goes with the status: None clears the last one.

        `environment` and `image_path` stay as they are when None.
        """
        values: dict[str, object] = {
            "status": status,
            "error_summary": None if error_summary is None else storable(error_summary),
            "updated_at": self._now(),
        }
        if environment is not None:
            values["environment"] = environment
        if image_path is not None:
            values["image_path"] = image_path
        with self._database.write() as tx:
            tx.execute(update(model_versions).where(model_versions.c.id == version_id).values(values))
            return _one_version(tx, version_id)

    def append_upload_log(self, version_id: int, lines: Sequence[str]) -> None:
        with self._database.write(unknown=_unknown_version(version_id)) as tx:
            if lines:
                tx.execute(
                    insert(upload_log_lines),
                    [{"model_version_id": version_id, "line": storable(line)} for line in lines],
                )

    def upload_log(self, version_id: int, limit: int | None) -> list[str]:
        query = (
            select(upload_log_lines.c.line)
            .where(upload_log_lines.c.model_version_id == version_id)
            .order_by(upload_log_lines.c.seq.desc())
            .limit(limit)
        )
        with self._database.read() as tx:
            newest_first = tx.execute(query).scalars().all()
            if not newest_first:
                require(tx, model_versions.c.id == version_id, _unknown_version(version_id))
        return list(reversed(newest_first))

    def add_config(self, config: ModelConfig) -> ModelConfig:
        batching = config.dynamic_batching
        with self._database.write(unknown=_unknown_version(config.model_version_id)) as tx:
            row = tx.execute(
                insert(model_configs)
                .values(
                    model_version_id=config.model_version_id,
                    runtime=config.runtime,
                    tensor_fields=None if config.tensor_fields is None else list(config.tensor_fields),
                    filter_threshold=config.filter_threshold,
                    input_schema=config.input_schema,
                    output_schema=config.output_schema,
                    batch_config=config.batch_config,
                    dynamic_batching_config=None if batching is None else asdict(batching),
                )
                .returning(*model_configs.c)
            ).one()
        return _config(row)

    def configs(self, version_ids: Iterable[int]) -> dict[int, ModelConfig]:
        with self._database.read() as tx:
            return {row.model_version_id: _config(row) for ids in in_batches(version_ids) for row in _newest(tx, ids)}


def _newest(tx: Transaction, version_ids: list[int]) -> Iterable[Row[*tuple[Any, ...]]]:
    newest = (
        select(func.max(model_configs.c.id))
        .where(model_configs.c.model_version_id.in_(version_ids))
        .group_by(model_configs.c.model_version_id)
    )
    return tx.execute(select(model_configs).where(model_configs.c.id.in_(newest)))


def _versions() -> Select[*tuple[Any, ...]]:
    return select(*model_versions.c, models.c.name, models.c.workspace_id).join(
        models, models.c.id == model_versions.c.model_id
    )


def _one_version(tx: Transaction, version_id: int) -> ModelVersion:
    row = tx.execute(_versions().where(model_versions.c.id == version_id)).first()
    if row is None:
        raise _unknown_version(version_id)
    return _version(row)


def _unknown_version(version_id: int) -> NotFound:
    return NotFound(
        f"No model version has the id {version_id}.", "List the versions of the model to see which there are."
    )


def _model(row: Row[*tuple[Any, ...]]) -> Model:
    return Model(row.id, row.name, row.workspace_id, row.owner_id, row.created_at, row.updated_at)


def _version(row: Row[*tuple[Any, ...]]) -> ModelVersion:
    return ModelVersion(
        id=row.id,
        model_id=row.model_id,
        name=row.name,
        workspace_id=row.workspace_id,
        version=row.version,
        visibility=row.visibility,
        status=ModelStatus(row.status),
        error_summary=row.error_summary,
        framework=row.framework,
        python_version=row.python_version,
        requirements=tuple(row.requirements),
        arch=row.arch,
        accel=row.accel,
        file_name=row.file_name,
        file_size=row.file_size,
        sha=row.sha,
        image_path=row.image_path,
        environment=row.environment,
        created_by=row.created_by,
        created_at=row.created_at,
        updated_at=row.updated_at,
        framework_config=row.framework_config or {},
    )


def _config(row: Row[*tuple[Any, ...]]) -> ModelConfig:
    batching = row.dynamic_batching_config
    return ModelConfig(
        id=row.id,
        model_version_id=row.model_version_id,
        runtime=row.runtime,
        tensor_fields=None if row.tensor_fields is None else tuple(row.tensor_fields),
        filter_threshold=row.filter_threshold,
        input_schema=row.input_schema,
        output_schema=row.output_schema,
        batch_config=row.batch_config,
        dynamic_batching=None if batching is None else DynamicBatching.of(batching),
    )
