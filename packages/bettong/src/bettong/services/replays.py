"""Replays as people ask for them: which version, which logs, and what that version takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bettong.domain.replay_requests import DEFAULT_TOLERANCE, ReplayRequest, ReplayWindow
from bettong.domain.steps import looks_at_whole_requests, models_of, parse_steps
from bettong.errors import BadInput
from bettong.services.job_orders import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.services.job_orders import Ground

GUARANTEE = "every logged row of the window once, in order; a new attempt begins anew"


def replay_order(asked: Mapping[str, Any], ground: Ground) -> Order:
    """What a replay job keeps: `start` and `end` (aware), `limit`, `tolerance`, `failed` and `inputs` of `asked`, and
    all that the job needs to know of the version.

    Raises:
        NotFound: the caller may not read the pipeline's log.
        BadInput: the window cannot be used, or the version's steps do not fit.
    """
    pipeline, version = ground.pipeline, ground.version
    plan = ground.specs.check(pipeline.name, version, {})
    request = ReplayRequest(
        pipeline_id=pipeline.id,
        pipeline_version=version.version,
        topic=ground.logs.topic_name(ground.principal, pipeline_id=pipeline.id),
        failures_topic=ground.logs.topic_name(ground.principal, pipeline_id=pipeline.id, failures=True),
        window=_window(asked),
        takes=plan.inputs,
        keys=plan.keys,
        by_request=looks_at_whole_requests(parse_steps(version.definition)),
    )
    return Order(request.to_document(), GUARANTEE)


def version_to_replay(
    pipeline: Pipeline, versions: Iterable[PipelineVersion], deployed_id: int | None
) -> PipelineVersion:
    """The newest version with a model that is not the deployed one.

    Args:
        versions: of the pipeline, newest first.
        deployed_id: of the version that its deployment has, be it running or not.

    Raises:
        BadInput: there is none.
    """
    for version in versions:
        if version.id != deployed_id and models_of(parse_steps(version.definition)):
            return version
    raise BadInput(
        f"Pipeline '{pipeline.name}' has no version with a model beside the deployed one.",
        "Change its steps and make one with create_version(), or name the version to replay.",
    )


def _window(asked: Mapping[str, Any]) -> ReplayWindow:
    tolerance = asked.get("tolerance")
    return ReplayWindow(
        _moment(asked, "start"),
        _moment(asked, "end"),
        asked.get("limit"),
        DEFAULT_TOLERANCE if tolerance is None else float(tolerance),
        bool(asked.get("failed")),
        asked.get("inputs") is not False,
    )


def _moment(asked: Mapping[str, Any], name: str) -> datetime:
    given = asked.get(name)
    try:
        moment = given if isinstance(given, datetime) else datetime.fromisoformat(str(given))
    except ValueError:
        raise BadInput(f"The replay's '{name}' is no time.", "Send ISO-8601 with an offset from UTC.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
