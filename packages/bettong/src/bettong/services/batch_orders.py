"""Batch inferences as people ask for them: what the version takes and gives, and what can be promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.domain.batch_requests import Columns, guarantee, parse
from bettong.domain.drivers import Capability, WriteMode
from bettong.domain.steps import looks_at_whole_requests, parse_steps
from bettong.engine.answer import AnswerShape, Origin
from bettong.services.job_orders import Order

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.services.job_orders import Ground


def batch_order(asked: Mapping[str, Any], ground: Ground) -> Order:
    """What a batch inference keeps: what was asked, and all that the job needs to know of the version.

    Raises:
        BadInput: a connection lacks what is needed, the version's steps do not fit, the pipeline has no such column, or
            the request is otherwise none that can be done.
    """
    ground.require("source", Capability.READ)
    ground.require("sink", Capability.WRITE)
    plan = ground.specs.check(ground.pipeline.name, ground.version, {})
    answers = AnswerShape(plan.inputs, plan.outputs, Origin("", "", ""), 0, None if plan.chain else plan)
    by_request = looks_at_whole_requests(parse_steps(ground.version.definition))
    named = {"pipeline_id": ground.pipeline.id, "pipeline_version": ground.version.version}
    request = parse({**asked, **named}, Columns(plan.inputs, plan.keys, answers.schema, by_request))
    source, sink = ground.drivers["source"], ground.drivers["sink"]
    if request.mode is WriteMode.UPSERT:
        ground.require("sink", Capability.UPSERT)
    transactional = Capability.TRANSACTION in sink.capabilities
    promised = guarantee(source.read_order, transactional, request.mode, request.keys)
    return Order(request.to_document(), promised.words)
