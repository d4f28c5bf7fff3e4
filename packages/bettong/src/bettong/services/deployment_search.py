"""Which deployment, pipeline or version a caller means. What they may not see is told like what is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.domain.near_names import offer, shown
from bettong.errors import BadInput, NotFound
from bettong.services.workspaces import scope_of

if TYPE_CHECKING:
    from bettong.domain.deployments import Deployment
    from bettong.domain.identity import Principal
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.domain.ports import DeploymentStore, PipelineStore


class DeploymentSearch:
    """Every method raises NotFound for what is not there or not for this caller."""

    def __init__(self, rows: DeploymentStore, pipelines: PipelineStore) -> None:
        self._rows, self._pipelines = rows, pipelines

    # --- deployments ---

    def by_id(self, principal: Principal, deployment_id: int) -> Deployment:
        try:
            row = self._rows.get(deployment_id)
        except NotFound:
            row = None
        if row is None or not principal.may_see(row.workspace_id):
            raise _unknown(f"with id {deployment_id}")
        return row

    def by_label(self, principal: Principal, label: str) -> Deployment:
        """The deployment called `{name}-{id}`."""
        _, _, number = label.rpartition("-")
        if number.isascii() and number.isdigit() and len(number) < 10:
            row = self.by_id(principal, int(number))
            if row.label == label:
                return row
        raise _unknown("of that name")

    def newest_named(self, principal: Principal, name: str, workspace_id: int | None = None) -> Deployment:
        """The one that changed last, in one workspace or in all that the caller may see."""
        scope = scope_of(principal) if workspace_id is None else frozenset({workspace_id})
        rows = [r for r in self._rows.all(scope) if r.name == name and principal.may_see(r.workspace_id)]
        if not rows:
            raise _unknown(f"called '{name}'")
        return max(rows, key=lambda r: r.updated_at)

    # --- what is to be deployed ---

    def version(
        self, principal: Principal, name: str, version_id: int | None, version: str | None, pipeline_id: int | None
    ) -> tuple[Pipeline, PipelineVersion]:
        """The version given by id or UUID, else the newest of the pipeline given by id, else of the one of that name.

        Raises:
            BadInput: the version is of another pipeline than the one given, or several pipelines have the name.
        """
        found: PipelineVersion | None
        if version_id is not None:
            found = self._version(version_id)
        elif version is not None:
            found = self._pipelines.version_by_uuid(version)
        else:
            pipeline = (
                self._one_named(principal, name) if pipeline_id is None else self.pipeline(principal, pipeline_id)
            )
            found = next(iter(self._pipelines.versions([pipeline.id])), None)
        owner = None if found is None else self._pipelines.get(found.pipeline_id)
        if found is None or owner is None or not principal.may_see(owner.workspace_id):
            raise self._no_version(principal, version if version_id is None else version_id, pipeline_id)
        if pipeline_id is not None and owner.id != pipeline_id:
            raise BadInput(
                f"The pipeline version is not one of pipeline {pipeline_id}.", "Send a version of that pipeline."
            )
        return owner, found

    def pipeline(self, principal: Principal, pipeline_id: int) -> Pipeline:
        return visible_pipeline(self._pipelines, principal, pipeline_id)

    def _no_version(self, principal: Principal, which: int | str | None, pipeline_id: int | None) -> NotFound:
        if not isinstance(which, str):
            return NotFound("There is no such pipeline version that you may see.", "List the pipeline's versions.")
        named = [] if pipeline_id is None else [self.pipeline(principal, pipeline_id).id]
        near = offer(which, [each.version for each in self._pipelines.versions(named)])
        return NotFound(
            f"There is no pipeline version {shown(which)} that you may see.", near or "List the pipeline's versions."
        )

    def _version(self, version_id: int) -> PipelineVersion | None:
        try:
            return self._pipelines.version(version_id)
        except NotFound:
            return None

    def _one_named(self, principal: Principal, name: str) -> Pipeline:
        named = [p for p in self._pipelines.all(scope_of(principal)) if p.name == name]
        if not named:
            raise NotFound(f"There is no pipeline '{name}' that you may see.", "List the pipelines, or build it first.")
        if len(named) > 1:
            raise BadInput(
                f"{len(named)} workspaces have a pipeline '{name}'.", "Send 'pipeline_version_pk_id' or 'pipeline_id'."
            )
        return named[0]


def visible_pipeline(pipelines: PipelineStore, principal: Principal, pipeline_id: int) -> Pipeline:
    """Raises NotFound."""
    try:
        pipeline = pipelines.get(pipeline_id)
    except NotFound:
        pipeline = None
    if pipeline is None or not principal.may_see(pipeline.workspace_id):
        raise NotFound(f"There is no pipeline with id {pipeline_id} that you may see.", "List the pipelines.")
    return pipeline


def _unknown(which: str) -> NotFound:
    return NotFound(f"There is no deployment {which} that you may see.", "List the deployments.")
