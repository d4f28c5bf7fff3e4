"""Deployments: records, status, addresses."""

from typing import Annotated

from fastapi import APIRouter, Request

from bettong.api import replies
from bettong.api.addresses import addresses_of
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import DeploymentGet, DeploymentStatusGet, Empty, PipelineByName
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.api.wire import deployment_record
from bettong.errors import BadInput, NotFound

router = APIRouter(prefix="/v1/api", route_class=StrictRoute, tags=["deployments"])


@router.post("/deployments/get", summary="A deployment by id or name", response_model=replies.DeploymentRecord)
def get(request: Request, caller: Caller, services: Uses, body: DeploymentGet) -> Answer:
    if body.id is not None:
        return Answer(deployment_record(services.deployments.get(caller, body.id), addresses_of(request)))
    if body.name is None:
        raise BadInput("Neither 'id' nor 'name' of a deployment was given.", "Send one of them.")
    facts = services.deployments.named(caller, body.name, body.workspace_id)
    return Answer(deployment_record(facts, addresses_of(request)))


@router.post("/deployments/list", summary="Deployments", response_model=replies.Deployments)
def list_deployments(
    request: Request, caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]
) -> Answer:
    """All that the caller may see, stopped ones included."""
    found = services.deployments.all(caller)
    return Answer({"deployments": [deployment_record(f, addresses_of(request)) for f in found]})


@router.post("/status/get_deployment", summary="How a deployment is", response_model=replies.DeploymentStatus)
def get_deployment(caller: Caller, services: Uses, body: DeploymentStatusGet) -> Answer:
    """From a live probe of every process of it. 404 when it is not deployed."""
    return Answer(services.deployments.status(caller, body.name))


@router.post("/admin/get_pipeline_external_url", summary="The address through the server", response_model=replies.Url)
def get_pipeline_external_url(request: Request, caller: Caller, services: Uses, body: PipelineByName) -> Answer:
    facts = services.deployments.of_pipeline(caller, body.workspace_id, body.pipeline_name)
    return Answer({"url": addresses_of(request).external(facts)})


@router.post("/admin/get_pipeline_internal_url", summary="The replicas' own address", response_model=replies.Url)
def get_pipeline_internal_url(request: Request, caller: Caller, services: Uses, body: PipelineByName) -> Answer:
    facts = services.deployments.of_pipeline(caller, body.workspace_id, body.pipeline_name)
    if (url := addresses_of(request).replica(facts)) is None:
        raise NotFound(f"Pipeline {body.pipeline_name} is not deployed.", "Deploy it first.")
    return Answer({"url": url})
