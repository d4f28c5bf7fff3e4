"""Pipelines and their versions: what they are made of, and what is told of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.logs import topic_of
from bettong.domain.names import check_pipeline_name
from bettong.domain.steps import first_models_of, models_of, parse_steps
from bettong.errors import BadInput, Conflict, NotFound
from bettong.services.deployment_search import visible_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from bettong.domain.identity import Principal, Workspace
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.domain.ports import DeploymentStore, ModelStore, PipelineStore
    from bettong.domain.steps import ModelRef
    from bettong.services.deployments import DeploymentFacts, DeploymentService
    from bettong.services.workspaces import WorkspaceService


@dataclass(frozen=True, slots=True)
class PipelineFacts:
    """A pipeline with what answers tell beside it. `version` is the one the answer is about, the newest by default.

    `deployed` is None before the first deployment; `deployed_steps` name the first model of each step of the last
    one; `arch` and `accel` are those of its first model, or of the newest version's before the first deployment.
    """

    pipeline: Pipeline
    workspace: Workspace
    topic: str
    version_ids: tuple[str, ...]  # UUIDs, newest first
    version: PipelineVersion | None
    version_deployed: bool
    deployed: bool | None
    deployed_steps: tuple[str, ...]
    arch: str | None
    accel: str | None
    deployment: DeploymentFacts | None


@dataclass(frozen=True, slots=True)
class Sought:
    """What a search looks for. The term is found anywhere and without case in names, versions and the models' names;
    of the times, all aware, starts are included and ends are not."""

    term: str | None = None
    deployed: bool | None = None
    created_since: datetime | None = None
    created_until: datetime | None = None
    updated_since: datetime | None = None
    updated_until: datetime | None = None

    def fits(self, facts: PipelineFacts) -> bool:
        pipeline, steps = facts.pipeline, _model_names(facts.version)
        return (
            (not self.term or any(self.term.casefold() in t for t in map(str.casefold, _texts(facts, steps))))
            and (self.deployed is None or bool(facts.deployed) is self.deployed)
            and (self.created_since is None or pipeline.created_at >= self.created_since)
            and (self.created_until is None or pipeline.created_at < self.created_until)
            and (self.updated_since is None or pipeline.updated_at >= self.updated_since)
            and (self.updated_until is None or pipeline.updated_at < self.updated_until)
        )


class PipelineService:
    def __init__(
        self,
        pipelines: PipelineStore,
        models: ModelStore,
        deployment_rows: DeploymentStore,
        workspaces: WorkspaceService,
        deployments: DeploymentService,
    ) -> None:
        self._pipelines, self._models, self._workspaces = pipelines, models, workspaces
        self._rows, self._deployments = deployment_rows, deployments

    def create(
        self, principal: Principal, name: str, workspace_id: int, definition: dict[str, Any] | None
    ) -> PipelineVersion:
        """Make a pipeline and its first version; of a pipeline that exists, one more version.

        Raises:
            BadInput: the name or the definition does not hold, or names a model that is not there.
            NotFound: no such workspace for this caller.
        """
        self._workspaces.visible(principal, workspace_id)
        check_pipeline_name(name)
        document = definition or {}
        for at, step in enumerate(parse_steps(document)):
            for model in step.models:
                self._check_model(principal, at, model)
        pipeline = self._pipelines.by_name(workspace_id, name)
        if pipeline is None:
            try:
                pipeline = self._pipelines.add(workspace_id, name, principal.user_id)
            except Conflict:  # made twice at once: both get a version of the one
                if (pipeline := self._pipelines.by_name(workspace_id, name)) is None:
                    raise
        stored = {"id": name, "steps": document.get("steps", [])}
        return self._pipelines.add_version(pipeline.id, stored, principal.user_id)

    def named(self, principal: Principal, name: str, workspace_id: int) -> PipelineFacts:
        """Raises NotFound."""
        return self._facts(principal, [self._by_name(principal, name, workspace_id)])[0]

    def all(
        self, principal: Principal, workspace_id: int | None = None, workspace_name: str | None = None
    ) -> list[PipelineFacts]:
        """Of one workspace, or all that the caller may see; oldest first."""
        return self._facts(
            principal, self._pipelines.all(self._workspaces.scope(principal, workspace_id, workspace_name))
        )

    def search(
        self,
        principal: Principal,
        sought: Sought,
        workspace_id: int | None = None,
        workspace_name: str | None = None,
    ) -> list[PipelineFacts]:
        """The fitting ones, oldest first."""
        return [f for f in self.all(principal, workspace_id, workspace_name) if sought.fits(f)]

    def versions(self, principal: Principal, name: str, workspace_id: int) -> list[PipelineFacts]:
        """One entry per version of a pipeline, newest first. Raises NotFound."""
        pipeline = self._by_name(principal, name, workspace_id)
        return [self._facts(principal, [pipeline], v)[0] for v in self._pipelines.versions([pipeline.id])]

    def version(self, principal: Principal, version: str) -> tuple[Pipeline, PipelineVersion, bool]:
        """A version by its UUID, its pipeline, and whether it is the deployed one. Raises NotFound."""
        found = self._pipelines.version_by_uuid(version)
        pipeline = None if found is None else self._pipelines.get(found.pipeline_id)
        if found is None or pipeline is None or not principal.may_see(pipeline.workspace_id):
            raise NotFound("There is no pipeline version of that id that you may see.", "List the pipeline's versions.")
        row = self._rows.of_pipeline(pipeline.id)
        return pipeline, found, row is not None and row.deployed and row.pipeline_version_id == found.id

    def by_id(self, principal: Principal, pipeline_id: int) -> Pipeline:
        """Raises NotFound."""
        return visible_pipeline(self._pipelines, principal, pipeline_id)

    def _by_name(self, principal: Principal, name: str, workspace_id: int) -> Pipeline:
        self._workspaces.visible(principal, workspace_id)
        if (pipeline := self._pipelines.by_name(workspace_id, name)) is None:
            raise NotFound(f"Pipeline {name} not found in this workspace.", "List the pipelines, or build it first.")
        return pipeline

    def _check_model(self, principal: Principal, at: int, ref: ModelRef) -> None:
        version = self._models.version_by_uuid(ref.version)
        if version is None or not principal.may_see(version.workspace_id):
            raise BadInput(
                f"Pipeline step {at} names a version of model '{ref.name}' that is not there.",
                "Name one of the versions that the model list shows.",
            )
        if (version.name, version.sha) != (ref.name, ref.sha):
            raise BadInput(
                f"Pipeline step {at} names model '{ref.name}', but its version has another name or sha.",
                "Take 'name', 'version' and 'sha' from the same model version.",
            )

    def _facts(
        self, principal: Principal, pipelines: Iterable[Pipeline], about: PipelineVersion | None = None
    ) -> list[PipelineFacts]:
        wanted = list(pipelines)
        versions: dict[int, list[PipelineVersion]] = {p.id: [] for p in wanted}
        for version in self._pipelines.versions(versions):
            versions[version.pipeline_id].append(version)
        workspaces = {i: self._workspaces.visible(principal, i) for i in {p.workspace_id for p in wanted}}
        return [self._one(p, versions[p.id], workspaces[p.workspace_id], about) for p in wanted]

    def _one(
        self, pipeline: Pipeline, versions: list[PipelineVersion], workspace: Workspace, about: PipelineVersion | None
    ) -> PipelineFacts:
        row = self._rows.of_pipeline(pipeline.id)
        deployment = None if row is None else self._deployments.facts(row)
        shown = about or (versions[0] if versions else None)
        arch, accel = self._target(deployment, shown)
        return PipelineFacts(
            pipeline=pipeline,
            workspace=workspace,
            topic=topic_of(workspace.id, pipeline.name),
            version_ids=tuple(v.version for v in versions),
            version=shown,
            version_deployed=bool(row and row.deployed and shown and row.pipeline_version_id == shown.id),
            deployed=None if row is None else row.deployed,
            deployed_steps=_shown_steps(deployment.pipeline_version if deployment else None),
            arch=arch,
            accel=accel,
            deployment=deployment,
        )

    def _target(
        self, deployment: DeploymentFacts | None, version: PipelineVersion | None
    ) -> tuple[str | None, str | None]:
        models = models_of(parse_steps(version.definition)) if version and not deployment else ()
        named = self._models.version_by_uuid(models[0].version) if models else None
        first = deployment.models[0] if deployment and deployment.models else named
        return (first.arch, first.accel) if first else (None, None)


def _model_names(version: PipelineVersion | None) -> tuple[str, ...]:
    return tuple(model.name for model in models_of(parse_steps(version.definition))) if version else ()


def _shown_steps(version: PipelineVersion | None) -> tuple[str, ...]:
    return first_models_of(parse_steps(version.definition)) if version else ()


def _texts(facts: PipelineFacts, steps: tuple[str, ...]) -> tuple[str, ...]:
    return (facts.pipeline.name, *facts.version_ids, *steps)
