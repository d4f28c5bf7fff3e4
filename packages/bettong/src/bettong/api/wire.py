"""From the services' values to the shapes of docs/design/wire.md, field by field in its order."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

from bettong import __version__
from bettong.api.answers import iso

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bettong.domain.connections import Connection
    from bettong.domain.identity import User, Workspace
    from bettong.domain.models import ModelConfig, ModelVersion
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.services.deployments import DeploymentFacts
    from bettong.services.models import ModelFacts, VersionFacts
    from bettong.services.pipelines import PipelineFacts
    from bettong.services.workspaces import Contents

    Record = dict[str, Any]

_T = TypeVar("_T")


class Addresses:
    """How the caller reaches deployments: `external` through this server, `replica` straight.

    Args:
        base: the address that the caller reached this server by, without a slash at its end.
        caller_host: its host, for a server that listens on every address and knows no better name of itself.
    """

    def __init__(self, base: str, caller_host: str) -> None:
        self._base, self._caller_host = base, caller_host

    def external(self, facts: DeploymentFacts) -> str:
        row = facts.deployment
        return f"{self._base}/v1/api/pipelines/infer/{row.label}/{row.name}"

    def replica(self, facts: DeploymentFacts) -> str | None:
        """None while it does not run."""
        if not facts.port:
            return None
        host = self._caller_host if facts.host in ("", "0.0.0.0", "::") else facts.host
        bracketed = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{bracketed}:{facts.port}/pipelines/{facts.deployment.name}"


def user_record(user: User) -> Record:
    return {
        "id": user.id,
        "email": user.email,
        "username": user.username,
        "enabled": user.enabled,
        "emailVerified": True,
        "createdTimestamp": round(user.created_at.timestamp() * 1000),
        "is_admin": user.is_admin,
    }


def workspace_record(workspace: Workspace) -> Record:
    return {
        "id": workspace.id,
        "name": workspace.name,
        "archived": workspace.archived,
        "created_at": iso(workspace.created_at),
        "created_by": workspace.created_by,
    }


def workspace_item(contents: Contents) -> Record:
    return {
        **workspace_record(contents.workspace),
        "models": [m.id for m in contents.models],
        "pipelines": [p.id for p in contents.pipelines],
        "users": [m.user.email for m in contents.members],
    }


def workspace_detail(contents: Contents) -> Record:
    return {
        **workspace_item(contents),
        "model_entries": [
            {
                "name": m.name,
                "versions": contents.version_counts.get(m.id, 0),
                "owner_id": m.owner_id,
                "last_update_time": iso(m.updated_at),
                "created_at": iso(m.created_at),
            }
            for m in contents.models
        ],
        "pipeline_entries": [{"name": p.name, "create_time": iso(p.created_at)} for p in contents.pipelines],
    }


def connection_record(connection: Connection) -> Record:
    return {
        "id": connection.id,
        "name": connection.name,
        "type": connection.type,
        "created_at": iso(connection.created_at),
        "workspace_names": list(connection.workspace_names),
        "version": connection.version,
        "use_only": connection.use_only,
        "last_used_at": None if connection.last_used_at is None else iso(connection.last_used_at),
    }


def model_version_record(version: ModelVersion, workspace_name: str, deployed: bool) -> Record:
    return {
        "id": version.id,
        "name": version.name,
        "models_pk_id": version.model_id,
        "visibility": version.visibility,
        "workspace_id": version.workspace_id,
        "workspace": {"id": version.workspace_id, "name": workspace_name},
        "conversion": {
            "framework": version.framework,
            "python_version": version.python_version,
            "requirements": list(version.requirements),
            "framework_config": _framework_config(version),
            "arch": version.arch,
            "accel": version.accel,
        },
        "arch": version.arch,
        "accel": version.accel,
        "status": version.status.value,
        "file_info": {
            "version": version.version,
            "sha": version.sha,
            "file_name": version.file_name,
            "size": version.file_size,
        },
        "image_path": version.image_path,
        "task_id": None,
        "created_on_version": __version__,
        "created_by": version.created_by,
        "created_at": iso(version.created_at),
        "updated_at": iso(version.updated_at),
        "deployed": deployed,
        "error_summary": version.error_summary,
    }


def _framework_config(version: ModelVersion) -> Record | None:
    if not version.framework_config:
        return None
    return {"framework": version.framework, "config": dict(version.framework_config)}


def model_config(config: ModelConfig) -> Record:
    batching = config.dynamic_batching
    return {
        "id": config.id,
        "model_version_id": config.model_version_id,
        "runtime": config.runtime,
        "tensor_fields": None if config.tensor_fields is None else list(config.tensor_fields),
        "filter_threshold": config.filter_threshold,
        "input_schema": _text(config.input_schema),
        "output_schema": _text(config.output_schema),
        "batch_config": config.batch_config,
        "dynamic_batching_config": None if batching is None else asdict(batching),
    }


def configured_version(facts: VersionFacts) -> Record:
    return {
        "config": model_config(facts.config),
        "model_version": model_version_record(facts.version, facts.workspace.name, facts.deployed),
    }


def model_entry(facts: ModelFacts) -> Record:
    model = facts.model
    return {
        "model": {
            "id": model.id,
            "name": model.name,
            "owner_id": model.owner_id,
            "workspace_id": model.workspace_id,
            "created_at": iso(model.created_at),
            "updated_at": iso(model.updated_at),
        },
        "model_versions": [configured_version(v) for v in facts.versions],
        "workspace": workspace_record(facts.workspace),
    }


def model_detail(facts: ModelFacts) -> Record:
    return {
        "id": facts.model.id,
        "name": facts.model.name,
        "owner_id": facts.model.owner_id,
        "models": short_versions([facts]),
        "workspace": {"id": facts.workspace.id, "name": facts.workspace.name},
        "created_at": iso(facts.model.created_at),
        "updated_at": iso(facts.model.updated_at),
        "versions": [configured_version(v) for v in facts.versions],
    }


def short_versions(families: Sequence[ModelFacts]) -> list[Record]:
    """The versions of some families in one list, newest first."""
    found = [(facts.model.owner_id, v.version) for facts in families for v in facts.versions]
    found.sort(key=lambda pair: pair[1].id, reverse=True)
    return [
        {
            "sha": version.sha,
            "models_pk_id": version.model_id,
            "model_version": version.version,
            "owner_id": owner_id,
            "model_id": version.name,
            "id": version.id,
            "file_name": version.file_name,
            "image_path": version.image_path,
            "status": version.status.value,
        }
        for owner_id, version in found
    ]


def pipeline_version_record(pipeline: Pipeline, version: PipelineVersion, deployed: bool) -> Record:
    steps = version.definition.get("steps", [])
    return {
        "pk_id": version.id,
        "id": pipeline.name,
        "pipeline_id": pipeline.id,
        "workspace_id": pipeline.workspace_id,
        "version": version.version,
        "steps": steps,
        "definition": {"id": pipeline.name, "steps": steps},
        "created_at": iso(version.created_at),
        "updated_at": iso(version.updated_at),
        "created_by": version.created_by,
        "deployed": deployed,
        "tags": [],
    }


def pipeline_entry(facts: PipelineFacts, addresses: Addresses) -> Record:
    pipeline, workspace = facts.pipeline, facts.workspace
    return {
        "pipeline": {
            "id": pipeline.id,
            "name": pipeline.name,
            "owner_id": pipeline.owner_id,
            "created_at": iso(pipeline.created_at),
            "updated_at": iso(pipeline.updated_at),
        },
        "plateau_topic": facts.topic,
        "workspace": workspace_record(workspace),
        "versions": list(facts.version_ids),
        "pipeline_version": _or_null(
            lambda v: pipeline_version_record(pipeline, v, facts.version_deployed), facts.version
        ),
        "deployed": facts.deployed,
        "deployed_steps": list(facts.deployed_steps),
        "arch": facts.arch,
        "accel": facts.accel,
        "tags": [],
        "published": False,
        "deployment": _or_null(lambda d: deployment_record(d, addresses), facts.deployment),
    }


def deployment_record(facts: DeploymentFacts, addresses: Addresses) -> Record:
    row, version = facts.deployment, facts.pipeline_version
    return {
        "id": row.id,
        "name": row.name,
        "label": row.label,
        "deployed": row.deployed,
        "pipeline_id": row.pipeline_id,
        "pipeline_name": facts.pipeline_name,
        "workspace_id": row.workspace_id,
        "generation": row.generation,
        "pipeline_version": version.version if version else None,
        "pipeline_version_pk_id": row.pipeline_version_id,
        "engine_config": row.engine_config,
        "model_configs": [model_config(c) for c in facts.configs],
        "models": [
            model_version_record(m, facts.workspace_names[m.workspace_id], m.version in facts.in_use)
            for m in facts.models
        ],
        "url": addresses.replica(facts),
        "external_url": addresses.external(facts),
        "created_at": iso(row.created_at),
        "updated_at": iso(row.updated_at),
    }


def _or_null(build: Callable[[_T], Record], value: _T | None) -> Record | None:
    return None if value is None else build(value)


def _text(schema: bytes | None) -> str | None:
    return None if schema is None else base64.b64encode(schema).decode()
