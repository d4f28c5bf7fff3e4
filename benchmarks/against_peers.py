"""Measure the platform beside other model servers, in one run of the driver that `--bench` names (run.py, load.lua).

    BENCH_VENVS=… BENCH_DATA=… python benchmarks/against_peers.py --bench ../shared/bench [--peers fastapi,mlserver,…]
        [--rounds 3] [--seconds 5] [--cells w1_json,…] [--out build/peers.jsonl]
    python benchmarks/against_peers.py --publish build/peers.jsonl      # into docs/performance.md, with a plot

A fresh platform is started, with three pipelines of two replicas each; every request is checked against a token of at
most a minute's life and logged, as always. The driver knows a target by one address, and each pipeline has its own:
each is a target here, and their lines are written under one name. `bettong` leaves the inputs out of the answer, as
peers do; `bettong+in` echoes them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import peers_page  # type: ignore[import-not-found]  # these two lie beside this file
import pyarrow as pa
from main_job import fresh_home, ours  # type: ignore[import-not-found]

from wallaroo.framework import Framework

ROOT = Path(__file__).parents[1]
PEERS = "fastapi,mlserver,bentoml-stock,litserve,ray,pytriton"
CELLS = {"mlp": ("w1_json", "w2_json", "w2_bin"), "conv": ("w3_json", "w3_bin"), "arima": ("w4_json",)}
MODEL_PACKAGES = ("numpy", "pandas", "patsy", "scipy", "statsmodels")
METADATA = "dataset.exclude[]=metadata"  # as the SDK asks
FORMS = {"bettong": f"?dataset.exclude[]=in&{METADATA}", "bettong+in": f"?{METADATA}"}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--bench", type=Path, help="the folder of run.py; needed unless --publish is given")
    asked.add_argument("--peers", default=PEERS, help="comma-separated targets beside ours; empty for ours alone")
    asked.add_argument("--rounds", default="3")
    asked.add_argument("--seconds", default="5")
    asked.add_argument("--cells", default=",".join(cell for cells in CELLS.values() for cell in cells))
    asked.add_argument("--out", type=Path, default=ROOT / "build" / "peers.jsonl")
    asked.add_argument("--table", type=Path, help="only print the tables of such a file")
    asked.add_argument("--publish", type=Path, nargs="+", help="only write the page from the lines of such files")
    options = asked.parse_args()
    if options.publish:
        peers_page.write(options.publish)
        return
    if options.bench is None:
        asked.error("--bench is needed: the folder of run.py")
    sys.path.insert(0, str(options.bench.resolve()))
    import run  # type: ignore[import-not-found]  # the driver

    if options.table:
        run.table(str(options.table), 0.35)
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with fresh_home() as home, tempfile.TemporaryDirectory() as folder:
        measured = Path(folder) / "lines.jsonl"
        ours = deployed(home, run, Path(os.environ["BENCH_DATA"]))
        sys.argv = [
            "run.py", "--targets", ",".join([*ours, *filter(None, options.peers.split(","))]), "--cells", options.cells,
            "--rounds", options.rounds, "--seconds", options.seconds, "--out", str(measured),
        ]  # fmt: skip
        run.main()
        with options.out.open("a") as out:
            for line in measured.read_text().splitlines():
                document = json.loads(line)
                document["target"] = document["target"].partition(":")[0]
                out.write(json.dumps(document) + "\n")
    run.table(str(options.out), 0.35)


def deployed(home: Path, run: Any, data: Path) -> list[str]:
    """Bring the three pipelines up and make them targets of the driver; their names."""
    import targets  # type: ignore[import-not-found]

    import wallaroo

    wl = wallaroo.Client()
    config = wallaroo.DeploymentConfigBuilder().replica_count(2).cpus(1).build()
    with tempfile.TemporaryDirectory() as folder:
        schemas: dict[str, Any] = {
            "input_schema": pa.schema([pa.field("count", pa.list_(pa.int32()))]),
            "output_schema": pa.schema(
                [pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())]
            ),
        }
        models = {
            "mlp": wl.upload_model("mlp", str(data / "mlp.onnx"), Framework.ONNX),
            "conv": wl.upload_model("conv", str(data / "conv.onnx"), Framework.ONNX),
            "arima": wl.upload_model("arima", str(_arima(Path(folder))), Framework.PYTHON, **schemas),
        }
    whole = run.tree
    run.tree = lambda pid: ours(home) if pid == os.getpid() else whole(pid)
    names = []
    for name, model in models.items():
        pipeline = wl.build_pipeline(name).add_model_step(model)
        pipeline.deploy(deployment_config=config)
        base, _, path = pipeline.url().partition("/pipelines/")
        for form, query in FORMS.items():
            cells = targets.records_cells((f"/pipelines/{path}{query}",) * 3)
            targets.TARGETS[f"{form}:{name}"] = _Target(
                wl, url=base, pid=os.getpid(), cells={cell: cells[cell] for cell in CELLS[name]}
            )
            names.append(f"{form}:{name}")
    return names


def _arima(folder: Path) -> Path:
    """The forecast model with what the peers' environments have: between its own statsmodels of 2023 and theirs lies a
    fifth of the time of a fit."""
    (site,) = Path(os.environ["BENCH_VENVS"], "fastapi", "lib").glob("python3.*/site-packages")
    found = {each.name: each.version for each in importlib.metadata.distributions(path=[str(site)])}
    model = ROOT / "examples" / "forecast" / "models" / "standard" / "forecast.py"
    with zipfile.ZipFile(made := folder / "arima.zip", "w") as archive:
        archive.write(model, model.name)
        archive.writestr("requirements.txt", "".join(f"{name}=={found[name]}\n" for name in MODEL_PACKAGES))
    return made


class _Target(dict[str, Any]):
    """A target whose token is a fresh one whenever the driver asks for its headers."""

    def __init__(self, client: Any, **fields: Any) -> None:
        super().__init__(fields)
        self._client = client

    def get(self, name: str, default: Any = None) -> Any:
        return dict(self._client.auth.auth_header()) if name == "headers" else super().get(name, default)


if __name__ == "__main__":
    main()
