"""Whoever is not a member of a workspace sees nothing of it, on any route, and cannot tell that it is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import Api, Platform, definition, open_platform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Things = dict[str, Any]
API = "/v1/api"

# Per route that names something: the request for a thing of bob's.
NAMING: dict[str, Callable[[Things], Things]] = {
    "/workspaces/get": lambda t: {"id": t["workspace"]},
    "/workspaces/list_users": lambda t: {"workspace_id": t["workspace"]},
    "/workspaces/add_user": lambda t: {"workspace_id": t["workspace"], "email": "eve@example.org"},
    "/workspaces/remove_user": lambda t: {"workspace_id": t["workspace"], "email": "bob@example.org"},
    "/models/get_version_by_id": lambda t: {"model_version_id": t["model_version"]},
    "/models/get_model_version_by_id": lambda t: {"model_version_id": t["model_version"]},
    "/models/list": lambda t: {"workspace_id": t["workspace"]},
    "/models/get": lambda t: {"id": t["model"]},
    "/models/list_versions": lambda t: {"models_pk_id": t["model"]},
    "/models/list_versions_for_model": lambda t: {"model_id": "forecast", "workspace_id": t["workspace"]},
    "/models/insert_model_config": lambda t: {"model_version_id": t["model_version"]},
    "/models/get_config_by_id": lambda t: {"model_id": t["model_version"]},
    "/models/get_upload_logs": lambda t: {"model_version_id": t["model_version"]},
    "/models/search": lambda t: {"workspace_id": t["workspace"]},
    "/pipelines/create": lambda t: {"pipeline_id": "mine", "workspace_id": t["workspace"]},
    "/pipelines/get_pipeline_by_name": lambda t: {"pipeline_name": "rental", "workspace_id": t["workspace"]},
    "/pipelines/list_pipelines": lambda t: {"workspace_name": "forecasts"},
    "/pipelines/list_pipeline_versions": lambda t: {"pipeline_id": "rental", "workspace_id": t["workspace"]},
    "/pipelines/get_version": lambda t: {"version": t["version_uuid"]},
    "/pipelines/search": lambda t: {"workspace_id": t["workspace"]},
    "/pipelines/deploy": lambda t: {"deploy_id": "rental", "pipeline_version_pk_id": t["version"]},
    "/pipelines/undeploy": lambda t: {"pipeline_id": t["pipeline"]},
    "/pipelines/get_logs": lambda t: {"pipeline_name": "rental", "workspace_id": t["workspace"]},
    "/pipelines/get_sidekick_pod_logs": lambda t: {
        "pipeline_name": "rental",
        "workspace_name": "forecasts",
        "sidekick_name": f"forecast-{t['model_version']}",
    },
    "/deployments/get": lambda t: {"id": t["deployment"]},
    "/status/get_deployment": lambda t: {"name": f"rental-{t['deployment']}"},
    "/admin/get_pipeline_external_url": lambda t: {"workspace_id": t["workspace"], "pipeline_name": "rental"},
    "/admin/get_pipeline_internal_url": lambda t: {"workspace_id": t["workspace"], "pipeline_name": "rental"},
    "/jobs/infer_batch": lambda t: {
        "pipeline_id": t["pipeline"],
        "source": t["end"],
        "sink": {**t["end"], "table": "t"},
    },
    "/jobs/infer_stream": lambda t: {"pipeline_id": t["pipeline"], "source": t["end"], "sink": t["end"]},
    "/jobs/replay": lambda t: {"pipeline_id": t["pipeline"], "start": "2026-01-01T00:00Z", "end": "2026-01-02T00:00Z"},
    "/jobs/list": lambda t: {"workspace_id": t["workspace"]},
    "/logs/sql": lambda t: {"query": "select 1 from logs('rental')", "workspace_id": t["workspace"]},
    "/metrics/pipeline": lambda t: {"pipeline_id": t["pipeline"]},
    "/plateau/get_topic_name": lambda t: {"pipeline_pk_id": t["pipeline"]},
    "/plateau/get_pipeline_topic_name": lambda t: {"pipeline_name": "rental", "workspace_id": t["workspace"]},
    "/connections/get": lambda t: {"name": "warehouse"},
    "/connections/get_by_id": lambda t: {"id": t["connection"], "reveal": True},
    "/connections/list": lambda t: {"workspace_id": t["workspace"]},
    "/connections/add_to_workspace": lambda t: {"workspace_id": t["eves"], "connection_id": t["connection"]},
    "/connections/remove_from_workspace": lambda t: {"workspace_id": t["eves"], "connection_id": t["connection"]},
    "/connections/delete": lambda t: {"name": "warehouse"},
    "/connections/test": lambda t: {"id": t["connection"]},
    "/connections/browse": lambda t: {"name": "warehouse"},
    "/connections/preview": lambda t: {"id": t["connection"], "table": "t"},
    "/connections/read": lambda t: {"id": t["connection"], "query": "t"},
    "/connections/update": lambda t: {"id": t["connection"], "details": {"password": "*****"}},
    "/connections/rotate": lambda t: {"id": t["connection"], "details": {"password": "x"}},
    "/connections/masked": lambda t: {"id": t["connection"]},
    "/connections/export": lambda t: {"workspace_id": t["workspace"]},
    "/connections/versions": lambda t: {"id": t["connection"]},
    "/connections/rollback": lambda t: {"id": t["connection"], "version": 1},
    "/connections/purge": lambda t: {"id": t["connection"]},
    "/connections/used_by": lambda t: {"id": t["connection"]},
    "/connections/audit": lambda t: {"id": t["connection"]},
    "/connections/set_use_only": lambda t: {"id": t["connection"], "use_only": False},
    # for administrators, so they are not there for eve either
    "/users/invite": lambda t: {"email": "new@example.org"},
    "/users/create_token": lambda t: {"email": "bob@example.org"},
    "/users/activate": lambda t: {"email": "bob@example.org"},
    "/users/deactivate": lambda t: {"email": "bob@example.org"},
    "/platform/stop": lambda t: {},
    "/platform/keys/list": lambda t: {},
    "/platform/keys/add": lambda t: {},
    "/platform/keys/reseal": lambda t: {},
}
# Routes that name nothing: their answer is about the caller, or limited to what the caller may see.
OWN = {
    "/auth/token",
    "/features/list",
    "/users/query",
    "/workspaces/list",
    "/workspaces/create",
    "/workspaces/default",
    "/connections/create",
    "/connections/drivers",
    "/deployments/list",
}
# Tried below by hand: multipart, the engine's error shape, and paths that hold a name.
BY_HAND = {
    "/jobs/{job_id}",  # these in test_jobs.py
    "/jobs/{job_id}/cancel",
    "/jobs/{job_id}/log",
    "/jobs/{job_id}/rejects",
    "/jobs/{job_id}/result",
    "/connections/write",  # in test_connections.py
    "/models/upload",
    "/models/upload_and_convert",
    "/pipelines/infer/{label}/{name}",
    "/v1/logs/topic/{topic}",
    "/v1/logs/topic/{topic}/records",
}
OPEN = {"/health", "/config", "/platform/status", "/metrics"}


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Api, Platform, Things]]:
    with open_platform(tmp_path_factory.mktemp("home")) as platform, platform.api() as api:
        bob = platform.principal("bob")
        workspace = platform.workspace("bob")
        bob = platform.principal("bob")
        model = platform.model("bob", workspace)
        version = platform.pipeline("bob", workspace, model)
        row, _ = platform.services.deployments.deploy(bob, "rental", {}, pipeline_version_id=version.id)
        connection = platform.services.connections.create(bob, "warehouse", "HTTP", {"password": "marker-9f3"})
        platform.services.connections.link(bob, workspace, connection.id)
        yield (
            api,
            platform,
            {
                "workspace": workspace,
                "eves": platform.workspace("eve", "eves-own"),
                "model": model.model_id,
                "model_version": model.id,
                "pipeline": version.pipeline_id,
                "version": version.id,
                "version_uuid": version.version,
                "deployment": row.id,
                "connection": connection.id,
                "end": {"connection_id": connection.id},
            },
        )


def test_every_route_is_tried_here(things: tuple[Api, Platform, Things]) -> None:
    api, _, _ = things
    known = {path if path.startswith("/v1/") else API + path for path in {*NAMING, *OWN, *BY_HAND, *OPEN}}

    assert set(api.shapes) == known


@pytest.mark.parametrize("path", sorted(NAMING))
def test_a_stranger_finds_nothing(path: str, things: tuple[Api, Platform, Things]) -> None:
    api, _, of_bob = things

    answered = api.post("eve", API + path, NAMING[path](of_bob))

    assert answered.status_code == 404, answered.text
    assert "marker-9f3" not in answered.text
    assert answered.json()["error"] == "not_found"


@pytest.mark.parametrize("path", sorted(p for p in NAMING if "connection" not in p and "/users" not in p))
def test_a_stranger_cannot_tell_what_is_hidden_from_what_is_not_there(
    path: str, things: tuple[Api, Platform, Things]
) -> None:
    api, _, of_bob = things
    nowhere: Things = {
        key: 9_999 if isinstance(value, int) else "0" * 36 for key, value in of_bob.items() if key != "end"
    }
    nowhere["end"] = {"connection_id": nowhere["connection"]}

    hidden = api.post("eve", API + path, NAMING[path](of_bob)).json()
    absent = api.post("eve", API + path, NAMING[path](nowhere)).json()

    def without_ids(text: str) -> str:
        for value in {*map(str, of_bob.values()), *map(str, nowhere.values())}:
            text = text.replace(value, "…")
        return text

    assert without_ids(hidden["msg"]) == without_ids(absent["msg"])


@pytest.mark.parametrize("path", ["/workspaces/list", "/deployments/list", "/connections/list", "/models/list"])
def test_lists_hold_nothing_of_strangers(path: str, things: tuple[Api, Platform, Things]) -> None:
    api, _, _ = things

    text = api.post("eve", API + path).text

    assert not any(word in text for word in ("forecast", "rental", "warehouse", "bob@"))


def test_a_stranger_cannot_upload_into_a_workspace(things: tuple[Api, Platform, Things]) -> None:
    api, _, of_bob = things
    meta = f'{{"name": "m", "workspace_id": {of_bob["workspace"]}, "conversion": {{"framework": "python"}}}}'
    for path in ("/models/upload", "/models/upload_and_convert"):
        parts = {"metadata": (None, meta, "application/json"), "file": ("m.zip", b"x")}
        assert api.send("eve", "POST", API + path, files=parts).status_code == 404


def test_a_stranger_cannot_infer_or_read_logs(things: tuple[Api, Platform, Things]) -> None:
    api, _, of_bob = things
    label, topic = f"rental-{of_bob['deployment']}", f"workspace-{of_bob['workspace']}-pipeline-rental-inference"

    inferred = api.post("eve", f"{API}/pipelines/infer/{label}/rental", [{"count": [1]}])
    assert (inferred.status_code, inferred.json()["source"]) == (404, "engine")
    assert api.send("eve", "GET", f"/v1/logs/topic/{topic}").status_code == 404
    assert api.send("eve", "POST", f"/v1/logs/topic/{topic}/records", json={}).status_code == 404
    assert api.send("bob", "POST", f"/v1/logs/topic/{topic}/records", json={}).status_code == 200


def test_a_pipeline_cannot_borrow_a_model_that_its_maker_may_not_see(things: tuple[Api, Platform, Things]) -> None:
    api, platform, of_bob = things
    model = platform.stores.models.version(of_bob["model_version"])
    body = {"pipeline_id": "thief", "workspace_id": of_bob["eves"], "definition": definition("thief", model)}

    answered = api.post("eve", f"{API}/pipelines/create", body)

    assert answered.status_code == 400
    assert "is not there" in answered.json()["msg"]


def test_platform_status_tells_a_stranger_of_own_things_only(things: tuple[Api, Platform, Things]) -> None:
    api, _, _ = things

    assert api.send("eve", "GET", f"{API}/platform/status").json()["deployments"] == 0
    assert api.send("bob", "GET", f"{API}/platform/status").json()["deployments"] == 1


def test_a_member_reads_but_only_the_creator_or_an_administrator_deletes_a_connection(tmp_path: Path) -> None:
    with open_platform(tmp_path) as platform, platform.api() as api:
        workspace = platform.workspace("bob")
        made = api.ok("bob", f"{API}/connections/create", {"name": "c", "type": "HTTP", "details": {"a": 1}})
        api.ok("bob", f"{API}/connections/add_to_workspace", {"workspace_id": workspace, "connection_id": made["id"]})
        api.ok("bob", f"{API}/workspaces/add_user", {"workspace_id": workspace, "email": "eve@example.org"})

        assert api.ok("eve", f"{API}/connections/get", {"name": "c", "reveal": True})["details"] == {"a": 1}
        assert api.post("eve", f"{API}/connections/delete", {"name": "c"}).status_code == 403
        taken_out = {"workspace_id": workspace, "email": "eve@example.org"}
        assert api.ok("bob", f"{API}/workspaces/remove_user", taken_out) == {"affected_rows": 1}
        assert api.post("eve", f"{API}/connections/get", {"name": "c"}).status_code == 404
        assert api.post("ann", f"{API}/connections/delete", {"name": "c"}).status_code == 204


def test_no_token_or_a_bad_one_is_a_plain_401_before_anything_else(things: tuple[Api, Platform, Things]) -> None:
    api, _, _ = things
    for path in (f"{API}/connections/list", f"{API}/nothing/here", f"{API}/pipelines/infer/a-1/a"):
        missing = api.send(None, "POST", path, content=b"{rubbish")
        assert (missing.status_code, missing.text) == (401, "Jwt is missing")
        for wrong in ("bt_wrong", "eyJhbGciOiJub25lIn0.e30.", "é"):
            bad = api.send(None, "POST", path, headers={"Authorization": f"Bearer {wrong}".encode()})
            assert (bad.status_code, bad.text) == (401, "Jwt verification fails")
            assert bad.headers["content-type"].startswith("text/plain")


def test_an_access_token_serves_as_well_and_sees_what_was_made_after_it(things: tuple[Api, Platform, Things]) -> None:
    api, platform, _ = things
    access = api.ok("bob", f"{API}/auth/token")["access_token"]
    made = platform.workspace("bob", "made-later")

    assert api.ok(access, f"{API}/workspaces/get", {"id": made})["users"] == ["bob@example.org"]
    assert made in api.ok(access, f"{API}/auth/token")["workspace_ids"]


def test_a_deactivated_user_is_nobody_with_either_token(things: tuple[Api, Platform, Things]) -> None:
    api, _, _ = things
    access = api.ok("eve", f"{API}/auth/token")["access_token"]
    api.ok("ann", f"{API}/users/deactivate", {"email": "EVE@example.org"})
    try:
        assert api.post("eve", f"{API}/workspaces/list").status_code == 401
        assert api.post(access, f"{API}/workspaces/list").status_code == 401
    finally:
        api.ok("ann", f"{API}/users/activate", {"email": "eve@example.org"})
    assert api.post("eve", f"{API}/workspaces/list").status_code == 200
