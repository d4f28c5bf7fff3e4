"""The control plane as one ASGI application: routes, errors, the gate before them, and the API pages."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from bettong import __version__
from bettong.api import docs, problem, replies
from bettong.api.gate import Gate
from bettong.api.request_counts import RequestCounts
from bettong.api.routes import (
    connection_use,
    connection_versions,
    connections,
    deployments,
    inference,
    jobs,
    keys,
    logs,
    metrics,
    models,
    pipelines,
    platform,
    users,
    workspaces,
)
from bettong.engine.host_header import KnownHosts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastapi.telemetry import TelemetryConfig

    from bettong.services.platform import PlatformFacts, Services
    from bettong.settings import Settings

_ABOUT = """Workspaces, models, pipelines, deployments, connections and inference logs.

Nearly every call is a `POST` with a JSON object. Send `Authorization: Bearer <token>`; without a token the answer is
401 in plain text. Every other error is the shape `Problem`, and never repeats a value of the request. `X-Request-Id`
is echoed and logged."""
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": replies.Problem, "description": "Something in the request does not hold."},
    401: {"description": "No token, or one that does not hold.", "content": {"text/plain": {}}},
    403: {"model": replies.Problem, "description": "A right is missing; the text names it."},
    404: {"model": replies.Problem, "description": "Nothing of that name that the caller may see."},
    409: {"model": replies.Problem, "description": "The name or state is taken."},
    413: {"model": replies.Problem, "description": "More bytes than the limit."},
    415: {"model": replies.Problem, "description": "A content type or framework that this release does not know."},
    503: {"model": replies.Problem, "description": "Worth another try later."},
}
# FastAPI's own would send messages of errors wherever the environment says, past everything that keeps secrets in.
_NO_TELEMETRY: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
_KEPT_CONNECTIONS = httpx.Limits(max_connections=256, max_keepalive_connections=32, keepalive_expiry=30.0)


def create_app(services: Services, settings: Settings, facts: PlatformFacts) -> FastAPI:
    """The application. It owns nothing that `services` are made of, and closes nothing but its own HTTP client."""
    limits = settings.limits
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it logs whole URLs, query strings included

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        timeout = httpx.Timeout(limits.request_timeout_s + 5, connect=5.0)
        async with httpx.AsyncClient(timeout=timeout, limits=_KEPT_CONNECTIONS, trust_env=False) as forwarder:
            app.state.forwarder = forwarder
            yield

    app = FastAPI(
        title="bettong",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_ERRORS,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    counts = RequestCounts()
    app.state.services, app.state.facts, app.state.request_counts = services, facts, counts
    problem.install(app)
    docs.install(app)
    for module in (
        platform,
        users,
        workspaces,
        connections,
        connection_use,
        connection_versions,
        models,
        pipelines,
        deployments,
        inference,
        jobs,
        keys,
        logs,
        metrics,
    ):
        app.include_router(module.router)
    app.add_middleware(
        Gate,
        authenticate=services.identity.authenticate,
        hosts=KnownHosts(settings.host, settings.allowed_hosts),
        limits=limits,
        counts=counts,
    )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the way that FastAPI documents
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for operation in (o for methods in made["paths"].values() for o in methods.values()):
            operation["responses"].pop("422", None)  # ours is 400, in the shape of every other error
        for unused in ("HTTPValidationError", "ValidationError"):
            made["components"]["schemas"].pop(unused, None)
        app.openapi_schema = {**docs.as_openapi_30(made), "openapi": "3.0.3"}
    return app.openapi_schema
