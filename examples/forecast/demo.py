"""The main job from nothing to a prediction: `make demo`. Every step is a real call; the answer is checked."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import requests
from bundle import bundle
from serve_data import serve

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Iterator

FORECAST = [1764, 1749, 1743, 1741, 1740, 1740, 1740]
WEEKLY_AVERAGE = 1745.2858


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Say what is being done, then how long it took."""
    print(f"▸ {text}", flush=True)
    began = time.perf_counter()
    yield
    print(f"  {time.perf_counter() - began:.2f} s\n", flush=True)


def main() -> None:
    with step("Start the platform on this machine, or find it"):
        wl = wallaroo.Client()
    with step("Take a workspace of our own"):
        workspace = wl.get_workspace(name="tutorial-workspace-forecast", create_if_not_exist=True)
        wl.set_current_workspace(workspace)
    with step("Upload the model: a Python step with its own requirements, built into an environment of its own"):
        with tempfile.TemporaryDirectory() as folder:
            zips = {path.name: path for path in bundle(Path(folder))}
            model = wl.upload_model(
                "forecast-control-model",
                str(zips["forecast_standard.zip"]),
                Framework.PYTHON,
                input_schema=pa.schema([pa.field("count", pa.list_(pa.int32()))]),
                output_schema=pa.schema(
                    [pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())]
                ),
            )
        print(f"  {model.name()} version {model.version()} is {model.status()}")
    with step("Build the pipeline and deploy it"):
        pipeline = wl.build_pipeline("rental-forecast")
        pipeline.clear()
        pipeline.add_model_step(wl.get_model("forecast-control-model"))
        config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("1Gi").build()
        pipeline.deploy(deployment_config=config)
        print(f"  {pipeline.status()['status']} at {pipeline.url()}")
    with serve() as source:
        with step("Keep how to reach the data as a Connection, and link it to the workspace"):
            name = f"forecast-sample-connection-{int(time.time())}"
            wl.create_connection(name, "HTTP", {"url": f"{source}/testdata-standard.df.json"})
            workspace.add_connection(name)
            connection = workspace.list_connections()[-1]
            print(f"  {connection.name()} ({connection.connection_type()}), details sealed at rest")
        with step("Fetch the data through the Connection and infer"):
            rows = pd.DataFrame(requests.get(connection.details()["url"], timeout=10).json())
            result = pipeline.infer(rows)
            print(result.to_string(max_colwidth=48))
        connection.delete_connection()
    with step("Read the inference log of the last minute back"):
        now = datetime.now(UTC)
        log = pipeline.logs(start_datetime=now - timedelta(minutes=1), end_datetime=now + timedelta(minutes=1))
        print(log[["time", "out.forecast", "out.weekly_average"]].to_string())
    with step("Undeploy"):
        pipeline.undeploy()
    forecast, average = list(result["out.forecast"][0]), float(result["out.weekly_average"][0])
    if forecast != FORECAST or abs(average - WEEKLY_AVERAGE) > 1e-3:
        sys.exit(f"The forecast is {forecast} with average {average}; expected {FORECAST} and {WEEKLY_AVERAGE}.")
    print(f"The next seven days: {json.dumps(forecast)}, {average:.4f} a day on average, as expected.")


if __name__ == "__main__":
    home = Path(__file__).parents[2] / "build" / "demo"
    os.environ["BETTONG_HOME"] = str(home)  # a platform of its own: it is stopped at the end
    try:
        main()
    finally:
        subprocess.run([sys.executable, "-m", "bettong", "stop"], check=True)
        print(f"Nothing is left running. What the demo made is in {home}; delete it when you like.")
