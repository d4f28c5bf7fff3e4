"""Editing steps, storing versions, deploying and waiting for the truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from unit.wallaroo.stub import (
    UUIDS,
    FakeClock,
    Reply,
    StubPlatform,
    definition,
    deployment,
    error,
    fetched_version,
    model_entry,
    model_version,
    pipeline_entry,
    pipeline_version,
    status,
)

from wallaroo import model_version as versions
from wallaroo._wait import LONG_S, Screen
from wallaroo.object import DeploymentError, EntityNotFoundError, InvalidAccelerationError, WaitForDeployError

if TYPE_CHECKING:
    from wallaroo import Client
    from wallaroo.model_version import ModelVersion
    from wallaroo.pipeline import Pipeline

BY_NAME = "/v1/api/pipelines/get_pipeline_by_name"
CREATE = "/v1/api/pipelines/create"
DEPLOY = "/v1/api/pipelines/deploy"
STATUS = "/v1/api/status/get_deployment"
LISTED = "/v1/api/pipelines/list_pipeline_versions"
STARTED = {"id": 5, "generation": 2, "pipeline_version": UUIDS[3]}


@pytest.fixture
def model(client: Client, platform: StubPlatform) -> ModelVersion:
    platform.on("/v1/api/models/get_version_by_id", fetched_version())
    return versions.by_id(client, 6)


@pytest.fixture
def deployable(pipeline: Pipeline, platform: StubPlatform) -> Pipeline:
    platform.on(CREATE, {"pipeline_pk_id": 4, "pipeline_variant_pk_id": 33, "pipeline_variant_version": UUIDS[3]})
    platform.on(DEPLOY, STARTED)
    platform.on(STATUS, status(generation=2))
    return pipeline


def test_deploy_stores_a_version_of_the_local_steps_and_deploys_that(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion, capsys: pytest.CaptureFixture[str]
) -> None:
    deployable.clear().add_model_step(model).deploy(deployment_config={"engine": {"cpu": 0.5}})

    assert platform.calls(CREATE)[0].json["definition"] == definition("control")
    assert platform.calls(DEPLOY)[0].json == {
        "deploy_id": "rental",
        "engine_config": {"engine": {"cpu": 0.5, "arch": "x86", "accel": "none"}, "workspace_id": 8},
        "pipeline_id": 4,
        "pipeline_version_pk_id": 33,
        "model_ids": [6],
    }
    assert capsys.readouterr().out == " ok\n"


def test_deploy_waits_for_the_new_generation_although_the_old_one_is_running_all_along(
    deployable: Pipeline,
    platform: StubPlatform,
    model: ModelVersion,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, rolling = status(generation=1), status(generation=2, serving=False)
    platform.on(STATUS, old, rolling, *[rolling] * 9, status(generation=2))

    deployable.add_model_step(model).deploy()

    assert len(platform.calls(STATUS)) == 12
    seconds = int(sum(clock.slept))
    assert seconds >= 2
    expected = "Waiting for deployment - this will take up to 45s " + "." * seconds + " ok\n"
    assert capsys.readouterr().out == expected
    assert clock.slept[0] == 0.05
    assert max(clock.slept) <= 1.0


def test_a_version_that_cannot_come_up_is_told_early_and_the_old_one_keeps_serving(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    platform.on(STATUS, status(generation=2, serving=False, error="step.py raises NameError."))

    with pytest.raises(WaitForDeployError, match=r"raises NameError\..*keeps serving") as caught:
        deployable.add_model_step(model).deploy()

    assert len(platform.calls(STATUS)) == 3
    assert caught.value.status is not None
    assert caught.value.status["target"]["error"] == "step.py raises NameError."


def test_an_error_that_is_gone_at_the_next_look_was_none(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    broken, fine = status(generation=2, serving=False, error="x"), status(generation=2, serving=False)
    platform.on(STATUS, broken, broken, fine, broken, status(generation=2))
    deployable.add_model_step(model).deploy()


def test_a_first_deployment_may_show_an_error_and_still_come_up(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    platform.on(DEPLOY, {**STARTED, "generation": 1})
    platform.on(STATUS, *[status("Error", serving=False, error="x")] * 6, status())
    deployable.add_model_step(model).deploy()


def test_a_deployment_that_never_comes_up_ends_with_the_real_limit_and_the_last_status(
    deployable: Pipeline,
    platform: StubPlatform,
    model: ModelVersion,
    clock: FakeClock,
    client: Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client.timeout = 7.0
    platform.on(STATUS, status("Starting", generation=2, serving=False))

    with pytest.raises(WaitForDeployError, match=r"See status for details\. It does not serve after 7 seconds"):
        deployable.add_model_step(model).deploy()

    assert sum(clock.slept) == pytest.approx(7.0)
    assert capsys.readouterr().out == "Waiting for deployment - this will take up to 7s .......\n"


def test_a_server_that_is_away_for_a_moment_does_not_end_the_wait(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    platform.on(STATUS, Reply(hang_up=True), error(500, "restarting"), error(404, "no"), status(generation=2))
    deployable.add_model_step(model).deploy()


def test_outside_a_notebook_deploy_prints_nothing(
    deployable: Pipeline, model: ModelVersion, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client._screen = Screen(shown=False)
    deployable.add_model_step(model).deploy()
    assert capsys.readouterr().out == ""


def test_a_long_deploy_of_a_script_leaves_two_lines_on_stderr(
    deployable: Pipeline,
    platform: StubPlatform,
    model: ModelVersion,
    client: Client,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client._screen = Screen(shown=False, logged=True)
    platform.on(STATUS, *[status(generation=2, serving=False)] * 20, status(generation=2))

    deployable.add_model_step(model).deploy()

    written = capsys.readouterr()
    assert written.out == ""
    assert written.err == (
        "Deployment 'rental-5' is starting - this will take up to 45s.\n"
        f"Deployment 'rental-5' is running after {sum(clock.slept):.0f} s.\n"
    )
    assert sum(clock.slept) > LONG_S


def test_a_quick_deploy_of_a_script_leaves_none(
    deployable: Pipeline,
    platform: StubPlatform,
    model: ModelVersion,
    client: Client,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
) -> None:
    client._screen = Screen(shown=False, logged=True)
    platform.on(STATUS, *[status(generation=2, serving=False)] * 9, status(generation=2))

    deployable.add_model_step(model).deploy()

    assert 1 < sum(clock.slept) < LONG_S
    written = capsys.readouterr()
    assert written.out + written.err == ""


def test_without_waiting_it_says_so(
    deployable: Pipeline, model: ModelVersion, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    deployable.add_model_step(model).deploy(wait_for_status=False)
    assert capsys.readouterr().out == "Deployment initiated for rental. Please check pipeline status.\n"
    assert platform.calls(STATUS) == []


def test_the_inference_after_a_deploy_opens_a_new_connection(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion, client: Client
) -> None:
    platform.on("/replica", [{"time": 1}])
    deployable.infer(pd.DataFrame({"a": [1]}))
    before = client._transport._inference._http

    deployable.add_model_step(model).deploy()

    assert before.is_closed
    deployable.infer(pd.DataFrame({"a": [1]}))


def test_deploy_without_local_steps_takes_those_of_the_newest_version_that_has_any(
    deployable: Pipeline, platform: StubPlatform
) -> None:
    stored = [pipeline_version(3), pipeline_version(2, "control"), pipeline_version(1, "challenger")]
    platform.on(LISTED, {"pipeline_versions": [pipeline_entry(pipeline_version=one) for one in stored]})
    platform.on("/v1/api/models/list_versions_for_model", {"models": [model_entry(model_version())]})

    assert deployable.steps() == []
    assert deployable.definition() == "[]"
    deployable.deploy()

    assert platform.calls(CREATE)[0].json["definition"] == definition("control")
    assert platform.calls("/v1/api/models/list_versions_for_model")[0].json == {
        "model_id": "control",
        "workspace_id": 8,
    }


def test_deploy_of_a_named_version_takes_its_steps(
    client: Client, deployable: Pipeline, platform: StubPlatform
) -> None:
    stored = [pipeline_version(2, "control"), pipeline_version(1, "challenger")]
    platform.on(LISTED, {"pipeline_versions": [pipeline_entry(pipeline_version=one) for one in stored]})
    entry = model_entry(model_version("challenger"), name="challenger")
    platform.on("/v1/api/models/list_versions_for_model", {"models": [entry]})

    client.get_pipeline("rental", version=UUIDS[1]).deploy()

    assert platform.calls(CREATE)[0].json["definition"] == definition("challenger")


def test_editing_steps_sends_nothing_and_bad_indexes_are_named(
    pipeline: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    asked = len(platform.asked)
    pipeline.add_model_step(model).replace_with_model_step(0, model).remove_step(0)
    assert pipeline.steps() == []
    assert len(platform.asked) == asked
    with pytest.raises(IndexError, match="Step index 0 out of bounds"):
        pipeline.remove_step(0)
    with pytest.raises(IndexError, match="Step index -1 out of bounds"):
        pipeline.replace_with_model_step(-1, model)
    with pytest.raises(TypeError, match="takes a ModelVersion"):
        pipeline.add_model_step("control")  # type: ignore[arg-type]


def test_a_refused_deploy_gives_the_servers_reason(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    platform.on(DEPLOY, error(400, "Model 'control' is not ready. Wait for it."))
    with pytest.raises(DeploymentError, match=r"Failed to deploy\. Model 'control' is not ready"):
        deployable.add_model_step(model).deploy()


def test_a_pair_that_does_not_exist_is_refused_before_a_version_is_made(
    deployable: Pipeline, platform: StubPlatform, model: ModelVersion
) -> None:
    config = {"engine": {"arch": "x86", "accel": "jetson"}}
    with pytest.raises(InvalidAccelerationError, match="'jetson' does not exist on architecture 'x86'"):
        deployable.add_model_step(model).deploy(deployment_config=config)
    assert platform.calls(CREATE) == []


def test_undeploy_waits_until_nothing_runs(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on("/v1/api/pipelines/undeploy", {})
    platform.on(STATUS, status(), error(404, "not deployed"))

    assert pipeline.undeploy() is pipeline

    assert platform.calls("/v1/api/pipelines/undeploy")[0].json == {"pipeline_id": 4}
    assert capsys.readouterr().out == "Waiting for undeployment - this will take up to 45s  ok\n"


def test_undeploy_of_a_pipeline_that_never_ran_is_harmless(
    pipeline: Pipeline, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(BY_NAME, pipeline_entry())
    platform.on("/v1/api/pipelines/undeploy", {})
    pipeline.undeploy()
    assert capsys.readouterr().out == ""


def test_status_and_url_of_a_pipeline_that_never_ran(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(BY_NAME, pipeline_entry())
    assert pipeline.status() == {"status": "Pipeline rental is not deployed"}
    with pytest.raises(RuntimeError, match="has not been deployed and has no url"):
        pipeline.url()


def test_status_and_url_of_a_running_one(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(STATUS, status())
    assert pipeline.status()["status"] == "Running"
    assert platform.calls(STATUS)[0].json == {"name": "rental-5"}
    assert pipeline.url() == f"{platform.url}/replica"
    platform.on(STATUS, error(404, "gone"))
    assert pipeline.status() == {"status": "Pipeline rental is not deployed"}


def test_build_pipeline_adds_an_empty_version_to_an_existing_one(
    client: Client, deployable: Pipeline, platform: StubPlatform
) -> None:
    built = client.build_pipeline("rental")
    sent = {"pipeline_id": "rental", "workspace_id": 8, "definition": {"id": "rental", "steps": []}}
    assert platform.calls(CREATE)[0].json == sent
    assert built.steps() == []


@pytest.mark.parametrize(("name", "kind"), [("Rental", RuntimeError), ("rental_1", Exception), ("-a", Exception)])
def test_names_that_no_url_can_hold_are_refused_before_anything_is_sent(
    client: Client, platform: StubPlatform, name: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match=name):
        client.build_pipeline(name)
    assert platform.calls(CREATE) == []


def test_look_ups_that_find_nothing_say_what_notebooks_expect(
    client: Client, pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on(LISTED, {"pipeline_versions": []})
    platform.on("/v1/api/pipelines/list_pipelines", {"pipelines": []})
    with pytest.raises(EntityNotFoundError, match=f"Pipeline version {UUIDS[7]} not found in this workspace"):
        client.get_pipeline("rental", UUIDS[7])
    platform.on(BY_NAME, error(404, "no"))
    with pytest.raises(EntityNotFoundError, match="Pipeline rental not found in this workspace"):
        client.get_pipeline("rental")
    with pytest.raises(EntityNotFoundError, match="Pipeline not found"):
        client.pipelines_by_name("rental")


def test_the_pipelines_table_has_its_fields_in_order_and_the_deployed_steps(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    record = deployment(platform.url, None)
    platform.on(BY_NAME, pipeline_entry(deployed=True, deployed_steps=["control"], deployment=record, arch="<b>"))

    table = pipeline._repr_html_()

    rows: dict[str, Any] = {
        "name": "rental",
        "created": "2024-10-29 20:52:00.744998+00:00",
        "last_updated": "2024-10-29 21:36:20+00:00",
        "deployed": "True",
        "workspace_id": "8",
        "workspace_name": "forecast",
        "arch": "&lt;b&gt;",
        "accel": "none",
        "tags": "",
        "versions": f"{UUIDS[2]}, {UUIDS[1]}",
        "steps": "control",
        "published": "False",
    }
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows.items())
    assert table == f"<table>{body}</table>"


def test_the_deployed_field_says_none_before_and_unknown_when_the_platform_is_silent(
    pipeline: Pipeline, platform: StubPlatform
) -> None:
    platform.on(BY_NAME, pipeline_entry())
    assert "<th>deployed</th><td>(none)</td>" in pipeline._repr_html_()
    platform.on(BY_NAME, error(500, "down"))
    assert "<th>deployed</th><td>(unknown)</td>" in pipeline._repr_html_()
    assert "deployed        (unknown)" in repr(pipeline)


def test_lists_show_dates_as_year_day_month_and_emptiness_in_words(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/pipelines/list_pipelines", {"pipelines": [pipeline_entry()]}, {"pipelines": []})

    listed, empty = client.list_pipelines(), client.list_pipelines()

    assert platform.calls("/v1/api/pipelines/list_pipelines")[0].json == {"workspace_id": None, "workspace_name": None}
    assert isinstance(listed, list)
    assert "<td>2024-29-Oct 20:52:00</td><td>2024-29-Oct 21:36:20</td><td>(none)</td>" in listed._repr_html_()
    assert empty._repr_html_() == repr(empty) == "(no pipelines)"


def test_pipeline_versions_show_their_own_table(pipeline: Pipeline, platform: StubPlatform) -> None:
    entry = pipeline_entry(pipeline_version=pipeline_version(1, "control", "post"))
    platform.on(LISTED, {"pipeline_versions": [entry]})

    listed = pipeline.versions()

    assert (
        listed[0]
        ._repr_html_()
        .startswith(f"<table><tr><th>name</th><td>rental</td></tr><tr><th>version</th><td>{UUIDS[1]}")
    )
    assert "<th>steps</th><td>control, post</td>" in listed[0]._repr_html_()
    assert "<td>8</td><td>forecast</td><td></td><td>control, post</td>" in listed._repr_html_()
    assert pipeline.get_pipeline_configuration(UUIDS[1]) == definition("control", "post")
