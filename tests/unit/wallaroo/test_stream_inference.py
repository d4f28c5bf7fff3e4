"""What a notebook sends to have a topic answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.wallaroo.stub import UUIDS, StubPlatform, error

from wallaroo.connection import Connection
from wallaroo.object import RequestRefused

if TYPE_CHECKING:
    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

MAKE = "/v1/api/jobs/infer_stream"


@pytest.fixture
def broker(client: Client) -> Connection:
    return Connection(client, {"id": UUIDS[1], "name": "broker", "type": "KAFKA"})


def asked(platform: StubPlatform, pipeline: Pipeline, **call: Any) -> Any:
    platform.on(MAKE, {"job": {"id": "a1-b2", "state": "pending"}})

    job = pipeline.infer_stream(**call)

    assert job.id() == "a1-b2"
    return platform.calls(MAKE)[-1].json


def test_what_is_not_said_is_left_to_the_platform(
    platform: StubPlatform, pipeline: Pipeline, broker: Connection
) -> None:
    sent = asked(platform, pipeline, source=broker, topic="orders", sink=broker, into="predictions")

    assert sent == {
        "pipeline_id": pipeline.id(),
        "source": {"connection_id": UUIDS[1], "topic": "orders"},
        "sink": {"connection_id": UUIDS[1], "into": "predictions"},
        "keep": [],
    }


def test_all_that_can_be_said_is_sent(
    platform: StubPlatform, pipeline: Pipeline, broker: Connection, warehouse: Connection
) -> None:
    sent = asked(
        platform,
        pipeline,
        source=broker,
        topic="orders",
        sink=warehouse,
        into="predictions",
        group="g",
        dead_letter="orders-failed",
        keep=("id",),
        mode="upsert",
        max_messages=10,
        max_rejects=0,
        stop_when_idle_s=2.5,
        version="v-1",
    )

    assert sent["source"] == {"connection_id": UUIDS[1], "topic": "orders", "group": "g"}
    assert sent["sink"] == {"connection_id": UUIDS[2], "into": "predictions", "mode": "upsert"}
    assert sent["dead_letter"] == {"connection_id": UUIDS[1], "topic": "orders-failed"}
    told = {
        name: sent[name] for name in ("keep", "max_messages", "max_rejects", "stop_when_idle_s", "pipeline_version")
    }
    assert told == {
        "keep": ["id"],
        "max_messages": 10,
        "max_rejects": 0,
        "stop_when_idle_s": 2.5,
        "pipeline_version": "v-1",
    }


def test_dead_letters_may_go_to_another_broker(
    platform: StubPlatform, pipeline: Pipeline, broker: Connection, warehouse: Connection
) -> None:
    call: dict[str, Any] = {"source": broker, "topic": "orders", "sink": broker, "into": "predictions"}

    sent = asked(platform, pipeline, **call, dead_letter=(warehouse, "failed"))

    assert sent["dead_letter"] == {"connection_id": UUIDS[2], "topic": "failed"}


def test_mistakes_of_the_caller_are_told_at_once(pipeline: Pipeline, broker: Connection) -> None:
    call: dict[str, Any] = {"topic": "orders", "sink": broker, "into": "predictions"}

    with pytest.raises(TypeError, match=r"keep=\['id'\]"):
        pipeline.infer_stream(source=broker, **call, keep="id")
    with pytest.raises(TypeError, match=r"source is of type str\. Pass a connection"):
        pipeline.infer_stream(source="broker", **call)  # type: ignore[arg-type]


def test_a_refusal_says_what_was_refused(platform: StubPlatform, pipeline: Pipeline, broker: Connection) -> None:
    platform.on(MAKE, error(400, "The source cannot consume."))

    with pytest.raises(RequestRefused, match=r"^Failed to start the stream inference: The source cannot consume\.$"):
        pipeline.infer_stream(broker, "orders", broker, "predictions")
