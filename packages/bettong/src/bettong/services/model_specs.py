"""Model versions as engines need them: everything resolved to local folders."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from bettong.domain.deployments import ModelSpec
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bettong.domain.models import ModelConfig, ModelVersion


def model_spec(
    version: ModelVersion,
    config: ModelConfig,
    folder: Path,
    environment: Path | None,
    *,
    load_timeout_s: float = 120.0,
    env: Mapping[str, str] | None = None,
    cpus: int = 0,
) -> ModelSpec:
    """What an engine is told of one version. `folder` is the unpacked artifact, `environment` the built one; native
    models have none."""
    return ModelSpec(
        uid=version.uid,
        id=version.id,
        name=version.name,
        version=version.version,
        sha=version.sha,
        framework=version.framework,
        folder=str(folder),
        environment="" if environment is None else str(environment),
        input_schema=_text(version, "input_schema", config.input_schema),
        output_schema=_text(version, "output_schema", config.output_schema),
        load_timeout_s=load_timeout_s,
        env=dict(env or {}),
        framework_config=dict(version.framework_config),
        row_by_row=config.batch_config == "single",
        batching=config.dynamic_batching,
        cpus=cpus,
    )


def _text(version: ModelVersion, which: str, schema: bytes | None) -> str:
    if schema is None:
        raise BadInput(f"Model version '{version.uid}' has no {which}.", "Give it one with configure().")
    return base64.b64encode(schema).decode()
