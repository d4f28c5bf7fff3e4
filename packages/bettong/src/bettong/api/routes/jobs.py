"""Jobs: made, looked at and cancelled here, done beside the requests."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from bettong.api import job_replies as replies
from bettong.api.answers import Answer
from bettong.api.arrow_streams import arrow_answer
from bettong.api.auth import Caller, Uses
from bettong.api.job_requests import InferBatch, InferStream, JobsList, Replay
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.domain.jobs import JobKind
from bettong.engine.codec import ARROW_STREAM

router = APIRouter(prefix="/v1/api/jobs", route_class=StrictRoute, tags=["jobs"])

JobId = Annotated[str, Path(max_length=1024, pattern=r"^[^\x00]*$")]
_STREAM: dict[str, Any] = {"content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}}}
_ROWS: dict[int | str, dict[str, Any]] = {200: {"description": "Rows as an Arrow stream.", **_STREAM}}


@router.post("/infer_batch", summary="Inference from one connection to another", response_model=replies.One)
def infer_batch(caller: Caller, services: Uses, body: InferBatch) -> Answer:
    """The rows of `source` through the pipeline into `sink`. `guarantee` says how often a row may be written."""
    return Answer(replies.one(services.jobs.make(caller, JobKind.INFER_BATCH, body.asked())))


@router.post("/infer_stream", summary="Inference from a topic on", response_model=replies.One)
def infer_stream(caller: Caller, services: Uses, body: InferStream) -> Answer:
    """The messages of a topic through the pipeline into a topic or a table, until it is cancelled."""
    return Answer(replies.one(services.jobs.make(caller, JobKind.INFER_STREAM, body.asked())))


@router.post("/replay", summary="Logged inputs through another version", response_model=replies.One)
def replay(caller: Caller, services: Uses, body: Replay) -> Answer:
    return Answer(replies.one(services.jobs.make(caller, JobKind.REPLAY, body.asked())))


@router.post("/list", summary="The jobs that the caller may see", response_model=replies.Many)
def list_jobs(caller: Caller, services: Uses, body: Annotated[JobsList, may_be_absent(JobsList)]) -> Answer:
    """Newest first. `limit` and `after`, the id of the last one had, give the list in pages; `more` tells whether
    another one follows."""
    kinds = None if body.kind is None else frozenset({JobKind(body.kind)})
    found, more = services.jobs.all(
        caller, body.workspace_id, kinds=kinds, unended=body.unended, limit=body.limit, after=body.after
    )
    return Answer(replies.many(found, more))


@router.get("/{job_id}", summary="A job", response_model=replies.One)
def get(caller: Caller, services: Uses, job_id: JobId) -> Answer:
    return Answer(replies.one(services.jobs.get(caller, job_id)))


@router.post("/{job_id}/cancel", summary="Ask a job to end", response_model=replies.One)
def cancel(caller: Caller, services: Uses, job_id: JobId) -> Answer:
    """It stops where it is safe, a moment later. One that has ended stays as it is."""
    return Answer(replies.one(services.jobs.cancel(caller, job_id)))


@router.get("/{job_id}/log", summary="What a job has said", response_model=replies.Lines)
def log(
    caller: Caller,
    services: Uses,
    job_id: JobId,
    after: Annotated[int, Query(ge=0, le=2**53)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> Answer:
    """The last `limit` lines of those behind `after`, oldest first."""
    return Answer(replies.lines(services.jobs.log(caller, job_id, after=after, limit=limit)))


@router.get("/{job_id}/rejects", summary="Rows that a job could not do", response_class=Response, responses=_ROWS)
async def rejects(request: Request, caller: Caller, services: Uses, job_id: JobId) -> Response:
    """With the reason of each, also while it runs. No columns when there are none."""
    return await arrow_answer(request, services.jobs.rows(caller, job_id, "rejects"), request.state.request_id)


@router.get("/{job_id}/result", summary="Rows that came of a job", response_class=Response, responses=_ROWS)
async def result(request: Request, caller: Caller, services: Uses, job_id: JobId) -> Response:
    return await arrow_answer(request, services.jobs.rows(caller, job_id, "result"), request.state.request_id)
