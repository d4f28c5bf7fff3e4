"""Packaging tells the truth, and searches find what they say."""

from __future__ import annotations

import errno
import io
from datetime import timedelta
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from platform_kit import INPUTS, OUTPUTS, a_zip, an_upload, bad_zip, schema_text

from bettong.domain.batching import DynamicBatching
from bettong.domain.models import ModelStatus
from bettong.errors import BadInput, ModelFailed, UnsupportedFormat
from bettong.services.models import Sought

if TYPE_CHECKING:
    from platform_kit import Platform

    from bettong.domain.models import ModelVersion


def test_a_version_that_loads_is_ready_with_its_environment_and_its_log(platform: Platform) -> None:
    version = platform.model("bob", platform.workspace("bob"))

    assert (version.status, version.environment, version.error_summary) == (ModelStatus.READY, "e1", None)
    assert version.image_path
    assert platform.services.models.upload_log(platform.principal("bob"), version.id, None) == [
        "checking forecast.zip",
        "building the environment",
    ]
    (tried,) = platform.trial.tried
    assert (tried.uid, tried.input_schema) == (version.uid, schema_text(INPUTS))
    assert platform.services.models.unfinished() == []


def test_a_version_that_does_not_check_or_load_says_why_in_one_line_and_the_whole_in_its_log(
    platform: Platform,
) -> None:
    workspace = platform.workspace("bob")
    platform.packager.fault = bad_zip()
    unchecked = platform.model("bob", workspace)
    platform.packager.fault = None
    platform.trial.fault = ModelFailed("\n  ImportError: no module named foo\nTraceback …", "Add it.")
    unloaded = platform.model("bob", workspace)

    assert (unchecked.status, unchecked.error_summary) == (
        ModelStatus.ERROR,
        "The zip has no process_data. Write a function process_data.",
    )
    assert (unloaded.status, unloaded.error_summary) == (
        ModelStatus.ERROR,
        "ImportError: no module named foo Add it.",
    )
    log = platform.services.models.upload_log(platform.principal("bob"), unloaded.id, None)
    assert "Traceback …" in "\n".join(log)


