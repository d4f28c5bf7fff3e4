"""The notebook of the README, as a person types it, against a platform that nobody configured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = [1526, 1550, 1708, 1005, 1623, 1712, 1530, 1605, 1538, 1746, 1472, 1589, 1913, 1815, 2115, 2475, 2927, 1635]
ROW += [1812, 1107, 1450, 1917, 1807, 1461, 1969, 2402, 1446, 1851]
FORECAST = [1764, 1749, 1743, 1741, 1740, 1740, 1740]
COLUMNS = ["time", "in.count", "out.forecast", "out.weekly_average", "anomaly.count"]
INPUT = pa.schema([pa.field("count", pa.list_(pa.int32()))])
OUTPUT = pa.schema([pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())])


@pytest.fixture(scope="module")
def pipeline(shared_home: object, zips: dict[str, str]) -> Iterator[wallaroo.pipeline.Pipeline]:
    """The forecast pipeline, deployed."""
    wl = wallaroo.Client()
    workspace = wl.get_workspace(name="tutorial-workspace-forecast", create_if_not_exist=True)
    wl.set_current_workspace(workspace)
    wl.upload_model(
        "forecast-control-model", zips["standard"], Framework.PYTHON, input_schema=INPUT, output_schema=OUTPUT
    )
    model = wl.get_model("forecast-control-model")
    pipeline = wl.build_pipeline("rental-forecast")
    pipeline.clear()
    pipeline.add_model_step(model)
    config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("1Gi").build()
    pipeline.deploy(deployment_config=config)
    yield pipeline
    pipeline.undeploy()


@pytest.mark.timeout(300)
def test_rows_fetched_through_a_connection_are_forecast(
    wl: wallaroo.Client, pipeline: wallaroo.pipeline.Pipeline, source: str
) -> None:
    workspace = wl.get_workspace(name="tutorial-workspace-forecast")
    wl.create_connection("forecast-sample-connection", "HTTP", {"url": f"{source}/testdata-standard.df.json"})
    workspace.add_connection("forecast-sample-connection")
    connection = workspace.list_connections()[-1]

    df = pd.DataFrame(requests.get(connection.details()["url"], timeout=10).json())
    result = pipeline.infer(df)

    assert list(result.columns) == COLUMNS
    assert list(result.loc[0, "in.count"]) == ROW
    assert list(result.loc[0, "out.forecast"]) == FORECAST
    assert np.float32(result.loc[0, "out.weekly_average"]) == np.float32(1745.2858)
    assert result.loc[0, "anomaly.count"] == 0
    assert str(result["time"].dtype) == "datetime64[ms]"


def test_an_arrow_table_gives_an_arrow_table(pipeline: wallaroo.pipeline.Pipeline) -> None:
    result = pipeline.infer(pa.table({"count": pa.array([ROW, ROW], pa.list_(pa.int32()))}))

    assert isinstance(result, pa.Table)
    assert result.column_names == COLUMNS
    assert result["out.forecast"].to_pylist() == [FORECAST, FORECAST]
    assert result.schema.field("out.weekly_average").type == pa.float32()
    assert result.schema.field("time").type == pa.timestamp("ms")


def test_curl_reaches_the_pipeline_by_its_external_url(
    wl: wallaroo.Client, pipeline: wallaroo.pipeline.Pipeline
) -> None:
    answer = requests.post(
        pipeline.get_external_url(),
        data=json.dumps([{"count": ROW}]),
        headers={**wl.auth.auth_header(), "Content-Type": "application/json; format=pandas-records"},
        timeout=30,
    )

    assert answer.status_code == 200
    (row,) = answer.json()
    assert row["out"] == {"forecast": FORECAST, "weekly_average": 1745.2858}
    assert row["anomaly"] == {"count": 0}
    assert isinstance(row["time"], int)
    assert json.loads(row["metadata"]["last_model"])["model_name"] == "forecast-control-model"


def test_curl_with_arrow_gets_arrow_from_the_replica_itself(
    wl: wallaroo.Client, pipeline: wallaroo.pipeline.Pipeline
) -> None:
    table = pa.table({"count": pa.array([ROW], pa.list_(pa.int32()))})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    kind = "application/vnd.apache.arrow.file"

    answer = requests.post(
        pipeline.url(),
        data=sink.getvalue().to_pybytes(),
        headers={**wl.auth.auth_header(), "Content-Type": kind, "Accept": kind},
        timeout=30,
    )

    assert answer.status_code == 200
    result = pa.ipc.open_file(answer.content).read_all()
    assert result["out.forecast"].to_pylist() == [FORECAST]


def test_every_answer_is_in_the_log_newest_first(pipeline: wallaroo.pipeline.Pipeline) -> None:
    rows = [[*ROW[:-1], 1800 + n] for n in range(3)]
    answers = [pipeline.infer(pd.DataFrame({"count": [row]})) for row in rows]

    log = pipeline.logs(limit=3)

    assert list(log.columns) == COLUMNS
    assert [list(c) for c in log["in.count"]] == rows[::-1]
    assert [list(f) for f in log["out.forecast"]] == [list(a.loc[0, "out.forecast"]) for a in answers[::-1]]


def test_the_same_requirements_are_ready_in_a_moment(
    wl: wallaroo.Client, pipeline: wallaroo.pipeline.Pipeline, zips: dict[str, str]
) -> None:
    wl.set_current_workspace(wl.get_workspace(name="tutorial-workspace-forecast"))

    version = wl.upload_model(
        "forecast-challenger01-model", zips["alternate01"], Framework.PYTHON, input_schema=INPUT, output_schema=OUTPUT
    )

    assert version.status() == "ready"
    assert any("shared" in line.lower() or "found" in line.lower() for line in version.get_upload_logs())
