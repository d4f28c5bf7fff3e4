"""What deployments count: for scrapers of Prometheus as text, for notebooks as JSON."""

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import MetricsGet
from bettong.api.strict_json import StrictRoute
from bettong.domain.exposition import CONTENT_TYPE, Exposition

if TYPE_CHECKING:
    from bettong.api.request_counts import RequestCounts

router = APIRouter(prefix="/v1/api/metrics", route_class=StrictRoute, tags=["metrics"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The Prometheus text format.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@router.get("", summary="Everything that is counted, for a scraper", response_class=Response, responses=_TEXT)
def scrape(request: Request, caller: Caller, services: Uses) -> Response:
    """The deployments of the caller's workspaces; for administrators the server too. Send an API token."""
    out = Exposition()
    services.metrics.tell(caller, out)
    if caller.is_admin:
        counts: RequestCounts = request.app.state.request_counts
        counts.tell(out)
    return Response(out.text(), headers={"content-type": CONTENT_TYPE, "cache-control": "no-store"})


@router.post("/pipeline", summary="What a pipeline's deployment has counted", response_model=replies.PipelineMetrics)
def pipeline(caller: Caller, services: Uses, body: MetricsGet) -> Answer:
    """Since its deployment began: counters, histograms, and the replicas that there are."""
    found = services.metrics.of_pipeline(caller, pipeline_id=body.pipeline_id, label=body.label)
    return Answer(found.to_document())
