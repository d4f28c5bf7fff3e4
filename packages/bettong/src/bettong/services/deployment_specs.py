"""What an engine is told to run: from a pipeline version and a config to a deployment file, everything resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import DeploymentSpec, parse_engine_config
from bettong.domain.logs import segment_bytes, topic_of
from bettong.domain.models import is_native
from bettong.domain.steps import models_of, parse_steps
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.services.engine_configs import opened, sidekick_cpus, sidekick_env, wanted_arch
from bettong.services.model_specs import model_spec
from bettong.services.step_checks import check_steps

if TYPE_CHECKING:
    from pathlib import Path

    from bettong.domain.deployments import Deployment
    from bettong.domain.models import ModelVersion
    from bettong.domain.pipelines import PipelineVersion
    from bettong.domain.ports import Keyring, ModelStore, Packager, PipelineStore, WorkspaceStore
    from bettong.engine.plan import Plan
    from bettong.settings import Settings


@dataclass(frozen=True, slots=True)
class Place:
    """Where the engines write and what they are told of the platform. `public_key` is base64 of the raw key."""

    log_folder: Path
    deployments_folder: Path
    public_key: str
    arch: str
    settings: Settings


class DeploymentSpecs:
    """Reads stores and the packager's folders, and starts nothing."""

    def __init__(
        self,
        pipelines: PipelineStore,
        models: ModelStore,
        workspaces: WorkspaceStore,
        packager: Packager,
        keyring: Keyring,
        place: Place,
    ) -> None:
        self._pipelines, self._models, self._workspaces = pipelines, models, workspaces
        self._packager, self._keyring, self._place = packager, keyring, place

    def check(self, pipeline: str, version: PipelineVersion, config: dict[str, Any]) -> Plan:
        """The plan that a replica would make of a version.

        Raises:
            BadInput: the version has no steps, a model of it is not ready or for other machines, the steps do not fit
                each other, or the config does not hold.
        """
        steps = parse_steps(version.definition)
        if not steps:
            raise BadInput(
                f"Pipeline version {version.version} has no steps.", "Add a model step, such as add_model_step(model)."
            )
        wanted = parse_engine_config(config)
        arch = wanted_arch(config) or self._place.arch
        if arch != self._place.arch:
            raise BadInput(
                f"Deployment config asks for architecture '{arch}'.",
                f"This machine runs '{self._place.arch}'; leave arch() out.",
            )
        models = self.models_of(version)
        for model in models:
            sidekick_env(config, model.uid)
            sidekick_cpus(config, model.uid)
            if model.status.value != "ready":
                why = f" ({model.error_summary})" if model.error_summary else ""
                raise BadInput(
                    f"Model version '{model.uid}' is not ready: its status is {model.status.value}{why}.",
                    "Wait until it is ready, or upload a version that loads.",
                )
            if model.arch != arch:
                raise BadInput(
                    f"Model version '{model.uid}' is for architecture '{model.arch}', this machine runs '{arch}'.",
                    "Upload it again for this architecture.",
                )
        configs = self._models.configs([m.id for m in models])
        return check_steps(pipeline, steps, models, configs, waits=wanted.shadow_waits)

    def of(self, row: Deployment) -> DeploymentSpec:
        """The deployment file for a row. Raises Unavailable: it names no version, or its variables do not open."""
        if row.pipeline_version_id is None:
            raise Unavailable(f"Deployment {row.label} names no pipeline version.", "Deploy the pipeline again.")
        version = self._pipelines.version(row.pipeline_version_id)
        models = self.models_of(version)
        configs = self._models.configs([m.id for m in models])
        wanted, settings = parse_engine_config(row.engine_config), self._place.settings
        limits = settings.limits
        config = opened(row.engine_config, self._keyring, binding(row.pipeline_id))
        return DeploymentSpec(
            deployment_id=row.id,
            name=row.name,
            workspace_id=row.workspace_id,
            workspace_name=self._workspaces.get(row.workspace_id).name,
            pipeline_id=row.pipeline_id,
            pipeline_version=version.version,
            generation=row.generation,
            replicas=wanted.replicas,
            cpus=wanted.cpus,
            threads=wanted.threads,
            steps=tuple(version.definition["steps"]),
            shadow_waits=wanted.shadow_waits,
            models=tuple(
                model_spec(
                    m,
                    configs[m.id],
                    self._packager.folder_of(m),
                    None if is_native(m.framework) else self._packager.environment_of(m),
                    load_timeout_s=wanted.load_timeout_s,
                    env=sidekick_env(config, m.uid),
                    cpus=sidekick_cpus(config, m.uid),
                )
                for m in models
            ),
            public_key=self._place.public_key,
            log_folder=str(self._place.log_folder),
            topic=topic_of(row.workspace_id, row.name),
            host=settings.host,
            port=row.port,
            hosts=settings.allowed_hosts,
            max_body_bytes=limits.max_body_bytes,
            head_timeout_s=limits.head_timeout_s,
            body_idle_timeout_s=limits.body_idle_timeout_s,
            keep_alive_timeout_s=limits.keep_alive_timeout_s,
            request_timeout_s=limits.request_timeout_s,
            max_queued_requests=limits.max_queued_requests,
            max_logged_row_bytes=settings.log.max_row_bytes,
            log_segment_bytes=segment_bytes(settings.log.bytes_per_topic, wanted.replicas),
            on_log_full=settings.log.on_full,
        )

    def models_of(self, version: PipelineVersion | None) -> tuple[ModelVersion, ...]:
        """The models that a version's steps name, each once, in order."""
        found = []
        for ref in models_of(parse_steps(version.definition)) if version else ():
            model = self._models.version_by_uuid(ref.version)
            if model is None:
                raise NotFound(
                    f"The pipeline names a version of model '{ref.name}' that is gone.",
                    "Build the step with a version that the model list shows.",
                )
            found.append(model)
        return tuple(found)


def binding(pipeline_id: int) -> str:
    """What the variables of a pipeline's workers are sealed for: copied to another one they do not open."""
    return f"deployment-of-pipeline/{pipeline_id}"
