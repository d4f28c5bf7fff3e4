"""What people type wrong, and what they are told to do about it; nothing of it leaves the notebook."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from unit.wallaroo.stub import UUIDS, Reply, StubPlatform, error, model_entry, model_version

from wallaroo import DeploymentConfigBuilder
from wallaroo._html import text_grid
from wallaroo.framework import Framework
from wallaroo.object import EntityNotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

SCHEMA = pa.schema([pa.field("count", pa.int32())])


def upload(client: Client, path: str | Path, **changes: Any) -> None:
    client.upload_model("m", path, Framework.PYTHON, **{"input_schema": SCHEMA, "output_schema": SCHEMA, **changes})


def test_a_path_that_is_wrong_says_from_where_it_was_looked_for(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = re.escape(f"'models/m.zip'. It was looked for from the working folder, '{tmp_path}'.")
    with pytest.raises(FileNotFoundError, match=told):
        upload(client, "models/m.zip")
    with pytest.raises(FileNotFoundError, match=r"There is no model file at '/nowhere/m\.zip'\.$"):
        upload(client, "/nowhere/m.zip")


def test_a_folder_is_to_be_zipped_first(client: Client, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"is a folder\. Zip what is in it"):
        upload(client, tmp_path)


def test_a_schema_that_is_missing_shows_how_one_is_written(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'output_schema' required for this framework\. .*output_schema=pa\.schema"):
        upload(client, tmp_path / "m.zip", output_schema=None)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (
            DeploymentConfigBuilder().cpus(1),
            r"is a DeploymentConfigBuilder, not a deployment config\. Call its build\(\)",
        ),
        ("big", r"is a str, not a deployment config\. Make one with the builder"),
    ],
)
def test_a_deployment_config_that_is_none_is_refused_before_a_version_is_made(
    pipeline: Pipeline, platform: StubPlatform, config: Any, text: str
) -> None:
    platform.on("/v1/api/pipelines/list_pipeline_versions", {"pipeline_versions": []})
    with pytest.raises(TypeError, match=text):
        pipeline.deploy(deployment_config=config)
    assert platform.calls("/v1/api/pipelines/create") == []


def test_a_workspace_is_no_name(client: Client) -> None:
    with pytest.raises(TypeError, match=r"Workspace type was expected, not str\. Get one with get_workspace"):
        client.set_current_workspace("forecast")  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_is_above_zero(pipeline: Pipeline, platform: StubPlatform, timeout: float) -> None:
    with pytest.raises(ValueError, match="Give a number of seconds above 0"):
        pipeline.infer(pd.DataFrame({"count": [1]}), timeout=timeout)
    assert platform.calls("/replica") == []


def test_a_log_has_at_least_one_row_and_no_more_than_a_page(pipeline: Pipeline, platform: StubPlatform) -> None:
    topic = "/v1/logs/topic/workspace-8-pipeline-rental-inference/records"
    platform.on(topic, error(404, "nothing was logged"))
    with pytest.raises(ValueError, match=r"limit is 0\. Give a number of rows, 1 or more"):
        pipeline.logs(limit=0)
    pipeline.logs(limit=10**6)
    assert dict(platform.calls(topic)[0].query)["page_size"] == "10000"


@pytest.mark.parametrize(
    ("details", "kind", "text"),
    [
        ({"password": {"hunter2"}}, TypeError, "set is not JSON serializable"),
        ({"a": {"b": float("nan")}}, ValueError, "a number that is none"),
    ],
)
def test_details_that_are_no_json_are_named_by_their_type_and_not_by_their_value(
    client: Client, platform: StubPlatform, details: dict[str, Any], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=f"The details of connection 'warehouse' are no JSON: .*{text}.*Use texts") as caught:
        client.create_connection("warehouse", "HTTP", details)
    assert "hunter2" not in str(caught.value)
    assert platform.calls("/v1/api/connections/create") == []


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (lambda c: c.get_model("m"), r"list_models\(\) shows those of the current workspace; set_current_workspace"),
        (lambda c: c.get_model("control", UUIDS[1]), "Model 'control' has 1; without a version"),
        (lambda c: c.model_by_name("control", UUIDS[1]), "A version is named by its UUID"),
        (lambda c: c.get_pipeline("p"), r"list_pipelines\(\) shows those of every workspace; set_current_workspace"),
        (lambda c: c.get_pipeline("rental", UUIDS[7]), r"Pipeline 'rental' has 0: see its versions\(\)"),
        (lambda c: c.pipelines_by_name("p"), r"list_pipelines\(\) shows those that you may see"),
        (lambda c: c.deployment_by_name("p"), r"list_deployments\(\) shows those that you may see"),
    ],
)
def test_what_is_not_there_says_where_to_look(
    client: Client, pipeline: Pipeline, platform: StubPlatform, ask: Callable[[Client], object], text: str
) -> None:
    control = model_entry(model_version())
    platform.on(
        "/v1/api/models/list_versions_for_model",
        lambda asked: Reply({"models": [control] if asked.json["model_id"] == "control" else []}),
    )
    platform.on("/v1/api/models/list", {"models": [control]})
    platform.on("/v1/api/pipelines/list_pipelines", {"pipelines": []})
    platform.on("/v1/api/pipelines/list_pipeline_versions", {"pipeline_versions": []})
    known = pipeline._record
    platform.on(
        "/v1/api/pipelines/get_pipeline_by_name",
        lambda asked: Reply(known) if asked.json["pipeline_name"] == "rental" else error(404, "no"),
    )
    with pytest.raises(EntityNotFoundError, match=text):
        ask(client)


def test_a_builder_shows_what_it_would_build() -> None:
    assert repr(DeploymentConfigBuilder().cpus(2)).startswith("DeploymentConfigBuilder: {'engine': {'cpu': 2")


def test_rows_of_a_terminal_stay_lines() -> None:
    head, row = text_grid(("name", "versions", "x"), [("rental", ", ".join(UUIDS), None)]).splitlines()
    assert row == f"rental  {UUIDS[0]}, 0…"
    assert head == f"name    {'versions'.ljust(40)}  x"
