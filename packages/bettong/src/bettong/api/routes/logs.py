"""Inference logs: pages of rows, and where a pipeline's log is."""

import os
from collections.abc import Iterator
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Facts, Uses
from bettong.api.log_pages import page_answer
from bettong.api.requests import LogsCursor, LogsGet, LogsQuery, PipelineTopicGet, Time, TopicGet
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.domain.logs import LogQuery
from bettong.engine.codec import ARROW_STREAM
from bettong.engine.dataset import parse_dataset

router = APIRouter(route_class=StrictRoute, tags=["logs"])

PIECE_BYTES = 2**18

_CURSOR: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Rows as JSON records or an Arrow file, by the Accept header. `x-iteration-cursor` continues, "
        "`x-iteration-status` is All, RecordLimited, ByteLimited or SchemaChange."
    }
}


@router.post(
    "/v1/api/pipelines/get_logs",
    summary="A page of a pipeline's log",
    response_model=list[replies.Rows],
    responses=_CURSOR,
)
def get_logs(request: Request, caller: Caller, services: Uses, body: LogsGet) -> Response:
    """Newest first unless `order` is `asc`. Send the cursor of a page back for the next one."""
    topic = services.logs.topic_name(caller, pipeline_name=body.pipeline_name, workspace_id=body.workspace_id)
    dataset = parse_dataset(request.scope["query_string"])
    page = services.logs.page(
        caller,
        LogQuery(
            topic,
            limit=body.page_size,
            newest_first=body.order == "desc",
            start=body.start_time,
            end=body.end_time,
            cursor=body.cursor,
            columns=dataset.include,
            exclude=dataset.exclude,
        ),
    )
    return page_answer(page, dataset, request.headers.get("accept", ""))


@router.get("/v1/logs/topic/{topic}", summary="How much a topic holds", response_model=replies.Topic)
def topic(topic: str, caller: Caller, services: Uses, facts: Facts) -> Answer:
    """Rows and bytes, and how many bytes it may have before its oldest rows go."""
    info = services.logs.info(caller, topic)
    partitions = {name: {"start": 0, "end": rows} for name, rows in info.partitions.items()}
    return Answer({"partitions": partitions, "bytes": info.bytes, "max_bytes": facts.log.bytes_per_topic})


@router.post(
    "/v1/logs/topic/{topic}/records",
    summary="A page of a topic",
    response_model=list[replies.Rows],
    responses=_CURSOR,
)
def records(
    request: Request,
    topic: str,
    caller: Caller,
    services: Uses,
    body: Annotated[LogsCursor, may_be_absent(LogsCursor)],
    page_size: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    page_bytes: Annotated[int, Query(ge=1)] = 10 * 2**20,
    order: Literal["asc", "desc"] = "asc",
    start: Annotated[Time | None, Query(alias="time.start")] = None,
    end: Annotated[Time | None, Query(alias="time.end")] = None,
) -> Response:
    """Columns are chosen by `dataset[]`, `dataset.exclude[]` and `dataset.separator`, as in an inference."""
    dataset = parse_dataset(request.scope["query_string"])
    page = services.logs.page(
        caller,
        LogQuery(
            topic,
            limit=page_size,
            newest_first=order == "desc",
            start=start,
            end=end,
            cursor=body.cursor,
            columns=dataset.include,
            exclude=dataset.exclude,
            max_bytes=page_bytes,
        ),
    )
    return page_answer(page, dataset, request.headers.get("accept", ""))


_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {ARROW_STREAM: {"schema": {"type": "string", "format": "binary"}}},
        "description": "The result as an Arrow stream.",
    }
}


@router.post("/v1/api/logs/sql", summary="A SELECT over logs", response_class=StreamingResponse, responses=_STREAM)
def sql(caller: Caller, services: Uses, body: LogsQuery) -> StreamingResponse:
    """Tables are `logs('pipeline-name')` and `logs('pipeline-name', valid := false)`; nothing else can be read."""
    result = services.log_queries.run(caller, body.query, body.workspace_id)
    size = os.fstat(result.fileno()).st_size
    return StreamingResponse(_pieces(result), media_type=ARROW_STREAM, headers={"content-length": str(size)})


def _pieces(result: BinaryIO) -> Iterator[bytes]:
    with result:
        while piece := result.read(PIECE_BYTES):
            yield piece


@router.post("/v1/api/plateau/get_topic_name", summary="A pipeline's topic", response_model=replies.TopicName)
def get_topic_name(caller: Caller, services: Uses, body: TopicGet) -> Answer:
    """By `pipeline_pk_id`, or by `pipeline_name` with or without its workspace."""
    name = services.logs.topic_name(
        caller, pipeline_id=body.pipeline_pk_id, pipeline_name=body.pipeline_name, workspace_id=body.workspace_id
    )
    return Answer({"topic_name": name})


@router.post(
    "/v1/api/plateau/get_pipeline_topic_name", summary="A pipeline's topic by name", response_model=replies.TopicName
)
def get_pipeline_topic_name(caller: Caller, services: Uses, body: PipelineTopicGet) -> Answer:
    name = services.logs.topic_name(caller, pipeline_name=body.pipeline_name, workspace_id=body.workspace_id)
    return Answer({"topic_name": name})
