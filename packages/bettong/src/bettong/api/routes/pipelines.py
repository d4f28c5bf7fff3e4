"""Pipelines: versions, search, deploy and undeploy."""

from typing import Annotated

from fastapi import APIRouter, Request

from bettong.api import replies
from bettong.api.addresses import addresses_of
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import (
    Deploy,
    PipelineByName,
    PipelineCreate,
    PipelinesSearch,
    PipelineVersionGet,
    PipelineVersionsList,
    Scope,
    SidekickLogsGet,
    Undeploy,
)
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.api.wire import pipeline_entry, pipeline_version_record
from bettong.errors import BadInput
from bettong.services.pipelines import Sought

router = APIRouter(prefix="/v1/api/pipelines", route_class=StrictRoute, tags=["pipelines"])


@router.post("/create", summary="Make a pipeline, or one more version of it", response_model=replies.CreatedPipeline)
def create(caller: Caller, services: Uses, body: PipelineCreate) -> Answer:
    version = services.pipelines.create(caller, body.pipeline_id, body.workspace_id, body.definition)
    return Answer(
        {
            "pipeline_pk_id": version.pipeline_id,
            "pipeline_variant_pk_id": version.id,
            "pipeline_variant_version": version.version,
        }
    )


@router.post("/get_pipeline_by_name", summary="A pipeline by name", response_model=replies.PipelineEntry)
def get_pipeline_by_name(request: Request, caller: Caller, services: Uses, body: PipelineByName) -> Answer:
    facts = services.pipelines.named(caller, body.pipeline_name, body.workspace_id)
    return Answer(pipeline_entry(facts, addresses_of(request)))


@router.post("/list_pipelines", summary="Pipelines", response_model=replies.Pipelines)
def list_pipelines(
    request: Request, caller: Caller, services: Uses, body: Annotated[Scope, may_be_absent(Scope)]
) -> Answer:
    """Of one workspace, or of all that the caller may see."""
    found = services.pipelines.all(caller, body.workspace_id, body.workspace_name)
    return Answer({"pipelines": [pipeline_entry(f, addresses_of(request)) for f in found]})


@router.post("/list_pipeline_versions", summary="A pipeline's versions", response_model=replies.PipelineVersions)
def list_pipeline_versions(request: Request, caller: Caller, services: Uses, body: PipelineVersionsList) -> Answer:
    """Newest first, each as an entry of its own."""
    found = services.pipelines.versions(caller, body.pipeline_id, body.workspace_id)
    return Answer({"pipeline_versions": [pipeline_entry(f, addresses_of(request)) for f in found]})


@router.post("/get_version", summary="A pipeline version", response_model=replies.PipelineVersionAnswer)
def get_version(caller: Caller, services: Uses, body: PipelineVersionGet) -> Answer:
    pipeline, version, deployed = services.pipelines.version(caller, body.version)
    record = pipeline_version_record(pipeline, version, deployed)
    return Answer(
        {
            "pipeline_id": pipeline.name,
            "version": version.version,
            "definition": record["definition"],
            "pipeline_version": record,
        }
    )


@router.post("/search", summary="Search pipelines", response_model=replies.Pipelines)
def search(
    request: Request, caller: Caller, services: Uses, body: Annotated[PipelinesSearch, may_be_absent(PipelinesSearch)]
) -> Answer:
    """The term is found anywhere, in any case, in names, versions and the names of the newest version's models."""
    sought = Sought(
        body.search_term,
        body.deployed,
        body.created_start,
        body.created_end,
        body.updated_start,
        body.updated_end,
    )
    found = services.pipelines.search(caller, sought, body.workspace_id, body.workspace_name)
    return Answer({"pipelines": [pipeline_entry(f, addresses_of(request)) for f in found]})


@router.post("/deploy", summary="Run a pipeline version", response_model=replies.Deployed)
def deploy(caller: Caller, services: Uses, body: Deploy) -> Answer:
    """Answers when it is under way: ask `/v1/api/status/get_deployment` whether `generation` serves. A pipeline that
    runs keeps answering with its old version until the new one does."""
    row, version = services.deployments.deploy(
        caller,
        body.deploy_id,
        body.engine_config,
        pipeline_version_id=body.pipeline_version_pk_id,
        pipeline_version=body.pipeline_version,
        pipeline_id=body.pipeline_id,
    )
    return Answer({"id": row.id, "generation": row.generation, "pipeline_version": version.version})


@router.post("/undeploy", summary="Stop a pipeline", response_model=replies.Done)
def undeploy(caller: Caller, services: Uses, body: Undeploy) -> Answer:
    """Nothing of it runs when this answers. Harmless when nothing did."""
    services.deployments.undeploy(caller, pipeline_id=body.pipeline_id, deployment_id=body.deployment_id)
    return Answer({})


@router.post("/get_sidekick_pod_logs", summary="What a model worker printed", response_model=replies.Lines)
def get_sidekick_pod_logs(caller: Caller, services: Uses, body: SidekickLogsGet) -> Answer:
    """The newest `limit` lines (100 by default). Lines have no times of their own, so they cannot be chosen by time."""
    if body.start_datetime is not None or body.end_datetime is not None:
        raise BadInput("The lines of a model worker cannot be chosen by time.", "Leave both times out; use 'limit'.")
    workspace = services.workspaces.named(caller, body.workspace_name)
    lines = services.deployments.worker_log(
        caller, workspace.id, body.pipeline_name, body.sidekick_name, body.limit or 100
    )
    return Answer({"logs": lines})
