"""What is wanted is started, watched and told truly."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import open_platform

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import DeploymentSpec, Observed, State, parse_engine_config
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.secrets.keyring import KeyRing

if TYPE_CHECKING:
    from pathlib import Path

    from platform_kit import Platform

    from bettong.domain.deployments import Deployment


def deployed(platform: Platform, config: dict[str, Any] | None = None) -> Deployment:
    """A deployment of bob's with one model."""
    workspace = platform.workspace("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    return deploy(platform, version.id, config)


def deploy(platform: Platform, version_id: int, config: dict[str, Any] | None = None) -> Deployment:
    row, _ = platform.services.deployments.deploy(
        platform.principal("bob"), "rental", config, pipeline_version_id=version_id
    )
    return row


def status(platform: Platform, row: Deployment) -> dict[str, Any]:
    return platform.services.deployments.status(platform.principal("bob"), row.label)


def with_secret(value: str, uid: str = "forecast-1") -> dict[str, Any]:
    return {"engineAux": {"images": {uid: {"env": [{"name": "API_KEY", "value": value}]}}}}


def test_variables_of_workers_are_sealed_where_they_are_kept_and_masked_where_they_are_shown(
    platform: Platform,
) -> None:
    row = deployed(platform, with_secret("hunter2"))

    (spec,) = platform.runtime.deployed
    shown = platform.services.deployments.get(platform.principal("bob"), row.id).deployment.engine_config
    assert spec.models[0].env == {"API_KEY": "hunter2"}
    assert shown == with_secret("*****")
    assert "hunter2" not in str(platform.stores.deployments.get(row.id))
    assert [p for p in platform.home.rglob("*") if p.is_file() and b"hunter2" in p.read_bytes()] == []


def test_a_mask_stands_for_the_value_before_and_is_never_one(platform: Platform) -> None:
    row = deployed(platform, with_secret("hunter2"))
    assert row.pipeline_version_id is not None

    shown = platform.services.deployments.get(platform.principal("bob"), row.id).deployment.engine_config
    deploy(platform, row.pipeline_version_id, shown)
    deploy(platform, row.pipeline_version_id, {})

    assert [spec.models[0].env for spec in platform.runtime.deployed] == [{"API_KEY": "hunter2"}] * 2 + [{}]
    with pytest.raises(BadInput, match=r"'API_KEY' to \*{5}, which stands for a hidden value"):
        deploy(platform, row.pipeline_version_id, with_secret("*****"))
    assert len(platform.runtime.deployed) == 3


def test_without_its_key_a_deployment_says_why_it_does_not_start(tmp_path: Path) -> None:
    with open_platform(tmp_path) as before:
        row = deployed(before, with_secret("hunter2"))

    with open_platform(tmp_path, keyring=KeyRing([b"k" * 32])) as after:
        started = after.services.deployments.watch()
        told = after.services.deployments.status(after.principal("ann"), row.label)

    assert started == []
    assert "key" in told["target"]["error"]


def test_an_engine_is_told_everything_it_needs(platform: Platform) -> None:
    env = [{"name": "OPENBLAS_NUM_THREADS", "value": "1"}]
    config = {
        "engine": {"replicas": 2, "cpu": 0.5, "python": {"load_timeout_millis": 30_000}},
        "engineAux": {"images": {"forecast-1": {"env": env}}},
        "workspace_id": 999,
    }
    row = deployed(platform, config)

    (spec,) = platform.runtime.deployed
    (model,) = spec.models
    assert (spec.label, spec.generation, spec.replicas, spec.cpus) == (row.label, 1, 2, 0.5)
    assert (spec.workspace_id, spec.workspace_name) == (row.workspace_id, "forecasts")
    assert spec.topic == f"workspace-{row.workspace_id}-pipeline-rental-inference"
    assert spec.public_key == platform.signer.public_key
    assert (model.uid, model.env, model.load_timeout_s) == ("forecast-1", {"OPENBLAS_NUM_THREADS": "1"}, 30.0)
    assert model.folder.endswith(f"models/{model.sha}")
    assert model.environment.endswith("environments/e1")
    assert DeploymentSpec.from_json(spec.to_json()) == spec


def test_an_engine_runs_a_native_model_itself_without_an_environment_or_a_sidekick(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    model = platform.native_model("bob", workspace)
    platform.services.models.configure(platform.principal("bob"), model.id, batch_config="single")
    version = platform.pipeline("bob", workspace, model)
    platform.runtime.change = lambda observed: replace(
        observed,
        replicas=tuple(
            replace(r, workers=tuple(replace(w, provider="CPUExecutionProvider") for w in r.workers))
            for r in observed.replicas
        ),
    )
    row = deploy(platform, version.id, {"engine": {"cpu": 2.5}})

    (spec,) = platform.runtime.deployed
    (told,) = spec.models
    assert (told.framework, told.environment, told.row_by_row) == ("onnx", "", True)
    assert (spec.cpus, spec.threads) == (2.5, 2)
    assert DeploymentSpec.from_json(spec.to_json()) == spec
    found = status(platform, row)
    assert (found["status"], found["sidekicks"]) == ("Running", [])
    (engine,) = found["engines"]
    (shown,) = engine["model_statuses"]["models"]
    assert (shown["status"], shown["execution_provider"]) == ("Running", "CPUExecutionProvider")


@pytest.mark.parametrize(("engine", "threads"), [({}, 1), ({"cpu": 0.5}, 1), ({"cpu": 3}, 3)])
def test_a_native_model_has_one_thread_unless_more_cpus_are_asked_for(engine: dict[str, Any], threads: int) -> None:
    assert parse_engine_config({"engine": engine}).threads == threads


def test_requests_are_gathered_for_the_only_model_of_a_pipeline_and_for_no_other(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    model, other = platform.model("bob", workspace), platform.model("bob", workspace, "other")
    batching = DynamicBatching(5, 8, 32)
    platform.services.models.configure(platform.principal("bob"), model.id, dynamic_batching=batching)

    deploy(platform, platform.pipeline("bob", workspace, model).id)
    (spec,) = platform.runtime.deployed
    assert spec.models[0].batching == batching
    with pytest.raises(BadInput, match=r"'forecast-1' gathers requests .* only the one model .* this one has 2"):
        deploy(platform, platform.pipeline("bob", workspace, model, other).id)
    assert len(platform.runtime.deployed) == 1


@pytest.mark.parametrize(("cpu", "cpus"), [(None, 0), (0.5, 1), (2, 2), ("3.9", 3)])
def test_an_engine_is_told_the_whole_cpus_that_a_model_was_given(platform: Platform, cpu: object, cpus: int) -> None:
    limits = {} if cpu is None else {"cpu": cpu}
    deployed(platform, {"engineAux": {"images": {"forecast-1": {"resources": {"limits": limits}}}}})

    assert platform.runtime.deployed[0].models[0].cpus == cpus


@pytest.mark.parametrize("cpu", [0, -1, "many", True])
def test_cpus_of_a_model_that_are_none_are_refused(platform: Platform, cpu: object) -> None:
    with pytest.raises(BadInput, match="CPUs"):
        deployed(platform, {"engineAux": {"images": {"forecast-1": {"resources": {"limits": {"cpu": cpu}}}}}})


def test_a_redeploy_keeps_id_and_port_and_takes_the_newest_config_of_the_model(platform: Platform) -> None:
    first = deployed(platform)
    version = platform.pipeline("bob", first.workspace_id, platform.stores.models.version(1))
    platform.services.models.configure(platform.principal("bob"), 1, tensor_fields=("count",))

    second = deploy(platform, version.id)

    assert (second.id, second.label, second.generation) == (first.id, first.label, 2)
    assert platform.runtime.deployed[-1].port == first.port == 41_000


def test_running_means_that_all_of_the_wanted_generation_answers(platform: Platform) -> None:
    told = status(platform, deployed(platform, {"engine": {"replicas": 2}}))

    assert told["status"] == "Running"
    assert told["target"] == {
        "generation": 1,
        "pipeline_version": told["engines"][0]["pipeline_statuses"]["pipelines"][0]["version"],
        "serving": True,
        "error": None,
    }
    assert [e["labels"]["pid"] for e in told["engines"]] == ["500", "501"]
    assert told["engine_lbs"][0]["name"].endswith("-400")
    assert [s["name"] for s in told["sidekicks"]] == [f"engine-sidekick-forecast-1-{600 + n}" for n in range(2)]
    assert told["engines"][0]["model_statuses"]["models"][0]["name"] == "forecast"


def test_an_old_generation_serves_on_while_the_new_one_rolls_in_or_does_not_load(platform: Platform) -> None:
    row = deployed(platform)
    deploy(platform, platform.pipeline("bob", row.workspace_id, platform.stores.models.version(1)).id)

    def rolling(observed: Observed) -> Observed:
        old = tuple(replace(r, generation=1) for r in observed.replicas)
        return replace(observed, serving=1, target=2, error="Model 'forecast' did not load.", replicas=old)

    platform.runtime.change = rolling
    told = status(platform, row)

    assert told["status"] == "Running"
    assert (told["target"]["generation"], told["target"]["serving"]) == (2, False)
    assert told["target"]["error"] == "Model 'forecast' did not load."
    assert told["details"] == ["Model 'forecast' did not load."]


@pytest.mark.parametrize(
    ("state", "error", "top"),
    [(State.PENDING, None, "Starting"), (State.FAILED, None, "Error"), (State.PENDING, "it does not load", "Error")],
)
def test_a_first_generation_that_does_not_serve_yet_is_starting_or_in_error(
    platform: Platform, state: State, error: str | None, top: str
) -> None:
    row = deployed(platform)
    platform.runtime.change = lambda o: replace(
        o, serving=0, error=error, replicas=tuple(replace(r, state=state, reason="waiting") for r in o.replicas)
    )

    told = status(platform, row)

    assert (told["status"], told["target"]["serving"], told["target"]["error"]) == (top, False, error)
    assert told["engines"][0]["reason"] == "waiting"


def test_a_dead_worker_shows(platform: Platform) -> None:
    row = deployed(platform)
    platform.runtime.change = lambda o: replace(
        o,
        replicas=tuple(
            replace(r, workers=tuple(replace(w, state=State.FAILED, reason="killed by signal 9") for w in r.workers))
            for r in o.replicas
        ),
    )

    told = status(platform, row)

    assert (told["status"], told["target"]["serving"]) == ("Starting", False)
    assert (told["sidekicks"][0]["status"], told["sidekicks"][0]["reason"]) == ("Failed", "killed by signal 9")
    assert told["engines"][0]["model_statuses"]["models"][0]["status"] == "Error"


def test_rows_missing_in_a_log_show_in_its_status_and_in_the_platforms(platform: Platform) -> None:
    row = deployed(platform)
    problem = "The disk of the inference log was full for a while: 7 answered rows are not in the log."
    platform.runtime.change = lambda o: replace(
        o, replicas=tuple(replace(r, log_problem=problem) for r in o.replicas[:1]) + o.replicas[1:]
    )

    told = status(platform, row)
    platform.services.deployments.watch()

    assert told["status"] == "Running"
    assert told["details"] == [f"engine-{row.label}-0: {problem}"]
    assert platform.services.deployments.log_problems() == [f"{row.label}: engine-{row.label}-0: {problem}"]

    platform.runtime.change = lambda o: o
    platform.services.deployments.watch()
    assert platform.services.deployments.log_problems() == []


def test_a_dead_host_shows_and_the_watch_starts_it_again_on_its_port(platform: Platform) -> None:
    row = deployed(platform)
    platform.runtime.specs.clear()
    assert (status(platform, row)["status"], status(platform, row)["engines"]) == ("Starting", [])

    assert platform.services.deployments.watch() == [row.label]
    assert (platform.runtime.deployed[-1].port, platform.runtime.deployed[-1].generation) == (row.port, 1)
    assert platform.services.deployments.watch() == []
    assert status(platform, row)["status"] == "Running"


def test_a_host_that_cannot_be_started_again_is_told_with_its_reason_and_tried_again(platform: Platform) -> None:
    row = deployed(platform)
    platform.runtime.specs.clear()
    platform.runtime.refuses = Unavailable("Port 41000 is taken.", "Free it.")

    assert platform.services.deployments.watch() == []
    told = status(platform, row)
    assert (told["status"], told["target"]["error"]) == ("Error", "Port 41000 is taken. Free it.")

    platform.runtime.refuses = None
    assert platform.services.deployments.watch() == [row.label]
    assert status(platform, row)["status"] == "Running"


def test_a_first_deploy_that_the_runtime_refuses_leaves_nothing_wanted(platform: Platform) -> None:
    platform.runtime.refuses = Unavailable("No host could be started.", "See its log.")

    with pytest.raises(Unavailable, match="No host"):
        deployed(platform)

    assert platform.stores.deployments.wanted() == []


def test_a_restarted_server_finds_starts_and_stops_what_it_should(tmp_path: Path) -> None:
    with open_platform(tmp_path) as before:
        row = deployed(before)
        kept = dict(before.runtime.specs)
    with open_platform(tmp_path) as found:
        found.runtime.specs.update(kept)
        assert found.services.deployments.recover() == []
        assert found.runtime.deployed == []
    with open_platform(tmp_path) as gone:
        assert gone.services.deployments.recover() == [row.label]
        assert gone.runtime.deployed[-1].port == row.port
    with open_platform(tmp_path) as unwanted:
        unwanted.stores.deployments.set_undeployed(row.id)
        unwanted.runtime.specs.update(kept)
        assert unwanted.services.deployments.recover() == []
        assert unwanted.runtime.specs == {}


def test_undeploy_is_harmless_when_nothing_runs_and_moves_the_pipelines_time(platform: Platform) -> None:
    row = deployed(platform)
    bob, deployments = platform.principal("bob"), platform.services.deployments
    before = platform.stores.pipelines.get(row.pipeline_id).updated_at
    never = platform.pipeline("bob", row.workspace_id, name="never")

    deployments.undeploy(bob, pipeline_id=never.pipeline_id)
    deployments.undeploy(bob, deployment_id=row.id)
    deployments.undeploy(bob, pipeline_id=row.pipeline_id)

    assert platform.runtime.specs == {}
    assert platform.stores.pipelines.get(row.pipeline_id).updated_at > before
    with pytest.raises(NotFound, match="is not deployed"):
        deployments.status(bob, row.label)
    with pytest.raises(BadInput, match="Neither"):
        deployments.undeploy(bob)


def test_a_label_is_the_whole_name(platform: Platform) -> None:
    row = deployed(platform)

    for wrong in (f"other-{row.id}", f"rental-0{row.id}", "rental-", "rental", f"rental-{row.id}x", "rental-²"):
        with pytest.raises(NotFound):
            platform.services.deployments.status(platform.principal("bob"), wrong)


def test_by_name_alone_the_one_visible_pipeline_is_deployed_with_its_newest_version(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    platform.pipeline("eve", platform.workspace("eve", "eves"))

    _, found = platform.services.deployments.deploy(platform.principal("bob"), "rental")
    assert found == version
    with pytest.raises(BadInput, match="2 workspaces have a pipeline 'rental'"):
        platform.services.deployments.deploy(platform.principal("ann"), "rental")
    with pytest.raises(BadInput, match="under its own name"):
        platform.services.deployments.deploy(platform.principal("bob"), "other", pipeline_version_id=version.id)


@pytest.mark.parametrize(
    "env",
    [
        {"A": "1"},
        [{"name": "A", "value": 1}],
        [{"name": "A=B", "value": "1"}],
        [{"name": "BETTONG_HOME", "value": "/"}],
    ],
)
def test_an_environment_that_does_not_hold_is_refused_without_its_values(platform: Platform, env: object) -> None:
    config = {"engineAux": {"images": {"forecast-1": {"env": env}}}}

    with pytest.raises(BadInput, match="environment for model 'forecast-1'"):
        deployed(platform, config)


def test_the_lines_of_a_worker_are_found_by_the_name_that_status_tells(platform: Platform) -> None:
    row = deployed(platform)
    folder = platform.home / "deployments" / row.label
    folder.mkdir(parents=True)
    (folder / "forecast-1.log").write_text("one\ntwo\nthree\n")
    bob, deployments = platform.principal("bob"), platform.services.deployments
    name = status(platform, row)["sidekicks"][0]["name"]

    assert deployments.worker_log(bob, row.workspace_id, "rental", name, 2) == ["two", "three"]
    with pytest.raises(NotFound, match="no model worker"):
        deployments.worker_log(bob, row.workspace_id, "rental", "../../../bettong.db", 2)
