"""Who is calling, for routes. The gate has checked the token; a route that asks here is not reached without one."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from bettong.domain.identity import Principal
from bettong.errors import Unauthenticated
from bettong.services.platform import PlatformFacts, Services

_bearer = HTTPBearer(
    auto_error=False, description="An API token (`bt_…`) or an access token from `/v1/api/auth/token`."
)


async def _caller(
    request: Request, _shown: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]
) -> Principal:
    principal = getattr(request.state, "principal", None)
    if not isinstance(principal, Principal):
        raise Unauthenticated("Jwt is missing")
    return principal


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


async def _facts(request: Request) -> PlatformFacts:
    facts: PlatformFacts = request.app.state.facts
    return facts


Caller = Annotated[Principal, Depends(_caller)]
Uses = Annotated[Services, Depends(_services)]
Facts = Annotated[PlatformFacts, Depends(_facts)]
