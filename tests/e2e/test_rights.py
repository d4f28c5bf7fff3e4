"""Two people who are no administrators: what is one's is nothing to the other, at the server and at the replicas."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd
import pyarrow as pa
import pytest
from builders import python_model_zip
from platforms import bettong

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

X, Y = pa.schema([pa.field("x", pa.float64())]), pa.schema([pa.field("y", pa.float64())])
CODE = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": input_data["x"] + 1}
"""


@dataclass(frozen=True)
class Person:
    """Someone with an API token, and no SDK between them and the wire."""

    email: str
    token: str
    url: str

    def ask(self, route: str, body: object, *, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", "X-Bettong-Client": "test"}
        return httpx.post(f"{self.url}/v1/api{route}", json=body, headers=headers, timeout=30)

    def access_token(self) -> str:
        told: str = self.ask("/auth/token", {}).json()["access_token"]
        return told

    def infer(self, replica: str, *, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token or self.access_token()}"}
        return httpx.post(replica, json=[{"x": 1.0}], headers=headers, timeout=30)


@dataclass(frozen=True)
class Bobs:
    """What bob has: a workspace with a deployed pipeline and a connection, all of his own."""

    wl: wallaroo.Client
    workspace: Any
    pipeline: Any
    replica: str
    connection: str


def invited(home: Path, name: str, folder: Path) -> tuple[Person, Path]:
    """A new user with a token, as an administrator makes one, and the credentials file for their notebook."""
    email = f"{name}@example.org"
    printed = bettong("tokens", "create", email, "--invite", "--label", "a test", "--json", home=home).stdout
    credentials = folder / f"{name}.json"
    credentials.write_text(printed)
    told = json.loads(printed)
    assert told["user_email"] == email
    return Person(email, told["token"], json.loads((home / "server.json").read_text())["url"]), credentials


@pytest.fixture(scope="module")
def people(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bobs, Person, Person]]:
    """Bob's things, bob, and eve."""
    folder = tmp_path_factory.mktemp("people")
    bettong("up", home=shared_home)
    bob, credentials = invited(shared_home, "bob", folder)
    eve, _ = invited(shared_home, "eve", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WALLAROO_SDK_CREDENTIALS", str(credentials))
        wl = wallaroo.Client(api_endpoint=bob.url, auth_type="token")
    workspace = wl.create_workspace("bobs-workspace")
    wl.set_current_workspace(workspace)
    archive = python_model_zip(folder / "bobs.zip", CODE)
    wl.upload_model("bobs-model", str(archive), Framework.PYTHON, input_schema=X, output_schema=Y)
    pipeline = wl.build_pipeline("bobs-pipeline").add_model_step(wl.get_model("bobs-model"))
    config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("512Mi").build()
    pipeline.deploy(deployment_config=config)
    wl.create_connection("bobs-connection", "HTTP", {"token": "for members alone"})
    workspace.add_connection("bobs-connection")
    yield Bobs(wl, workspace, pipeline, pipeline.url(), "bobs-connection"), bob, eve
    pipeline.undeploy()


@pytest.mark.timeout(240)
def test_a_stranger_finds_nothing_of_it_on_the_server(people: tuple[Bobs, Person, Person]) -> None:
    bobs, _, eve = people
    workspace, name = bobs.workspace.id(), bobs.pipeline.name()
    external = bobs.pipeline.get_external_url()

    seen = [
        eve.ask(route, {}).text
        for route in ("/workspaces/list", "/models/list", "/pipelines/list_pipelines", "/deployments/list")
    ]
    seen += [eve.ask("/connections/list", {}).text, eve.ask("/models/search", {"search_term": "bobs"}).text]
    refused = [
        eve.ask("/workspaces/get", {"id": workspace}),
        eve.ask("/workspaces/add_user", {"workspace_id": workspace, "email": eve.email}),
        eve.ask("/pipelines/get_pipeline_by_name", {"pipeline_name": name, "workspace_id": workspace}),
        eve.ask("/pipelines/undeploy", {"pipeline_id": bobs.pipeline.id()}),
        eve.ask("/pipelines/get_logs", {"pipeline_name": name, "workspace_id": workspace}),
        eve.ask("/connections/get", {"name": bobs.connection, "reveal": True}),
        httpx.post(external, json=[{"x": 1.0}], headers={"Authorization": f"Bearer {eve.token}"}, timeout=30),
    ]

    assert [text for text in seen if "bobs" in text] == []
    assert [r.status_code for r in refused] == [404] * len(refused)
    assert [r.text for r in refused if "for members alone" in r.text] == []
    assert bobs.pipeline.infer(pd.DataFrame({"x": [1.0]})).loc[0, "out.y"] == 2.0


def test_a_stranger_finds_nothing_of_it_at_the_replica(people: tuple[Bobs, Person, Person]) -> None:
    bobs, bob, eve = people
    origin = bobs.replica.partition("/pipelines/")[0]

    strangers, nowhere = eve.infer(bobs.replica), eve.infer(f"{origin}/pipelines/never-there")
    documents = [
        httpx.get(f"{origin}{path}", headers={"Authorization": f"Bearer {eve.access_token()}"})
        for path in ("/pipelines", "/models")
    ]

    assert strangers.status_code == nowhere.status_code == 404
    assert strangers.json() == nowhere.json()
    assert [d.status_code for d in documents] == [404, 404]
    assert httpx.post(bobs.replica, json=[{"x": 1.0}]).status_code == 401
    assert eve.infer(bobs.replica, token=eve.token).status_code == 401  # replicas take access tokens alone
    assert bob.infer(bobs.replica).status_code == 200


def test_a_collaborator_may_infer_until_removed_and_at_most_a_minute_longer(
    people: tuple[Bobs, Person, Person],
) -> None:
    bobs, _, eve = people
    reveal = {"name": bobs.connection, "reveal": True}
    bobs.workspace.add_user(eve.email)

    token = eve.access_token()
    while_in = eve.infer(bobs.replica, token=token)
    revealed = eve.ask("/connections/get", reveal)
    bobs.workspace.remove_user(eve.email)
    expires_at = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["exp"]

    assert (while_in.status_code, while_in.json()[0]["out"]) == (200, {"y": 2.0})
    assert revealed.json()["details"] == {"token": "for members alone"}
    assert expires_at - time.time() <= 60
    assert eve.infer(bobs.replica).status_code == 404
    for kind in (eve.token, token):  # the server looks up what holds now, whatever an access token says
        assert eve.ask("/connections/get", reveal, token=kind).status_code == 404
        assert eve.ask("/workspaces/get", {"id": bobs.workspace.id()}, token=kind).status_code == 404


def test_who_is_no_administrator_makes_no_token_and_stops_nothing(people: tuple[Bobs, Person, Person]) -> None:
    _, bob, eve = people

    refused = [
        eve.ask("/users/create_token", {"email": bob.email}),
        eve.ask("/users/invite", {"email": "mallory@example.org"}),
        eve.ask("/users/deactivate", {"email": bob.email}),
        eve.ask("/platform/stop", {}),
    ]

    assert [r.status_code for r in refused] == [404] * 4
    assert bob.ask("/workspaces/list", {}).status_code == 200


def test_a_token_for_nobody_teaches(shared_home: Path, people: object) -> None:
    unknown = bettong("tokens", "create", "nobody@example.org", home=shared_home, check=False)

    assert unknown.returncode != 0
    assert "Invite the user first" in unknown.stderr
    assert "bt_" not in unknown.stdout
