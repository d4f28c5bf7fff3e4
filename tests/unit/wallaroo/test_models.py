"""Uploading, waiting for, configuring and showing models."""

from __future__ import annotations

import base64
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from unit.wallaroo.stub import (
    UUIDS,
    Asked,
    FakeClock,
    Reply,
    StubPlatform,
    error,
    fetched_version,
    model_config,
    model_entry,
    model_version,
)

from wallaroo import _upload
from wallaroo._wait import Screen
from wallaroo.dynamic_batching_config import DynamicBatchingConfig
from wallaroo.engine_config import Acceleration, Architecture, QaicConfig
from wallaroo.framework import CustomConfig, Framework, VLLMConfig
from wallaroo.object import (
    EntityNotFoundError,
    InvalidAccelerationError,
    InvalidNameError,
    ModelConversionTimeoutError,
    ModelOptimizationConfigError,
    ModelUploadError,
    RequiredAttributeMissing,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wallaroo import Client

UPLOAD = "/v1/api/models/upload_and_convert"
FETCH = "/v1/api/models/get_version_by_id"
SCHEMA = pa.schema([pa.field("count", pa.list_(pa.int32()))])
UPLOADED = {"insert_models": {"returning": [{"models": [{"id": 6}]}]}}


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "step.zip"
    path.write_bytes(b"PK-zip-bytes")
    return path


def upload(client: Client, path: Path, **more: Any) -> Any:
    given = {"input_schema": SCHEMA, "output_schema": SCHEMA, **more}
    return client.upload_model("control", path, given.pop("framework", Framework.PYTHON), **given)


def parts_of(body: bytes, content_type: str) -> list[tuple[str, bytes]]:
    boundary = content_type.split("boundary=")[1].encode()
    parts = [part.strip(b"\r\n") for part in body.split(b"--" + boundary)][1:-1]
    return [(head.decode(), content) for head, content in (part.split(b"\r\n\r\n", 1) for part in parts)]


def test_an_upload_sends_its_metadata_first_and_then_the_file(
    client: Client, platform: StubPlatform, model_file: Path
) -> None:
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(FETCH, fetched_version())

    version = upload(client, model_file)

    asked = platform.calls(UPLOAD)[0]
    (head, metadata), (file_head, content) = parts_of(asked.body, asked.headers["content-type"])
    assert 'name="metadata"' in head
    assert "Content-Type: application/json" in head
    assert 'name="file"; filename="step.zip"' in file_head
    assert content == b"PK-zip-bytes"
    sent = json.loads(metadata)
    assert pa.ipc.read_schema(pa.py_buffer(base64.b64decode(sent.pop("input_schema")))) == SCHEMA
    assert sent.pop("output_schema")
    assert sent == {
        "name": "control",
        "visibility": "private",
        "workspace_id": 8,
        "conversion": {
            "arch": "x86",
            "accel": "none",
            "framework": "python",
            "framework_config": None,
            "requirements": [],
        },
    }
    assert version.id() == 6


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"framework": "python"}, ValueError, r"Framework\.ONNX or Framework\.PYTHON"),
        ({"input_schema": None}, ValueError, "parameter 'input_schema' required for this framework"),
        ({"input_schema": {"a": 1}}, TypeError, "input_schema is a dict"),
        ({"arch": Architecture.X86, "accel": Acceleration.Jetson}, InvalidAccelerationError, "jetson"),
        ({"framework_config": VLLMConfig()}, ModelOptimizationConfigError, "VLLMConfig, which does not fit"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    client: Client, platform: StubPlatform, model_file: Path, change: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        upload(client, model_file, **change)
    assert platform.calls(UPLOAD) == []


def test_a_missing_file_and_a_bad_name_are_refused_too(client: Client, model_file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.zip"):
        upload(client, model_file.with_name("nowhere.zip"))
    with pytest.raises(InvalidNameError, match=r"Name 'a_b' is invalid: must be DNS-compatible .*'_' at position 2"):
        client.upload_model("a_b", model_file, Framework.ONNX)


def test_a_refused_upload_gives_code_and_reason(client: Client, platform: StubPlatform, model_file: Path) -> None:
    platform.on(UPLOAD, error(400, "Not a valid ZIP file."))
    with pytest.raises(ModelUploadError) as caught:
        upload(client, model_file)
    assert str(caught.value) == "Model failed to upload: [400] Not a valid ZIP file."


def test_waiting_shows_each_step_and_how_it_ended(
    client: Client, platform: StubPlatform, model_file: Path, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    states = ["pending_load_native", "attempting_load_native", "pending_load_container", "attempting_load_container"]
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(
        FETCH,
        *(fetched_version(status=state) for state in ("uploading", *states)),
        *[fetched_version(status="attempting_load_container")] * 20,
        fetched_version(),
    )

    upload(client, model_file)

    dots = "." * (1 + int(sum(clock.slept) / 5))
    assert capsys.readouterr().out == (
        "Waiting for model loading - this will take up to 30min.\n"
        "Model is pending loading to a native runtime.\n"
        "Model is attempting loading to a native runtime.Incompatible\n"
        "Model is pending loading to a container runtime.\n"
        f"Model is attempting loading to a container runtime{dots}Successful\n"
        "Ready\n"
    )


def test_a_model_that_is_ready_at_once_prints_nothing(
    client: Client, platform: StubPlatform, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on("/v1/api/models/upload", UPLOADED)
    platform.on(FETCH, fetched_version(image_path=None))
    client.upload_model("control", model_file, Framework.ONNX)
    assert capsys.readouterr().out == ""


def test_a_failed_model_is_returned_with_its_reason_on_stderr(
    client: Client, platform: StubPlatform, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    failed = fetched_version(status="error", error_summary="No function process_data. Write one.")
    platform.on(FETCH, fetched_version(status="pending_load_container"), failed)

    version = upload(client, model_file)

    assert version.status() == "error"
    written = capsys.readouterr()
    assert written.out.endswith("Model is pending loading to a container runtime.\n")
    assert written.err == (
        "ERROR!\n"
        "There was an error during model conversion: No function process_data. Write one.\n"
        "See wl.get_model('control').get_upload_logs() for the whole log.\n"
    )


def in_ipython(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))


def in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


@pytest.mark.parametrize("where", [in_ipython, in_a_terminal])
def test_the_word_error_is_red_where_colours_show(
    client: Client,
    platform: StubPlatform,
    model_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: Callable[[pytest.MonkeyPatch], None],
) -> None:
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(FETCH, fetched_version(status="error", error_summary="No function process_data."))
    where(monkeypatch)

    upload(client, model_file)

    assert capsys.readouterr().err.startswith("\033[31mERROR!\033[0m\n")


@pytest.mark.parametrize(
    ("status", "ending"),
    [("ready", "Model 'control' is ready after 9 s.\n"), ("error", "Model 'control' has failed after 9 s.\nERROR!\n")],
)
def test_a_long_upload_of_a_script_leaves_a_line_at_each_end(
    client: Client,
    platform: StubPlatform,
    model_file: Path,
    clock: FakeClock,
    capsys: pytest.CaptureFixture[str],
    status: str,
    ending: str,
) -> None:
    client._screen = Screen(shown=False, logged=True)

    def sent_slowly(_: Asked) -> Reply:
        clock.now += 8.9
        return Reply(UPLOADED, 202)

    platform.on(UPLOAD, sent_slowly)
    waiting = fetched_version(status="attempting_load_container")
    platform.on(FETCH, waiting, waiting, fetched_version(status=status))

    upload(client, model_file)

    written = capsys.readouterr()
    assert written.out == ""
    opening = "Model 'control' is being uploaded and loaded - this will take up to 30min.\n"
    assert written.err.startswith(opening + ending)


def test_a_quick_upload_of_a_script_leaves_none(
    client: Client, platform: StubPlatform, model_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client._screen = Screen(shown=False, logged=True)
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(FETCH, *[fetched_version(status="attempting_load_container")] * 9, fetched_version())

    upload(client, model_file)

    written = capsys.readouterr()
    assert written.out + written.err == ""


def test_a_model_that_never_gets_ready_is_given_up_after_the_time_that_was_told(
    client: Client, platform: StubPlatform, model_file: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_upload, "LOAD_TIMEOUT_S", 60.0)
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(FETCH, fetched_version(status="pending_load_container"))
    with pytest.raises(ModelConversionTimeoutError, match="did not finish: model 'control' is pending_load_container"):
        upload(client, model_file)
    assert sum(clock.slept) == pytest.approx(60.0)


def test_without_waiting_the_version_comes_back_at_once_and_its_status_is_asked_until_final(
    client: Client, platform: StubPlatform, model_file: Path
) -> None:
    platform.on(UPLOAD, Reply(UPLOADED, 202))
    platform.on(FETCH, fetched_version(status="uploading"), fetched_version(status="uploading"), fetched_version())

    version = upload(client, model_file, convert_wait=False)

    assert [version.status() for _ in range(3)] == ["uploading", "ready", "ready"]
    assert len(platform.calls(FETCH)) == 3


def test_get_model_gives_the_newest_or_the_named_version(client: Client, platform: StubPlatform) -> None:
    entry = model_entry(model_version(id=7), model_version(id=6))
    platform.on("/v1/api/models/list_versions_for_model", {"models": [entry]})

    assert client.get_model("control").id() == 7
    assert client.get_model("control", version=UUIDS[6]).id() == 6
    with pytest.raises(EntityNotFoundError, match=f"Error: A model with the version {UUIDS[1]} not found in this"):
        client.get_model("control", version=UUIDS[1])
    platform.on("/v1/api/models/list_versions_for_model", {"models": []})
    with pytest.raises(EntityNotFoundError) as caught:
        client.get_model("nothing")
    assert str(caught.value).startswith("Error: A model with the name nothing does not exist. list_models() shows")


def test_the_versions_table_has_its_twelve_fields_in_order_and_escapes(client: Client, platform: StubPlatform) -> None:
    version = model_version(status="error", error_summary="<script>")
    platform.on("/v1/api/models/list_versions_for_model", {"models": [model_entry(version)]})

    table = client.get_model("control")._repr_html_()

    rows = {
        "Name": "control",
        "Version": UUIDS[6],
        "File Name": "step.zip",
        "SHA": "ab" * 32,
        "Status": "error",
        "Error Summary": "&lt;script&gt;",
        "Image Path": "bettong/python:3.11",
        "Architecture": "x86",
        "Acceleration": "none",
        "Updated At": "2024-29-Oct 21:36:20",
        "Workspace id": "8",
        "Workspace name": "forecast",
    }
    assert table == "<table>" + "".join(f"<tr><td>{n}</td><td>{v}</td></tr>" for n, v in rows.items()) + "</table>"


def test_models_are_listed_in_the_current_workspace_with_their_versions_counted(
    client: Client, platform: StubPlatform
) -> None:
    entry = model_entry(model_version(id=7), model_version(id=6))
    platform.on("/v1/api/models/list", {"models": [entry]}, {"models": []})

    listed, empty = client.list_models(), client.list_models()

    assert platform.calls("/v1/api/models/list")[0].json == {"workspace_id": 8, "workspace_name": None}
    assert "<td>control</td><td>2</td><td>u-ann</td>" in listed._repr_html_()
    assert [version.id() for version in listed[0].versions()] == [7, 6]
    assert repr(empty) == "(no models)"
    with pytest.raises(TypeError, match=r"Workspace ID must be an integer\."):
        client.list_models(workspace_id="8")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Workspace name must be a string\."):
        client.list_models(workspace_name=8)  # type: ignore[arg-type]


def test_a_version_is_found_by_the_names_of_both_in_whatever_workspace(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/models/list", {"models": [model_entry(model_version(id=7), model_version(id=6))]})

    assert client.model_by_name("control", UUIDS[6]).id() == client.model_version_by_name("control", UUIDS[6]).id() == 6

    assert platform.calls("/v1/api/models/list")[0].json == {"workspace_id": None, "workspace_name": None}
    assert client.model_by_name("control", UUIDS[7]).tags() == []
    for name, version in (("control", UUIDS[1]), ("other", UUIDS[6])):
        with pytest.raises(EntityNotFoundError, match="ModelVersion not found"):
            client.model_version_by_name(name, version)


def test_configure_posts_a_new_row_and_chains(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/models/list_versions_for_model", {"models": [model_entry(model_version())]})
    platform.on("/v1/api/models/insert_model_config", {"model_config": {**model_config(), "id": 9}})

    version = client.get_model("control").configure("onnx", tensor_fields=["a"], batch_config="single")

    sent = platform.calls("/v1/api/models/insert_model_config")[0].json
    assert (sent["model_version_id"], sent["tensor_fields"], sent["batch_config"]) == (6, ["a"], "single")
    assert version.config().id() == 9
    with pytest.raises(ValueError, match="batch_config is 'many'"):
        version.configure(batch_config="many")


def test_a_dynamic_batching_config_is_sent_and_read_back(client: Client, platform: StubPlatform) -> None:
    kept = {"max_batch_delay_ms": 10, "batch_size_target": 8, "batch_size_limit": None}
    answer = {"model_config": {**model_config(), "dynamic_batching_config": kept}}
    platform.on("/v1/api/models/list_versions_for_model", {"models": [model_entry(model_version())]})
    platform.on("/v1/api/models/insert_model_config", answer)
    version = client.get_model("control")

    version.configure(dynamic_batching_config=DynamicBatchingConfig(batch_size_target=8))

    sent = platform.calls("/v1/api/models/insert_model_config")[0].json["dynamic_batching_config"]
    assert sent == {"max_batch_delay_ms": 10, "batch_size_target": 8}
    assert version.config().dynamic_batching_config() == DynamicBatchingConfig(10, 8, None)
    with pytest.raises(TypeError, match="dynamic_batching_config is a dict"):
        version.configure(dynamic_batching_config=kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_batch_delay_ms", "batch_size_target", "batch_size_limit"])
@pytest.mark.parametrize("value", [0, -1, 1.5, True])
def test_a_number_of_a_dynamic_batching_config_is_positive_and_whole_or_none(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} is .* It must be a positive integer or None"):
        DynamicBatchingConfig(**{name: value})
    assert name not in DynamicBatchingConfig(**{name: None}).to_json()


def test_upload_logs_show_as_lines(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/models/list_versions_for_model", {"models": [model_entry(model_version())]})
    platform.on("/v1/api/models/get_upload_logs", {"logs": ["one", "two"]}, {"logs": []})
    version = client.get_model("control")
    assert repr(version.get_upload_logs(limit=2)) == "one\ntwo"
    assert platform.calls("/v1/api/models/get_upload_logs")[0].json == {"model_version_id": 6, "lines": 2}
    assert repr(version.get_upload_logs()) == "(no logs yet)"


def test_an_attribute_that_even_the_whole_record_lacks_is_named(client: Client, platform: StubPlatform) -> None:
    answer = fetched_version()
    del answer["model_version"]["model_version"]["models_pk_id"]
    platform.on(FETCH, answer)
    platform.on(UPLOAD, UPLOADED)
    from wallaroo import model_version as versions

    with pytest.raises(RequiredAttributeMissing, match="ModelVersion has no 'models_pk_id'"):
        versions.by_id(client, 6).models_pk_id()


def test_the_curl_command_carries_the_same_metadata_and_no_token(client: Client, model_file: Path) -> None:
    command = client.generate_upload_model_api_command(
        "https://example.org/", "control", model_file, Framework.PYTHON, SCHEMA, SCHEMA
    )
    assert "https://example.org/v1/api/models/upload_and_convert" in command
    assert '"name": "control"' in command
    assert '"Authorization: Bearer $TOKEN"' in command


def test_frameworks_accelerations_and_their_options() -> None:
    assert len(Framework) == 27  # the 26 of the reference, and MLFLOW for zips of saved models
    assert Framework.HUGGING_FACE_STABLE_DIFFUSION_TEXT_2_IMG.value == "hugging-face-stable-diffusion-text-2-img"
    assert VLLMConfig().to_dict() == {
        "gpu_memory_utilization": 0.9,
        "kv_cache_dtype": "auto",
        "max_num_seqs": 256,
        "quantization": "none",
    }
    assert CustomConfig(seed=7).to_dict() == {"model_path": "./model/", "seed": 7}
    with pytest.raises(ValueError, match="tool_call_parser is empty"):
        VLLMConfig(tool_call_parser="")
    with pytest.raises(ValueError, match="quantization is 'x'"):
        VLLMConfig(quantization="x")
    assert Acceleration.QAIC.with_config(QaicConfig(num_cores=2)).config.num_cores == 2
    with pytest.raises(InvalidAccelerationError):
        Acceleration.CUDA.with_config(QaicConfig())
