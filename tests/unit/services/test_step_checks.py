"""Steps of a pipeline as the control plane sees them: checked before anything starts, and handed on whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import definition
from step_builders import above, check

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import DeploymentSpec, parse_engine_config
from bettong.domain.logs import LogQuery, challengers_topic_of
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from platform_kit import Platform

    from bettong.domain.models import ModelVersion
    from bettong.domain.pipelines import PipelineVersion


def ref(model: ModelVersion) -> dict[str, str]:
    return {"name": model.name, "version": model.version, "sha": model.sha}


def stored(platform: Platform, workspace: int, *steps: dict[str, Any]) -> PipelineVersion:
    document = {"id": "rental", "steps": list(steps)}
    return platform.services.pipelines.create(platform.principal("bob"), "rental", workspace, document)


def deploy(platform: Platform, version: PipelineVersion, config: dict[str, Any] | None = None) -> None:
    bob = platform.principal("bob")
    platform.services.deployments.deploy(bob, "rental", config, pipeline_version_id=version.id)


@pytest.fixture
def models(platform: Platform) -> list[ModelVersion]:
    """Two versions of one model, and one of another, in bob's first workspace."""
    workspace = platform.workspace("bob")
    return [platform.model("bob", workspace, name) for name in ("forecast", "forecast", "other")]


def test_an_engine_gets_the_steps_and_each_model_once(platform: Platform, models: list[ModelVersion]) -> None:
    one, two, _ = models
    weights = [{"model": ref(two), "weight": 1}, {"model": ref(one), "weight": 2}]
    split = {"RandomSplit": {"hash_key": "session", "weights": weights}}
    total = {"Function": {"input": [{"Column": "out.forecast"}], "function": {"ListExpr": "Sum"}}}
    marks = check(long={"BinaryExpr": {"left": total, "op": "Gt", "right": {"Literal": {"Int32": 5}}}})
    version = stored(platform, one.workspace_id, split, marks)

    deploy(platform, version, {"engine": {"shadow_wait": False}})

    (spec,) = platform.runtime.deployed
    assert spec.steps == (split, marks)
    assert [model.version for model in spec.models] == [two.version, one.version]
    assert spec.shadow_waits is False
    assert DeploymentSpec.from_json(spec.to_json()) == spec
    facts = platform.services.pipelines.named(platform.principal("bob"), "rental", one.workspace_id)
    assert facts.deployed_steps == ("forecast",), "a table shows the first model of each step"
    assert facts.deployment is not None
    assert [model.uid for model in facts.deployment.models] == [two.uid, one.uid]
    assert facts.deployment.in_use == {one.version, two.version}


@pytest.mark.parametrize("kind", ["RandomSplit", "MetaValueSplit", "RowsToModels", "ModelInference"])
def test_every_model_that_a_step_names_must_be_there(platform: Platform, models: list[ModelVersion], kind: str) -> None:
    one, ghost = ref(models[0]), {**ref(models[1]), "version": "00000000-0000-4000-8000-000000000000"}
    bodies: dict[str, dict[str, Any]] = {
        "RandomSplit": {"hash_key": None, "weights": [{"model": m, "weight": 1} for m in (one, ghost)]},
        "MetaValueSplit": {"split_key": "k", "control": one, "routes": {"a": ghost}},
        "RowsToModels": {"rows_to_models": [{"row_index": at, "model": m} for at, m in enumerate((one, ghost))]},
        "ModelInference": {"models": [one, ghost]},
    }

    with pytest.raises(BadInput, match="step 0 names a version of model 'forecast' that is not there"):
        stored(platform, models[0].workspace_id, {kind: bodies[kind]})


def test_steps_that_do_not_fit_are_refused_and_what_runs_goes_on(
    platform: Platform, models: list[ModelVersion]
) -> None:
    one, _, other = models
    fine = platform.pipeline("bob", one.workspace_id, one)
    deploy(platform, fine)
    chain = stored(platform, one.workspace_id, *definition("rental", one, other)["steps"])
    looks = stored(platform, one.workspace_id, *definition("rental", one)["steps"], check(odd=above("out.gone", 1)))

    for version, words in (
        (chain, r"Step 2 of pipeline 'rental', model 'other' takes the column 'count', which the step before"),
        (looks, r"'odd' looks at the column 'out\.gone', which is not there"),
    ):
        with pytest.raises(BadInput, match=words):
            deploy(platform, version)

    (row,) = platform.services.deployments.all(platform.principal("bob"))
    assert (len(platform.runtime.deployed), row.deployment.pipeline_version_id) == (1, fine.id)
    assert (row.deployment.deployed, row.deployment.generation) == (True, 1)


def test_steps_without_a_model_are_kept_and_not_deployed(platform: Platform, models: list[ModelVersion]) -> None:
    version = stored(platform, models[0].workspace_id, check(odd=above("in.x", 1)))

    with pytest.raises(BadInput, match="'rental' has no step with a model"):
        deploy(platform, version)


def test_a_model_that_gathers_requests_stands_alone_also_where_it_would_stand_twice(
    platform: Platform, models: list[ModelVersion]
) -> None:
    one = models[0]
    platform.services.models.configure(platform.principal("bob"), one.id, dynamic_batching=DynamicBatching())
    twice = stored(platform, one.workspace_id, {"ModelInference": {"models": [ref(one), ref(one)]}})

    with pytest.raises(BadInput, match=r"gathers requests .* this one has 2"):
        deploy(platform, twice)


@pytest.mark.parametrize("wait", ["no", 0, None])
def test_whether_answers_wait_is_yes_or_no(wait: object) -> None:
    assert parse_engine_config({}).shadow_waits is True
    with pytest.raises(BadInput, match="'shadow_wait' that is not true or false"):
        parse_engine_config({"engine": {"shadow_wait": wait}})


def test_the_log_of_late_challengers_is_for_those_who_may_see_the_pipeline(
    platform: Platform, models: list[ModelVersion]
) -> None:
    platform.pipeline("bob", models[0].workspace_id, models[0])
    topic = challengers_topic_of(models[0].workspace_id, "rental")

    assert platform.services.logs.page(platform.principal("bob"), LogQuery(topic)).table.num_rows == 0
    for who, name in (("eve", topic), ("bob", challengers_topic_of(models[0].workspace_id, "nothing"))):
        with pytest.raises(NotFound):
            platform.services.logs.page(platform.principal(who), LogQuery(name))
