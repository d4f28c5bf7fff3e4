"""The Connections tutorial, cell by cell, against a workspace that someone prepared before (spec, chapter 0)."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
import requests

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(300)

NAME = "tutorial-workspace-prepared"
INPUT = pa.schema([pa.field("count", pa.list_(pa.int32()))])
OUTPUT = pa.schema([pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())])


def table(shown: Any) -> dict[str, str]:
    """The rows of an object's two-column HTML table: field → value, as texts, in the order shown."""
    rows = re.findall(r"<tr>\s*<(?:th|td)>([^<]*)</(?:th|td)>\s*<td>(.*?)</td>\s*</tr>", shown._repr_html_(), re.DOTALL)
    return {key: html.unescape(re.sub(r"<[^>]+>", "", value)).strip() for key, value in rows}


@pytest.fixture(scope="module")
def prepared(shared_home: object, zips: dict[str, str]) -> Iterator[None]:
    """Three model families, the control model with three versions, and a pipeline that was deployed once."""
    wl = wallaroo.Client()
    workspace = wl.get_workspace(name=NAME, create_if_not_exist=True)
    wl.set_current_workspace(workspace)
    for name, zip_name in [
        ("forecast-control-model", "standard"),
        ("forecast-challenger01-model", "alternate01"),
        ("forecast-challenger02-model", "alternate02"),
        ("forecast-control-model", "alternate01"),
        ("forecast-control-model", "standard"),
    ]:
        version = wl.upload_model(name, zips[zip_name], Framework.PYTHON, input_schema=INPUT, output_schema=OUTPUT)
        assert version.status() == "ready", version.get_upload_logs()
    wl.build_pipeline("rental-forecast")
    yield
    wl.get_pipeline("rental-forecast").undeploy()


def test_the_tutorial_runs_cell_by_cell(prepared: None, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wl = wallaroo.Client()

    # the workspace
    workspace = wl.get_workspace(name=NAME, create_if_not_exist=True)
    shown = repr(wl.set_current_workspace(workspace))
    assert re.match(
        rf"\{{'name': '{NAME}', 'id': \d+, 'archived': False, 'created_by': '[0-9a-f-]{{36}}', 'created_at'", shown
    )
    assert [m.name() for m in workspace.models()] == [
        "forecast-control-model",
        "forecast-challenger01-model",
        "forecast-challenger02-model",
    ]
    assert "'name': 'forecast-control-model', 'versions': 3," in shown

    # the model
    model = wl.get_model("forecast-control-model")
    shown_model = table(model)
    assert list(shown_model) == [
        "Name",
        "Version",
        "File Name",
        "SHA",
        "Status",
        "Error Summary",
        "Image Path",
        "Architecture",
        "Acceleration",
        "Updated At",
        "Workspace id",
        "Workspace name",
    ]
    assert shown_model["Name"] == "forecast-control-model"
    assert re.fullmatch(r"[0-9a-f-]{36}", shown_model["Version"])
    assert shown_model["File Name"] == "forecast_standard.zip"
    assert re.fullmatch(r"[0-9a-f]{64}", shown_model["SHA"])
    assert shown_model["Status"] == "ready"
    assert shown_model["Architecture"] in ("x86", "arm")
    assert shown_model["Acceleration"] == "none"
    assert shown_model["Image Path"] not in ("", "None")
    assert re.fullmatch(r"\d{4}-\d{2}-[A-Z][a-z]{2} \d{2}:\d{2}:\d{2}", shown_model["Updated At"])
    assert shown_model["Workspace name"] == NAME

    # the pipeline
    pipeline = wl.get_pipeline("rental-forecast")
    before = table(pipeline)
    assert list(before) == [
        "name",
        "created",
        "last_updated",
        "deployed",
        "workspace_id",
        "workspace_name",
        "arch",
        "accel",
        "tags",
        "versions",
        "steps",
        "published",
    ]
    assert before["deployed"] == "(none)"
    assert before["steps"] == ""
    assert before["published"] == "False"

    # deploy
    deploy_config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("1Gi").build()
    pipeline.clear()
    pipeline.add_model_step(model)
    pipeline.deploy(deployment_config=deploy_config)
    after = table(pipeline)
    assert after["deployed"] == "True"
    assert after["steps"] == "forecast-control-model"
    assert len(after["versions"].split(",")) == len(before["versions"].split(",")) + 1
    status = pipeline.status()
    assert status["status"] == "Running"
    assert list(status)[:5] == ["status", "details", "engines", "engine_lbs", "sidekicks"]
    (engine,) = status["engines"]
    assert list(engine)[:5] == ["ip", "name", "status", "reason", "details"]
    assert engine["pipeline_statuses"] == {
        "pipelines": [{"id": "rental-forecast", "status": "Running", "version": pipeline.versions()[0].name()}]
    }
    (model_status,) = engine["model_statuses"]["models"]
    assert model_status["sha"] == model.sha()
    assert status["sidekicks"][0]["name"].startswith(f"engine-sidekick-{model.uid()}")

    # the connection
    name = "forecast-connection-in-order"
    connection = wl.create_connection(name, "HTTP", {"host": f"{source}/testdata-standard.df.json"})
    shown_connection = table(connection)
    assert list(shown_connection) == ["Name", "Connection Type", "Details", "Created At", "Linked Workspaces"]
    assert shown_connection["Details"] == "*****"
    assert shown_connection["Linked Workspaces"] == "[]"
    workspace.add_connection(name)
    linked = workspace.list_connections()[-1]
    assert linked.name() == name
    assert table(wl.get_connection(name))["Linked Workspaces"] == f"['{NAME}']"
    assert "*****" in workspace.list_connections()._repr_html_()
    assert source not in workspace.list_connections()._repr_html_()

    # fetch, infer, shape the results for a database
    df = pd.DataFrame(requests.get(linked.details()["host"], timeout=10).json())
    results = pipeline.infer(df)
    assert list(results.columns) == ["time", "in.count", "out.forecast", "out.weekly_average", "anomaly.count"]
    output = results.loc[:, ["time", "out.forecast", "out.weekly_average"]].rename(
        columns=lambda c: c.replace(".", "_")
    )
    assert list(output.columns) == ["time", "out_forecast", "out_weekly_average"]
    assert list(output.loc[0, "out_forecast"]) == [1764, 1749, 1743, 1741, 1740, 1740, 1740]

    # undeploy
    versions = len(pipeline.versions())
    pipeline.undeploy()
    assert table(pipeline)["deployed"] == "False"
    assert len(pipeline.versions()) == versions
    assert pipeline.status() == {"status": "Pipeline rental-forecast is not deployed"}
