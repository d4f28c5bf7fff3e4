"""What a notebook sends to have a table answered into another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.wallaroo.stub import UUIDS, StubPlatform, error

from wallaroo.connection import Connection
from wallaroo.object import RequestRefused

if TYPE_CHECKING:
    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

MAKE = "/v1/api/jobs/infer_batch"


@pytest.fixture
def shop(client: Client) -> Connection:
    return Connection(client, {"id": UUIDS[1], "name": "shop", "type": "SQLITE"})


def asked(platform: StubPlatform, pipeline: Pipeline, **call: Any) -> Any:
    platform.on(MAKE, {"job": {"id": "a1-b2", "state": "pending"}})

    job = pipeline.infer_batch(**call)

    assert job.id() == "a1-b2"
    return platform.calls(MAKE)[-1].json


def test_little_has_to_be_said(
    platform: StubPlatform, pipeline: Pipeline, shop: Connection, warehouse: Connection
) -> None:
    sent = asked(platform, pipeline, source=shop, sink=warehouse, table="answers")

    assert sent == {
        "pipeline_id": pipeline.id(),
        "source": {"connection_id": UUIDS[1], "query": "", "parameters": []},
        "sink": {"connection_id": UUIDS[2], "table": "answers", "mode": "append"},
        "map": {},
        "keys": [],
        "lineage": False,
        "max_rejects": 1000,
    }


def test_all_that_can_be_said_is_sent(
    platform: StubPlatform, pipeline: Pipeline, shop: Connection, warehouse: Connection
) -> None:
    sent = asked(
        platform,
        pipeline,
        source=shop,
        query="select * from t where n > ?",
        parameters=(3,),
        sink=warehouse,
        table="answers",
        mode="upsert",
        map={"tensor": ("a", "b"), "n": "m"},
        keys=("id",),
        outputs={"week": "forecast[0]"},
        lineage=True,
        max_rejects=0.05,
        version=UUIDS[3],
    )

    assert sent == {
        "pipeline_id": pipeline.id(),
        "pipeline_version": UUIDS[3],
        "source": {"connection_id": UUIDS[1], "query": "select * from t where n > ?", "parameters": [3]},
        "sink": {"connection_id": UUIDS[2], "table": "answers", "mode": "upsert"},
        "map": {"tensor": ["a", "b"], "n": "m"},
        "keys": ["id"],
        "outputs": {"week": "forecast[0]"},
        "lineage": True,
        "max_rejects": 0.05,
    }


def test_a_text_for_a_list_and_a_name_for_a_connection_are_caught_here(pipeline: Pipeline, shop: Connection) -> None:
    with pytest.raises(TypeError, match=r"keys is a text. Pass a list: keys=\['id'\]"):
        pipeline.infer_batch(source=shop, sink=shop, table="t", keys="id")
    with pytest.raises(TypeError, match=r"map is of type list\. Pass a dict"):
        pipeline.infer_batch(source=shop, query="daily", sink=shop, table="t", map=["count"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="sink is of type str"):
        pipeline.infer_batch(source=shop, sink="warehouse", table="t")  # type: ignore[arg-type]


def test_a_refusal_comes_in_the_platforms_words(platform: StubPlatform, pipeline: Pipeline, shop: Connection) -> None:
    platform.on(MAKE, error(400, "The map names 'cuont'."))

    with pytest.raises(RequestRefused) as refused:
        pipeline.infer_batch(source=shop, sink=shop, table="t")

    assert str(refused.value) == "Failed to start the batch inference: The map names 'cuont'."
