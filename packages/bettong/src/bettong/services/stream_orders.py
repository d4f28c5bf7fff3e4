"""Stream inferences as people ask for them: what the version takes and gives, and what the connections can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.domain.batch_requests import Columns
from bettong.domain.drivers import Capability
from bettong.domain.steps import looks_at_whole_requests, parse_steps
from bettong.domain.stream_requests import TableEnd, default_group, parse, settled
from bettong.engine.answer import AnswerShape, Origin
from bettong.errors import BadInput
from bettong.services.job_orders import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bettong.domain.jobs import Job
    from bettong.services.job_orders import Ground

_MOST_NAMED = 3  # of other streams


def stream_order(asked: Mapping[str, Any], ground: Ground) -> Order:
    """What a stream inference keeps: what was asked, and all that the job needs to know of the version.

    Raises:
        BadInput: a connection cannot do its part, the version's steps do not fit, or the request is otherwise none that
            can be done.
    """
    ground.require("source", Capability.CONSUME)
    plan = ground.specs.check(ground.pipeline.name, ground.version, {})
    answers = AnswerShape(plan.inputs, plan.outputs, Origin("", "", ""), 0, None if plan.chain else plan)
    by_request = looks_at_whole_requests(parse_steps(ground.version.definition))
    columns = Columns(plan.inputs, plan.keys, answers.schema, by_request)
    named = {"pipeline_id": ground.pipeline.id, "pipeline_version": ground.version.version}
    able = ground.drivers["sink"].capabilities if "sink" in ground.drivers else frozenset()
    group = default_group(ground.pipeline.workspace_id, ground.pipeline.name)
    request = parse({**settled(asked, able), **named}, columns, group)
    if not isinstance(request.sink, TableEnd):
        ground.require("sink", Capability.PRODUCE)
    elif Capability.TRANSACTION not in able:
        kind = ground.drivers["sink"].types[0]
        raise BadInput(
            f"The sink is a connection of type {kind}, which takes no messages and keeps no rows in transactions.",
            "Name a broker with a topic, or a database with a table.",
        )
    if request.dead_letter is not None:
        ground.require("dead_letter", Capability.PRODUCE)
    return Order(request.to_document(), request.guarantee)


def shared_with(source: Mapping[str, Any], others: Iterable[Job]) -> str:
    """What to tell whoever starts a stream of a topic that other streams answer as the same group; "" where none does.

    Args:
        source: of the request that its job keeps.
    """
    same = [
        other
        for other in others
        if all(other.request["source"].get(name) == source[name] for name in ("connection_id", "topic", "group"))
    ]
    if not same:
        return ""
    known = ", ".join(f"{other.id[:8]} of pipeline '{other.request['pipeline_name']}'" for other in same[:_MOST_NAMED])
    more = f" and {len(same) - _MOST_NAMED} more" if len(same) > _MOST_NAMED else ""
    return (
        f"Topic '{source['topic']}' is answered as group '{source['group']}' by another stream already: {known}{more}. "
        "Each message goes to one of them alone. Leave it so to share the work; to answer all messages here, cancel "
        'this job and start it with a group of its own, group="…" (with RabbitMQ: a queue).'
    )
