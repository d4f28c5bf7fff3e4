"""The calls of the main job in their order, each answer in its declared shape."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import HOUSE, INPUTS, OUTPUTS, a_zip, definition, schema_text

if TYPE_CHECKING:
    from platform_kit import Api, Platform


CONNECTIONS = "/v1/api/connections"


def upload(api: Api, who: str, workspace_id: int, **changes: Any) -> Any:
    meta = {
        "name": "forecast",
        "visibility": "private",
        "workspace_id": workspace_id,
        "conversion": {
            "arch": "x86",
            "accel": "none",
            "framework": "python",
            "framework_config": None,
            "python_version": "3.8",
            "requirements": [],
        },
        "input_schema": schema_text(INPUTS),
        "output_schema": schema_text(OUTPUTS),
        **changes,
    }
    parts = {
        "metadata": (None, json.dumps(meta), "application/json"),
        "file": ("forecast.zip", a_zip(), "application/octet-stream"),
    }
    return api.send(who, "POST", "/v1/api/models/upload_and_convert", files=parts)


def test_a_person_gets_from_nothing_to_a_running_pipeline(api: Api, platform: Platform) -> None:
    workspace = api.ok("bob", "/v1/api/workspaces/create", {"workspace_name": "forecasts"})["workspace_id"]
    assert api.ok("bob", "/v1/api/auth/token")["workspace_ids"] == [workspace]

    answered = upload(api, "bob", workspace)
    assert answered.status_code == 202
    version_id = answered.json()["insert_models"]["returning"][0]["models"][0]["id"]
    told = api.ok("bob", "/v1/api/models/get_version_by_id", {"model_version_id": version_id})
    assert told["model_version"]["model_version"]["status"] == "pending_load_container"
    platform.services.models.package(version_id)
    version = api.ok("bob", "/v1/api/models/get_model_version_by_id", {"model_version_id": version_id})
    record = version["model_version"]["model_version"]
    assert (record["status"], record["deployed"], record["error_summary"]) == ("ready", False, None)
    assert version["model_version"]["config"]["input_schema"] == schema_text(INPUTS)

    built = api.ok("bob", "/v1/api/pipelines/create", {"pipeline_id": "rental", "workspace_id": workspace})
    entry = api.ok(
        "bob", "/v1/api/pipelines/get_pipeline_by_name", {"pipeline_name": "rental", "workspace_id": workspace}
    )
    assert (entry["deployed"], entry["deployed_steps"], entry["deployment"]) == (None, [], None)
    model = platform.stores.models.version(version_id)
    created = api.ok(
        "bob",
        "/v1/api/pipelines/create",
        {"pipeline_id": "rental", "workspace_id": workspace, "definition": definition("rental", model)},
    )
    assert created["pipeline_pk_id"] == built["pipeline_pk_id"]

    deployed = api.ok(
        "bob",
        "/v1/api/pipelines/deploy",
        {
            "deploy_id": "rental",
            "pipeline_version_pk_id": created["pipeline_variant_pk_id"],
            "engine_config": {"engine": {"replicas": 2, "cpu": 0.5}, "workspace_id": 999},
        },
    )
    assert deployed["pipeline_version"] == created["pipeline_variant_version"]
    label = f"rental-{deployed['id']}"
    status = api.ok("bob", "/v1/api/status/get_deployment", {"name": label})
    assert (status["status"], status["target"]["serving"], len(status["engines"])) == ("Running", True, 2)
    entry = api.ok(
        "bob", "/v1/api/pipelines/get_pipeline_by_name", {"pipeline_name": "rental", "workspace_id": workspace}
    )
    assert (entry["deployed"], entry["deployed_steps"], entry["arch"]) == (True, ["forecast"], "x86")
    assert entry["deployment"]["url"] == "http://127.0.0.1:41000/pipelines/rental"
    assert entry["deployment"]["external_url"].endswith(f"/v1/api/pipelines/infer/{label}/rental")
    again = api.ok("bob", "/v1/api/models/get_version_by_id", {"model_version_id": version_id})
    assert again["model_version"]["model_version"]["deployed"] is True

    api.ok("bob", "/v1/api/pipelines/undeploy", {"pipeline_id": created["pipeline_pk_id"]})
    assert platform.runtime.specs == {}
    assert api.post("bob", "/v1/api/status/get_deployment", {"name": label}).status_code == 404
    assert api.ok("bob", "/v1/api/deployments/get", {"id": deployed["id"]})["url"] is None


@pytest.mark.parametrize(("route", "status"), [("upload", 200), ("upload_and_convert", 202)])
def test_an_onnx_model_is_uploaded_without_schemas_and_renamed(
    api: Api, platform: Platform, route: str, status: int
) -> None:
    workspace = platform.workspace("bob")
    meta = {"name": "house-price", "workspace_id": workspace, "conversion": {"framework": "onnx"}}
    parts = {
        "metadata": (None, json.dumps(meta), "application/json"),
        "file": ("mlp.onnx", b"an onnx file", "application/octet-stream"),
    }

    answered = api.send("bob", "POST", f"/v1/api/models/{route}", files=parts)
    assert answered.status_code == status
    version_id = answered.json()["insert_models"]["returning"][0]["models"][0]["id"]
    platform.services.models.package(version_id)

    told = api.ok("bob", "/v1/api/models/get_version_by_id", {"model_version_id": version_id})["model_version"]
    assert (told["model_version"]["status"], told["model_version"]["image_path"]) == ("ready", None)
    assert (told["config"]["runtime"], told["config"]["input_schema"]) == ("onnx", schema_text(HOUSE.input_schema))
    body = {"model_version_id": version_id, "tensor_fields": ["features"]}
    config = api.ok("bob", "/v1/api/models/insert_model_config", body)["model_config"]
    assert config["tensor_fields"] == ["features"]
    refused = api.post("bob", "/v1/api/models/insert_model_config", {**body, "tensor_fields": ["a", "b"]})
    assert refused.status_code == 400
    assert "the model has 1 inputs" in refused.json()["msg"]


def test_a_dynamic_batching_config_is_kept_told_and_checked(api: Api, platform: Platform) -> None:
    version = platform.model("bob", platform.workspace("bob"))
    wanted = {"model_version_id": version.id, "dynamic_batching_config": {"batch_size_target": 8}}

    kept = api.ok("bob", "/v1/api/models/insert_model_config", wanted)["model_config"]
    told = api.ok("bob", "/v1/api/models/get_config_by_id", {"model_id": version.id})["model_config"]
    assert kept == told
    assert told["dynamic_batching_config"] == {
        "max_batch_delay_ms": 10,
        "batch_size_target": 8,
        "batch_size_limit": None,
    }

    refused = api.post(
        "bob",
        "/v1/api/models/insert_model_config",
        {**wanted, "dynamic_batching_config": {"batch_size_target": 8, "batch_size_limit": 4}},
    )
    assert refused.status_code == 400
    assert "a batch_size_limit of 4, below its batch_size_target of 8" in refused.json()["msg"]


def test_a_connection_is_made_linked_found_and_revealed_under_audit(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    details = {"url": "http://host/f", "n": 2**63, "big": 10**30, "x": 1e300, "ü": [None, {"deep": None}]}
    made = api.ok("bob", "/v1/api/connections/create", {"name": "my conn", "type": "HTTP", "details": details})
    link = {"workspace_id": workspace, "connection_id": made["id"]}
    first = api.ok("bob", "/v1/api/connections/add_to_workspace", link)
    assert api.ok("bob", "/v1/api/connections/add_to_workspace", link) == first != made

    listed = api.ok("bob", "/v1/api/connections/list", {"workspace_id": workspace})["connections"]
    hidden = api.ok("bob", "/v1/api/connections/get", {"name": "my conn", "reveal": False})
    assert listed == [hidden]
    assert "details" not in hidden
    assert hidden["workspace_names"] == ["forecasts"]
    shown = api.ok("bob", "/v1/api/connections/get_by_id", {"id": made["id"], "reveal": True})
    assert shown == {**hidden, "details": details}
    actions = [(e.action, e.email, e.origin) for e in platform.stores.audit.of_subject("connection", made["id"])]
    assert actions[0] == ("connection.reveal", "bob@example.org", "192.0.2.7")

    assert api.post("bob", "/v1/api/connections/remove_from_workspace", link).status_code == 204
    assert api.post("bob", "/v1/api/connections/remove_from_workspace", link).status_code == 204
    assert api.post("bob", "/v1/api/connections/delete", {"name": "my conn"}).status_code == 204
    assert api.post("bob", "/v1/api/connections/get", {"name": "my conn"}).status_code == 404


def test_connections_are_listed_in_pages_of_the_platform_and_of_a_workspace(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    ids = [api.ok("bob", f"{CONNECTIONS}/create", {"name": f"c{n}", "type": "HTTP"})["id"] for n in range(5)]
    for connection_id in (ids[4], ids[0], ids[2]):
        link = {"workspace_id": workspace, "connection_id": connection_id}
        api.ok("bob", f"{CONNECTIONS}/add_to_workspace", link)

    def listed(**asked: Any) -> list[str]:
        return [record["id"] for record in api.ok("bob", f"{CONNECTIONS}/list", asked)["connections"]]

    assert listed() == ids
    assert listed(limit=2) == ids[:2]
    assert listed(limit=2, after=ids[1]) == ids[2:4]
    assert listed(after=ids[1]) == ids[2:]
    assert listed(limit=10_000, after=ids[4]) == []
    assert listed(workspace_id=workspace, limit=2) == [ids[4], ids[0]]
    assert listed(workspace_id=workspace, limit=2, after=ids[0]) == [ids[2]]
    unlinked = {"workspace_id": workspace, "after": ids[1]}
    assert api.post("bob", f"{CONNECTIONS}/list", unlinked).status_code == 404
    assert api.post("eve", f"{CONNECTIONS}/list", {"after": ids[1]}).status_code == 404


@pytest.mark.parametrize("limit", [0, -1, 10_001, "5", 1.5, True])
def test_a_page_has_between_one_and_ten_thousand_connections(api: Api, limit: object) -> None:
    answered = api.post("bob", f"{CONNECTIONS}/list", {"limit": limit})

    assert answered.status_code == 400
    assert "limit" in answered.json()["msg"]


@pytest.mark.parametrize(
    ("asked", "headers", "revealed"),
    [
        ({}, {}, True),
        ({}, {"X-Bettong-Client": "sdk"}, False),
        ({"reveal": False}, {}, False),
        ({"reveal": True}, {"X-Bettong-Client": "sdk"}, True),
    ],
)
def test_details_come_when_asked_for_or_when_the_client_knows_no_better(
    api: Api, asked: dict[str, bool], headers: dict[str, str], revealed: bool
) -> None:
    api.ok("bob", "/v1/api/connections/create", {"name": "c", "type": "HTTP", "details": {"a": 1}})

    answered = api.post("bob", "/v1/api/connections/get", {"name": "c", **asked}, headers=headers)

    assert ("details" in answered.json()) is revealed
