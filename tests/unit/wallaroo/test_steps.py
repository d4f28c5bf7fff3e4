"""Editing steps: their documents, their short names, and what is refused before anything is sent."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest
from unit.wallaroo.stub import UUIDS, Reply, StubPlatform, model_version, pipeline_entry, pipeline_version

from wallaroo._expressions import in_dialect, translate
from wallaroo.deployment_config import DeploymentConfigBuilder
from wallaroo.inference import table_to_ipc
from wallaroo.model_version import ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable

    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

AB = "ab" * 32


def ref(name: str, id: int) -> dict[str, str]:
    return {"name": name, "version": UUIDS[id], "sha": AB}


M1, M2, M3 = (ref(name, id) for name, id in (("one", 1), ("two", 2), ("three", 3)))


@pytest.fixture
def models(client: Client) -> list[ModelVersion]:
    return [
        ModelVersion(client, {**model_version(name, id), "file_info": {"version": UUIDS[id], "sha": AB}})
        for name, id in (("one", 1), ("two", 2), ("three", 3))
    ]


def documents(pipeline: Pipeline) -> Any:
    return json.loads(pipeline.definition())


def test_each_builder_makes_exactly_the_document_of_the_reference(
    pipeline: Pipeline, models: list[ModelVersion]
) -> None:
    one, two, three = models

    pipeline.add_model_step(one)
    pipeline.add_multi_model_step([one, two])
    pipeline.add_random_split([(2, one), (1, two)], hash_key="session_id")
    pipeline.add_random_split([(2.5, one), (1, two)])
    pipeline.add_key_split(one, "card_type", {"gold": two, "silver": three})
    pipeline.add_shadow_deploy(one, [two, three])
    pipeline.add_audit(":2").add_audit("1:3").add_select(1)

    assert documents(pipeline) == [
        {"ModelInference": {"models": [M1]}},
        {"ModelInference": {"models": [M1, M2]}},
        {
            "RandomSplit": {
                "hash_key": "session_id",
                "weights": [{"model": M1, "weight": 2}, {"model": M2, "weight": 1}],
            }
        },
        {"RandomSplit": {"hash_key": None, "weights": [{"model": M1, "weight": 2.5}, {"model": M2, "weight": 1}]}},
        {"MetaValueSplit": {"split_key": "card_type", "control": M1, "routes": {"gold": M2, "silver": M3}}},
        {"ModelInference": {"models": [M1, M2, M3]}},
        {"AuditResults": {"from": 1, "to": None}},
        {"MultiOut": {}},
        {"AuditResults": {"from": 0, "to": 2}},
        {"AuditResults": {"from": 1, "to": 3}},
        {"Nth": {"index": 1}},
    ]
    assert pipeline.definition().count('"model": {"name": "one"') == 2, "the model stands before its weight"
    assert [str(step) for step in pipeline.steps()] == [
        "one", "one,two", "RandomSplit", "RandomSplit", "Key Split [card_type]", "one,two,three", "Audit [1:None]",
        "MultiOut", "Audit [0:2]", "Audit [1:3]", "Select [1]",
    ]  # fmt: skip
    assert repr(pipeline.steps()[-1]) == "{'Nth': {'index': 1}}"


def test_validations_are_texts_of_the_dialect_named_by_their_keyword(pipeline: Pipeline) -> None:
    pipeline.add_validations(
        too_high=pl.col("out.variable").list.get(0) > 1_500_000, self=pl.col("out.b"), index=pl.col("out.c")
    )

    (step,) = documents(pipeline)
    first, *rest = [json.loads(text) for text in step["Check"]["tree"]]
    assert first == {
        "Alias": [
            {
                "BinaryExpr": {
                    "left": {
                        "Function": {
                            "input": [{"Column": "out.variable"}, {"Literal": {"Int32": 0}}],
                            "function": {"ListExpr": "Get"},
                            "options": {},
                        }
                    },
                    "op": "Gt",
                    "right": {"Literal": {"Int32": 1500000}},
                }
            },
            "too_high",
        ]
    }
    assert rest == [{"Alias": [{"Column": "out.b"}, "self"]}, {"Alias": [{"Column": "out.c"}, "index"]}]
    assert str(pipeline.steps()[0]) == "Check"
    pipeline.add_validations(more=pl.col("out.b"))
    assert len(documents(pipeline)) == 2, "each call is a step"


def test_a_validation_called_count_is_left_out_with_a_warning(pipeline: Pipeline) -> None:
    with pytest.warns(UserWarning, match="'count' is left out"):
        pipeline.add_validations(count=pl.col("out.a"), fine=pl.col("out.b"))
    assert [json.loads(t)["Alias"][1] for t in documents(pipeline)[0]["Check"]["tree"]] == ["fine"]

    with pytest.warns(UserWarning, match="'count' is left out"):
        pipeline.clear().add_validations(count=pl.col("out.a"))
    assert documents(pipeline) == []


def test_steps_are_replaced_in_place_and_a_shadow_brings_three(pipeline: Pipeline, models: list[ModelVersion]) -> None:
    one, two, three = models
    pipeline.add_model_step(one).add_model_step(two)

    pipeline.replace_with_shadow_deploy(0, two, [three])
    assert [str(step) for step in pipeline.steps()] == ["two,three", "Audit [1:None]", "MultiOut", "two"]
    for _ in range(3):
        pipeline.remove_step(0)
    edits: list[tuple[str, Callable[[], Pipeline]]] = [
        ("one", lambda: pipeline.replace_with_model_step(0, one)),
        ("one,three", lambda: pipeline.replace_with_multi_model_step(0, [one, three])),
        ("RandomSplit", lambda: pipeline.replace_with_random_split(0, [(1, one)])),
        ("Key Split [k]", lambda: pipeline.replace_with_key_split(0, one, "k", {})),
        ("Audit [0:1]", lambda: pipeline.replace_with_audit(0, ":1")),
        ("Select [2]", lambda: pipeline.replace_with_select(0, 2)),
        ("MultiOut", lambda: pipeline.replace_with_multi_out(0)),
        ("Check", lambda: pipeline.replace_with_validations(0, odd=pl.col("out.a"))),
    ]
    for name, edit in edits:
        assert edit() is pipeline
        assert [str(step) for step in pipeline.steps()] == [name]


def test_an_index_that_no_step_has_is_an_error_and_changes_nothing(
    pipeline: Pipeline, models: list[ModelVersion]
) -> None:
    one = models[0]
    pipeline.add_model_step(one)
    edits: list[Callable[[int], Pipeline]] = [
        pipeline.remove_step,
        lambda at: pipeline.replace_with_model_step(at, one),
        lambda at: pipeline.replace_with_shadow_deploy(at, one, [one]),
        lambda at: pipeline.replace_with_select(at, 0),
        lambda at: pipeline.replace_with_validations(at, odd=pl.col("out.a")),
    ]
    for edit in edits:
        for index in (1, -1, 7):
            with pytest.raises(IndexError, match=f"^Step index {index} out of bounds$"):
                edit(index)
    assert len(pipeline.steps()) == 1


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (lambda p, m: p.add_model_step("one"), TypeError, "takes a ModelVersion, not a str"),
        (lambda p, m: p.add_multi_model_step([]), ValueError, "at least one model version"),
        (lambda p, m: p.add_random_split([(m[0], 2)]), TypeError, "the weight before the model"),
        (lambda p, m: p.add_random_split([(-1, m[0])]), ValueError, "0 or more"),
        (lambda p, m: p.add_random_split([(0, m[0])]), ValueError, "at least one weight above 0"),
        (lambda p, m: p.add_random_split([m[0]]), TypeError, "pairs of a weight and a model version"),
        (lambda p, m: p.add_random_split([(1, m[0])], hash_key=7), TypeError, "hash_key is a int"),
        (lambda p, m: p.add_key_split(m[0], "k", {"gold": "two"}), TypeError, "takes a ModelVersion, not a str"),
        (lambda p, m: p.add_key_split(m[0], 7, {}), TypeError, "meta_key is a int"),
        (lambda p, m: p.add_shadow_deploy(m[0], m[1]), ValueError, "list of at least one challenger"),
        (lambda p, m: p.add_shadow_deploy(m[0], []), ValueError, "list of at least one challenger"),
        (lambda p, m: p.add_audit("first"), ValueError, "'first' is no slice"),
        (lambda p, m: p.add_audit("2:1"), ValueError, "has nothing in it"),
        (lambda p, m: p.add_select(-1), ValueError, "position of a model"),
        (lambda p, m: p.add_validations(), ValueError, "No validation is given"),
        (lambda p, m: p.add_validations(odd=True), TypeError, "'odd' is a bool, not a polars expression"),
        (
            lambda p, m: p.add_validations(odd=pl.col("out.a") == float("nan")),
            ValueError,
            r"'odd' uses NaN or an infinity as a value; use is_nan\(\)",
        ),
        (
            lambda p, m: p.add_validations(odd=pl.col("out.a").map_batches(lambda s: s)),
            ValueError,
            "'odd' has a part that the installed polars cannot write down",
        ),
    ],
)
def test_what_makes_no_step_is_told_at_once(
    pipeline: Pipeline, models: list[ModelVersion], edit: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        edit(pipeline, models)
    assert pipeline.steps() == []


def test_what_this_does_not_know_goes_over_as_it_is_for_the_platform_to_name() -> None:
    text = translate("odd", pl.col("out.a").sum().over("in.b") > 1)

    assert '"Over"' in text
    assert json.loads(in_dialect("odd", '{"Novelty":{"of":[{"Column":"a"}]}}')) == {
        "Alias": [{"Novelty": {"of": [{"Column": "a"}]}}, "odd"]
    }


def test_stored_steps_of_every_kind_come_back_as_they_were(
    pipeline: Pipeline, platform: StubPlatform, models: list[ModelVersion]
) -> None:
    one, two, three = models
    pipeline.add_random_split([(2, one), (1, two)], "k").add_key_split(one, "c", {"gold": three})
    pipeline.add_shadow_deploy(one, [two]).add_select(0).add_validations(odd=pl.col("out.a"))
    before = documents(pipeline)
    rows = {"RowsToModels": {"rows_to_models": [{"row_index": 0, "model": M2}]}}
    stored = {**pipeline_version(3), "definition": {"id": "rental", "steps": [*before, rows, {"Average": {}}]}}
    platform.on(
        "/v1/api/pipelines/list_pipeline_versions",
        {"pipeline_versions": [pipeline_entry(pipeline_version=stored)]},
    )
    entries: list[dict[str, Any]] = [
        {
            "model": {
                "id": id,
                "name": name,
                "owner_id": "u",
                "workspace_id": 8,
                "created_at": None,
                "updated_at": None,
            },
            "model_versions": [
                {
                    "model_version": {
                        **model_version(name, id),
                        "file_info": {"version": UUIDS[id], "sha": AB, "file_name": "s.zip", "size": 1},
                    },
                    "config": None,
                }
            ],
            "workspace": {"id": 8, "name": "forecast"},
        }
        for name, id in (("one", 1), ("two", 2), ("three", 3))
    ]

    def of_name(asked: Any) -> Any:
        return Reply({"models": [e for e in entries if e["model"]["name"] == asked.json["model_id"]]})

    platform.on("/v1/api/models/list_versions_for_model", of_name)

    steps = pipeline.clear()._stored_steps()

    assert [step.to_json() for step in steps] == [*before, rows, {"Average": {}}]
    assert [version.name() for step in steps for version in step.models] == [
        "one", "two", "one", "three", "one", "two", "two",
    ]  # fmt: skip
    version = pipeline.versions()[0]
    assert version.models() == ["one", "two", "one", "three", "one", "two", "two"]
    assert dict(version._rows())["steps"] == "one, one, one, two"


def test_waiting_for_challengers_is_a_matter_of_the_deployment_config() -> None:
    assert DeploymentConfigBuilder().shadow_wait(False).build()["engine"] == {"shadow_wait": False}
    assert "shadow_wait" not in DeploymentConfigBuilder().build()["engine"]


def test_challengers_that_ran_later_are_read_from_a_topic_of_their_own(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    topic = "/v1/logs/topic/workspace-8-pipeline-rental-challengers/records"
    rows = pa.table({"out_two.y": [1.0]}).replace_schema_metadata({"status": '{"status": "All", "next": null}'})
    platform.on(topic, Reply(table_to_ipc(rows)))

    found = pipeline.challenger_logs(limit=3)

    assert found["out_two.y"].tolist() == [1.0]
    (asked,) = platform.calls(topic)
    assert ("page_size", "3") in asked.query