def test_an_error_of_our_own_is_internal_to_people_and_a_traceback_to_the_operator(
    platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    platform.packager.fault = RuntimeError("secret path")

    version = platform.model("bob", platform.workspace("bob"))

    assert version.error_summary is not None
    assert version.error_summary.startswith("internal")
    assert "secret path" not in version.error_summary
    assert "RuntimeError: secret path" in caplog.text


def test_a_full_disk_is_no_fault_inside_the_platform(platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    platform.packager.fault = OSError(errno.ENOSPC, "No space left on device")

    version = platform.model("bob", platform.workspace("bob"))

    assert version.error_summary == (
        "There is no space left on the platform's disk. Free some, then upload the model again."
    )
    assert caplog.text == ""


def test_a_version_that_a_killed_server_left_is_packaged_again_and_a_finished_one_is_not(platform: Platform) -> None:
    version = platform.model("bob", platform.workspace("bob"), ready=False)
    platform.stores.models.set_status(version.id, ModelStatus.ATTEMPTING_LOAD_CONTAINER)

    assert platform.services.models.unfinished() == [version.id]
    assert platform.services.models.package(version.id).status is ModelStatus.READY
    assert platform.services.models.package(version.id).status is ModelStatus.READY
    assert len(platform.trial.tried) == 1


def test_the_same_file_twice_is_two_versions_of_one_model(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    first, second = platform.model("bob", workspace), platform.model("bob", workspace)

    (family,) = platform.services.models.all(platform.principal("bob"), workspace)
    assert [v.version for v in family.versions] == [second, first]
    assert first.sha == second.sha
    assert first.version != second.version


def test_the_newest_config_counts_and_keeps_the_schemas_that_it_does_not_name(platform: Platform) -> None:
    bob, models = platform.principal, platform.services.models
    version = platform.model("bob", platform.workspace("bob"))
    other = pa.schema([pa.field("x", pa.float64())])

    models.configure(bob("bob"), version.id, output_schema=schema_text(other))
    newest = models.configure(bob("bob"), version.id, tensor_fields=("count",), filter_threshold=0.5)

    assert models.config(bob("bob"), version.id) == newest
    assert newest.runtime == "flight"
    assert (newest.tensor_fields, newest.filter_threshold) == (("count",), 0.5)
    assert newest.input_schema == bytes(INPUTS.serialize())
    assert newest.output_schema == bytes(other.serialize())
    for wrong in (OUTPUTS.serialize().to_pybytes().hex(), "x"):
        with pytest.raises(BadInput):
            models.configure(bob("bob"), version.id, input_schema=wrong)


def test_rows_cannot_be_gathered_and_sent_one_by_one_at_once(platform: Platform) -> None:
    version = platform.model("bob", platform.workspace("bob"))

    with pytest.raises(BadInput, match="'single', and a dynamic batching config gathers rows"):
        platform.services.models.configure(
            platform.principal("bob"), version.id, batch_config="single", dynamic_batching=DynamicBatching()
        )


def test_a_search_finds_names_shas_versions_and_files_in_any_case_and_only_fitting_versions(
    platform: Platform,
) -> None:
    workspace = platform.workspace("bob")
    models, bob = platform.services.models, platform.principal("bob")
    rental = platform.model("bob", workspace, "rental-Model")
    sales = models.upload(bob, an_upload("sales", workspace, file_name="Quarter.zip"), io.BytesIO(a_zip(a="1")))

    def found(sought: Sought) -> list[int]:
        return [v.version.id for f in models.search(bob, sought) for v in f.versions]

    assert found(Sought("RENTAL")) == [rental.id]
    assert found(Sought("quarter")) == [sales.id]
    assert found(Sought(sales.sha[:12].upper())) == [sales.id]
    assert found(Sought(rental.version)) == [rental.id]
    assert found(Sought("nothing")) == []
    assert found(Sought()) == [rental.id, sales.id]
    assert found(Sought(since=sales.created_at)) == [sales.id]
    assert found(Sought(until=sales.created_at)) == [rental.id]
    assert found(Sought(since=sales.created_at + timedelta(seconds=1))) == []


@pytest.mark.parametrize(
    ("framework", "passed"),
    [
        ("sklearn", ["pending_load_native", "attempting_load_native", "pending_load_container"]),
        ("xgboost", ["pending_load_native", "attempting_load_native", "pending_load_container"]),
        ("custom", ["pending_load_container"]),
        ("mlflow", ["pending_load_container"]),
        ("python", ["pending_load_container"]),
    ],
)
def test_a_version_passes_the_statuses_that_people_know_of_its_framework(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, framework: str, passed: list[str]
) -> None:
    workspace, seen = platform.workspace("bob"), list[str]()
    models, bob = platform.services.models, platform.principal("bob")
    upload = an_upload(workspace_id=workspace, framework=framework)
    version = models.upload(bob, upload, io.BytesIO(a_zip(a="1")))
    keep = platform.stores.models.set_status

    def noted(version_id: int, status: ModelStatus, **more: str) -> ModelVersion:
        seen.append(status)
        return keep(version_id, status, **more)

    monkeypatch.setattr(platform.stores.models, "set_status", noted)
    done = models.package(version.id)

    assert [version.status, *seen] == [*passed, "attempting_load_container", "ready"]
    assert done.image_path
    assert models.config(bob, version.id).runtime == ("mlflow" if framework == "mlflow" else "flight")


@pytest.mark.parametrize("framework", ["python", "custom", "mlflow"])
def test_what_has_to_be_a_zip_is_refused_at_once_when_it_is_none(platform: Platform, framework: str) -> None:
    upload = an_upload(workspace_id=platform.workspace("bob"), framework=framework)

    with pytest.raises(BadInput, match=r"Not a valid ZIP file\."):
        platform.services.models.upload(platform.principal("bob"), upload, io.BytesIO(b"a pickle"))


def test_a_single_file_is_taken_where_the_framework_has_such(platform: Platform) -> None:
    upload = an_upload(workspace_id=platform.workspace("bob"), framework="sklearn", file_name="model.pkl")

    version = platform.services.models.upload(platform.principal("bob"), upload, io.BytesIO(b"\x80\x04N."))

    assert version.file_name == "model.pkl"


def test_the_options_of_a_custom_model_are_kept_and_reach_its_worker(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    models, bob = platform.services.models, platform.principal("bob")
    options = {"model_path": "./model/", "seed": 7, "names": ["a"]}
    upload = an_upload(workspace_id=workspace, framework="custom", framework_config=options)

    version = models.upload(bob, upload, io.BytesIO(a_zip(a="1")))
    models.package(version.id)

    assert models.version(bob, version.id).version.framework_config == options
    assert platform.trial.tried[0].framework_config == options


@pytest.mark.parametrize(
    ("framework", "config", "words"),
    [
        ("python", {"model_path": "x"}, "framework_config, which models of this framework do not take"),
        ("custom", {"model_path": 5}, "model_path is not text"),
    ],
)
def test_options_that_a_framework_does_not_take_are_refused(
    platform: Platform, framework: str, config: dict[str, object], words: str
) -> None:
    upload = an_upload(workspace_id=platform.workspace("bob"), framework=framework, framework_config=config)

    with pytest.raises(BadInput, match=words):
        platform.services.models.upload(platform.principal("bob"), upload, io.BytesIO(a_zip(a="1")))


def test_frameworks_that_do_not_run_are_refused_with_those_that_do(platform: Platform) -> None:
    upload = an_upload(workspace_id=platform.workspace("bob"), framework="vllm")

    with pytest.raises(UnsupportedFormat, match=r"Frameworks it runs: onnx, python, sklearn, xgboost, custom, mlflow"):
        platform.services.models.upload(platform.principal("bob"), upload, io.BytesIO(a_zip(a="1")))
