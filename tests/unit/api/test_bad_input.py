"""Bad input of any kind gets a 4xx with words, in one shape, and never its own values back."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import INPUTS, OUTPUTS, Api, Platform, a_zip, definition, open_platform, schema_text

from bettong.settings import Limits

if TYPE_CHECKING:
    from pathlib import Path

MARK = "hunter2-marker"
SHAPE = {"msg", "code", "error", "next_step", "request_id"}
CREATE = "/v1/api/connections/create"


def problem(answered: Any, status: int) -> dict[str, Any]:
    body: dict[str, Any] = answered.json()
    assert answered.status_code == status == body["code"], answered.text
    assert set(body) == SHAPE
    assert MARK not in answered.text
    assert body["msg"]
    assert body["next_step"]
    assert body["request_id"] == answered.headers["x-request-id"]
    return body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"name": 7, "type": MARK}, "Field 'name' is not a text."),
        ({"type": "HTTP", "details": {"password": MARK}}, "Field 'name' is missing."),
        ({"name": [MARK], "type": {"a": MARK}}, "Field 'type' is not a text."),
        ({"name": "c", "type": "HTTP", "details": [MARK]}, "a list"),
        ({"name": "c", "type": "HTTP", "details": MARK}, "a text"),
        ({"name": " ", "type": "HTTP"}, "Connection name has 1 characters."),
        ({"name": "c\u0000", "type": "HTTP"}, "a character that it may not have"),
        ({"name": "c", "type": "H\nT"}, "control character"),
        ({"name": "n" * 300, "type": "HTTP"}, "300 characters"),
        ([MARK], "The body is not a JSON object"),
        (MARK, "The body is not a JSON object"),
    ],
)
def test_wrong_fields_are_named_without_their_values(api: Api, body: object, words: str) -> None:
    told = problem(api.send("bob", "POST", CREATE, json=body), 400)

    assert words in told["msg"]
    assert told["error"] == "bad_input"


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "' + MARK.encode(),
        b'{"name": "c", "type": "t", "details": {"a": NaN}}',
        b'{"name": "c", "type": "t", "details": {"a": 1e999}}',
        b'{"name": "c", "type": "t", "details": {"a": "\\ud800"}}',
        b'{"name": "\xff\xfe", "type": "t"}',
        b'{"name": "c", "type": "t", "details": {"a": ' + b"[" * 200 + b"]" * 200 + b"}}",
        b"[" * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
    ids=["cut off", "NaN", "infinity", "half a pair", "not UTF-8", "deep", "very deep", "a huge integer"],
)
def test_what_is_not_json_is_refused_at_the_door(api: Api, body: bytes) -> None:
    answered = api.send("bob", "POST", CREATE, content=body, headers={"Content-Type": "application/json"})

    assert "not valid JSON" in problem(answered, 400)["msg"]


def test_a_body_of_another_content_type_is_told_which_one_to_send(api: Api) -> None:
    answered = api.send("bob", "POST", CREATE, data={"name": MARK})

    assert "Content-Type: application/json" in problem(answered, 400)["msg"]


def test_no_body_at_all_is_an_empty_one_where_nothing_is_needed(api: Api) -> None:
    assert api.send("bob", "POST", "/v1/api/workspaces/list").status_code == 200
    assert "The body is missing" in problem(api.send("bob", "POST", CREATE), 400)["msg"]


@pytest.mark.parametrize("value", ["8", 8.5, True, -1, 2**31, 2**70, None])
def test_an_id_is_a_number_in_range_and_nothing_else(api: Api, value: object) -> None:
    answered = api.send("bob", "POST", "/v1/api/models/get", json={"id": value})

    assert "Field 'id'" in problem(answered, 400)["msg"]


def test_unknown_paths_and_methods_have_the_same_shape(api: Api) -> None:
    problem(api.send("bob", "POST", f"/v1/api/{MARK}"), 404)
    problem(api.send(None, "GET", f"/{MARK}"), 404)
    refused = api.send("bob", "GET", CREATE)
    problem(refused, 405)
    assert refused.headers["allow"] == "POST"
    at_inference = api.send("bob", "GET", "/v1/api/pipelines/infer/adder-1/adder")
    assert (at_inference.status_code, at_inference.json()["code"], at_inference.json()["status"]) == (405, 405, "error")


def test_times_need_a_zone(api: Api) -> None:
    path = "/v1/api/models/search"
    for given in ("yesterday", "2024-10-29T20:52:00"):
        told = problem(api.send("bob", "POST", path, json={"uploaded_time_start": given}), 400)
        assert "uploaded_time_start" in told["msg"]
    assert api.ok("bob", path, {"uploaded_time_start": "2024-10-29T20:52:00+02:00"}) == {"models": []}


def test_details_over_their_limit_are_too_large_and_a_megabyte_is_not(api: Api) -> None:
    big = {"name": "big", "type": "t", "details": {"a": "x" * 2**20}}
    api.ok("bob", CREATE, big)
    assert api.ok("bob", "/v1/api/connections/get", {"name": "big", "reveal": True})["details"] == big["details"]

    answered = api.send("bob", "POST", CREATE, json={"name": "b", "type": "t", "details": {"a": "x" * (4 * 2**20)}})
    assert str(4 * 2**20) in problem(answered, 413)["msg"]


def test_a_json_body_over_eight_megabytes_is_cut_off(api: Api) -> None:
    async def endless() -> Any:
        while True:
            yield b" " * 2**20

    problem(api.send("bob", "POST", CREATE, content=b" " * (8 * 2**20 + 1)), 413)
    problem(api.send("bob", "POST", CREATE, content=endless()), 413)


def test_a_host_of_another_name_is_refused(api: Api) -> None:
    problem(api.send("bob", "POST", CREATE, json={}, headers={"Host": "rebound.example.org"}), 400)
    assert api.send(None, "GET", "/v1/api/health", headers={"Host": "localhost:1"}).status_code == 200


def test_a_compressed_body_is_told_to_come_as_it_is(api: Api) -> None:
    body = gzip.compress(b'{"name": "c", "type": "HTTP"}')

    answered = api.send(
        "bob", "POST", CREATE, content=body, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
    )

    assert "Content-Encoding" in problem(answered, 415)["msg"]


def test_who_has_no_token_can_make_the_server_keep_next_to_nothing(api: Api) -> None:
    for path in ("/docs", "/nowhere", "/v1/api/health"):
        assert "65536" in problem(api.send(None, "POST", path, content=b" " * 70_000), 413)["msg"]


def test_a_request_id_is_kept_if_it_is_one_and_made_otherwise(api: Api) -> None:
    kept = api.send(None, "GET", "/v1/api/health", headers={"X-Request-Id": "r-1"})
    made = api.send(None, "GET", "/v1/api/health", headers={"X-Request-Id": "a b\tc"})

    assert kept.headers["x-request-id"] == "r-1"
    assert len(made.headers["x-request-id"]) == 36


def test_a_fault_of_our_own_is_a_500_that_tells_a_number_and_nothing_more(
    api: Api, platform: Platform, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError(f"password={MARK}")

    monkeypatch.setattr(type(platform.stores.connections), "all", broken)

    told = api.send("bob", "POST", "/v1/api/connections/list", json={})

    assert told.status_code == 500
    assert MARK not in told.text
    assert told.json()["error"] == "internal"
    assert told.json()["request_id"] in caplog.text


# --- uploads --------------------------------------------------------------------------------------------------------


def upload(api: Api, platform: Platform, *, file: bytes | None = None, meta: object = None, **changes: Any) -> Any:
    workspaces = platform.stores.workspaces.ids_of(platform.principal("bob").user_id)
    workspace = next(iter(workspaces), None) or platform.workspace("bob")
    sent = {
        "name": "forecast",
        "workspace_id": workspace,
        "conversion": {"framework": "python", "requirements": []},
        "input_schema": schema_text(INPUTS),
        "output_schema": schema_text(OUTPUTS),
        **changes,
    }
    text = json.dumps(sent) if meta is None else meta
    parts = {"metadata": (None, text, "application/json"), "file": ("m.zip", a_zip() if file is None else file)}
    return api.send("bob", "POST", "/v1/api/models/upload_and_convert", files=parts)


@pytest.mark.parametrize(
    ("changes", "status", "words"),
    [
        ({"name": "a_b"}, 400, "'_' at position 2"),
        ({"input_schema": None}, 400, "parameter 'input_schema' required for this framework"),
        ({"output_schema": "%%%"}, 400, "not base64"),
        ({"output_schema": "aGVsbG8="}, 400, "not a serialised Arrow schema"),
        ({"conversion": {"framework": MARK}}, 415, "python"),
        ({"conversion": {"framework": "python", "arch": MARK}}, 400, "x86, arm, power10"),
        ({"conversion": {"framework": "python", "accel": {"qaic": {}}}}, 400, "accelerator"),
        ({"conversion": None}, 400, "Field 'conversion' is not a JSON object"),
        ({"conversion": {"framework": 7}}, 400, "Field 'conversion.framework' is not a text"),
        ({"visibility": MARK}, 400, "Field 'visibility'"),
        ({"file": b"rubbish"}, 400, "Not a valid ZIP file."),
        ({"file": b""}, 400, "Not a valid ZIP file."),
        ({"meta": "{"}, 400, "'metadata' is not valid JSON"),
        ({"meta": b"\xff"}, 400, "'metadata'"),
    ],
)
def test_an_upload_that_does_not_hold_is_refused_in_words(
    api: Api, platform: Platform, changes: dict[str, Any], status: int, words: str
) -> None:
    assert words in problem(upload(api, platform, **changes), status)["msg"]
    assert platform.stores.models.unfinished() == []


def test_an_upload_without_its_parts_is_told_which_are_missing(api: Api) -> None:
    path = "/v1/api/models/upload_and_convert"

    no_file = api.send("bob", "POST", path, files={"metadata": (None, "{}", "application/json")})
    assert "no part 'file'" in problem(no_file, 400)["msg"]
    assert "no part 'metadata'" in problem(api.send("bob", "POST", path, files={"file": ("m.zip", b"x")}), 400)["msg"]
    assert "multipart/form-data" in problem(api.send("bob", "POST", path, json={}), 415)["msg"]
    broken = {"Content-Type": "multipart/form-data"}
    problem(api.send("bob", "POST", path, content=b"--x", headers=broken), 400)


def test_an_upload_over_the_limit_is_cut_off(tmp_path: Path) -> None:
    with open_platform(tmp_path, limits=Limits(max_upload_bytes=1000)) as platform, platform.api() as api:
        problem(upload(api, platform, file=a_zip() + b"x" * 3 * 2**20), 413)  # cut off while it comes in
        assert "1000" in problem(upload(api, platform, file=b"x" * 2000 + a_zip()), 413)["msg"]
        assert platform.stores.models.unfinished() == []


# --- pipelines and deployments --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"engine": {"replicas": -1}}, "1 to 64"),
        ({"engine": {"cpu": "many"}}, "CPUs"),
        ({"engine": {"autoscale": {"replica_max": 3}}}, "autoscaling"),
        ({"engine": {"arch": "arm"}}, "architecture 'arm'"),
        ({"engine": {"accel": "cuda"}}, "accelerator"),
        ({"engine": {"resources": {"limits": {"memory": "lots"}}}}, "512Mi"),
        ({"engine": []}, "not an object"),
    ],
)
def test_a_config_that_cannot_run_is_refused_and_nothing_is_started(
    api: Api, platform: Platform, config: dict[str, Any], words: str
) -> None:
    workspace = platform.workspace("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))

    body = {"deploy_id": "rental", "pipeline_version_pk_id": version.id, "engine_config": config}
    assert words in problem(api.send("bob", "POST", "/v1/api/pipelines/deploy", json=body), 400)["msg"]
    assert platform.runtime.deployed == []
    assert platform.stores.deployments.of_pipeline(version.pipeline_id) is None


def test_nothing_without_steps_and_no_unready_model_is_deployed(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    empty = platform.pipeline("bob", workspace)
    waiting = platform.pipeline("bob", workspace, platform.model("bob", workspace, ready=False))

    for version, words in ((empty, "has no steps"), (waiting, "is not ready: its status is pending_load_container")):
        body = {"deploy_id": "rental", "pipeline_version_pk_id": version.id}
        assert words in problem(api.send("bob", "POST", "/v1/api/pipelines/deploy", json=body), 400)["msg"]


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ("x", "not a list"),
        ([{"Blend": {}}], "of the kind 'Blend'"),
        ([{"Check": {"tree": []}}], "has 'tree' that is not a list of 1 to"),
        ([{"Check": {"tree": ['{"Alias":[{"Window":{}},"odd"]}']}}], "Validation 'odd' has the node 'Window'"),
        ([{"ModelInference": {"models": []}}], "has 'models' that is not a list of 1 to"),
        ([7], "exactly one key"),
        ([{"ModelInference": {"models": [{"name": "m", "version": "v", "sha": "s"}]}}], "that is not there"),
    ],
)
def test_a_definition_that_does_not_hold_is_refused(api: Api, platform: Platform, steps: object, words: str) -> None:
    body = {"pipeline_id": "p", "workspace_id": platform.workspace("bob"), "definition": {"id": "p", "steps": steps}}

    assert words in problem(api.send("bob", "POST", "/v1/api/pipelines/create", json=body), 400)["msg"]


def test_a_model_reference_must_fit_its_version(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    document = definition("p", platform.model("bob", workspace))
    document["steps"][0]["ModelInference"]["models"][0]["sha"] = "0" * 64

    body = {"pipeline_id": "p", "workspace_id": workspace, "definition": document}
    assert "another name or sha" in problem(api.send("bob", "POST", "/v1/api/pipelines/create", json=body), 400)["msg"]


def test_a_name_is_taken_once_also_when_two_ask_at_once(api: Api, platform: Platform) -> None:
    body = {"name": "warehouse", "type": "HTTP", "details": {}}

    codes = sorted(r.status_code for r in api.together(*[("bob", CREATE, body)] * 4))
    assert codes == [200, 409, 409, 409]
    workspaces = api.together(*[("bob", "/v1/api/workspaces/create", {"workspace_name": "Team"})] * 3)
    assert sorted(r.status_code for r in workspaces) == [200, 409, 409]
    assert api.post("eve", "/v1/api/workspaces/create", {"workspace_name": "team"}).status_code == 409
    defaults = api.together(*[("bob", "/v1/api/workspaces/default", {})] * 4)
    assert len({r.json()["id"] for r in defaults}) == 1
    pipeline = {"pipeline_id": "p", "workspace_id": platform.workspace("bob", "other")}
    made = [r.json() for r in api.together(*[("bob", "/v1/api/pipelines/create", pipeline)] * 4)]
    assert len({m["pipeline_pk_id"] for m in made}) == 1
    assert len({m["pipeline_variant_version"] for m in made}) == 4
