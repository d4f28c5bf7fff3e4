"""Health, facts, login and the end of the server."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter
from starlette.background import BackgroundTask

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Facts, Uses
from bettong.api.requests import Empty, Stop
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.errors import NotFound

router = APIRouter(prefix="/v1/api", route_class=StrictRoute, tags=["platform"])


@router.get("/health", summary="Whether this platform answers, and which start of it", response_model=replies.Health)
async def health(facts: Facts) -> Answer:
    """Needs no token. `instance` is new at each start, so that a foreign program on the port is noticed."""
    return Answer({"status": "ok", "instance": facts.instance, "version": facts.version})


@router.get("/config", summary="What clients must know of this installation", response_model=replies.Config)
async def config(caller: Caller, facts: Facts) -> Answer:
    return Answer({"default_arch": facts.arch, "version": facts.version, "features": list(facts.features)})


@router.post("/features/list", summary="Licence features: none is needed", response_model=replies.Features)
async def features(caller: Caller, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    return Answer({"features": {}, "name": "bettong", "is_auth_enabled": True})


@router.post("/auth/token", summary="Exchange a token for an access token of 60 seconds", response_model=replies.Token)
def token(caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    """Servers and replicas take the access token; replicas take nothing else."""
    session = services.identity.exchange(caller)
    return Answer(
        {
            "access_token": session.access_token,
            "expires_in": session.expires_in,
            "user_id": caller.user_id,
            "email": caller.email,
            "username": session.username,
            "is_admin": caller.is_admin,
            "workspace_ids": sorted(caller.workspace_ids),
        },
        headers={"cache-control": "no-store"},
    )


@router.get("/platform/status", summary="How the platform is", response_model=replies.PlatformStatus)
def status(caller: Caller, services: Uses, facts: Facts) -> Answer:
    """Connections and deployments are those that the caller may see. Warnings are for administrators: they may name
    anybody's things."""
    return Answer(
        {
            "version": facts.version,
            "instance": facts.instance,
            "url": facts.url,
            "home": facts.home,
            "started_at": facts.started_at,
            "warnings": list(facts.warnings()) if caller.is_admin else [],
            "unreadable_connections": services.connections.unreadable(caller),
            "deployments": services.deployments.running(caller),
            "sandbox": facts.sandbox,
            "log": asdict(facts.log),
        }
    )


@router.post("/platform/stop", summary="End the server", response_model=replies.Done)
def stop(caller: Caller, facts: Facts, body: Annotated[Stop, may_be_absent(Stop)]) -> Answer:
    """For administrators. The server ends after this answer; deployments end with it unless they are to be kept."""
    if not caller.is_admin:
        raise NotFound("There is nothing here that you may do.", "Ask an administrator of this platform to do it.")
    return Answer({}, background=BackgroundTask(facts.stop, body.keep_deployments))
