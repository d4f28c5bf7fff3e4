"""Measure the main job on this machine and write its section of docs/performance.md: `make bench`.

Every figure is taken against a fresh platform in a temporary home. Medians over repeated calls; memory is PSS (pages
that processes share are counted once, in parts).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pyarrow as pa
import report  # type: ignore[import-not-found]  # lies beside this file

from wallaroo.framework import Framework

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "forecast"
sys.path.insert(0, str(EXAMPLE))

from bundle import bundle  # noqa: E402  (lies beside the example)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INPUT = pa.schema([pa.field("count", pa.list_(pa.int32()))])
OUTPUT = pa.schema([pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())])
TIMED_OUTPUT = OUTPUT.append(pa.field("model_ms", pa.float64()))
CONNECTIONS = 5_000
COMMAND = "make bench"


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line: what, how much, and the most that it may be ("" = no bound)."""

    what: str
    value: str
    bound: str = ""


def main() -> None:
    figures: list[Figure] = []
    with fresh_home() as home:
        figures += starting(home)
        figures += at_rest(home)
        figures += main_job()
        figures += connections()
    text = section(figures)
    report.write_section("main-job", text, COMMAND)
    print(text)


@contextlib.contextmanager
def fresh_home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="bettong-bench-"))
    os.environ["BETTONG_HOME"] = str(home)
    try:
        yield home
    finally:
        subprocess.run([sys.executable, "-m", "bettong", "stop"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["chmod", "-R", "u+w", str(home)], check=True)
        shutil.rmtree(home)


def starting(home: Path) -> list[Figure]:
    """Import, cold client, warm client: each in a process of its own, the interpreter's own start taken off."""
    empty = statistics.median(python_s("pass") for _ in range(5))
    imported = statistics.median(python_s("import wallaroo") for _ in range(5)) - empty
    client = "import wallaroo; wallaroo.Client()"
    cold = []
    for _ in range(3):
        cold.append(python_s(client) - empty - imported)
        subprocess.run([sys.executable, "-m", "bettong", "stop"], check=True, stdout=subprocess.DEVNULL)
    python_s(client)
    warm = statistics.median(python_s(client) - empty - imported for _ in range(5))
    return [
        Figure("`import wallaroo`", f"{imported:.2f} s", "0.6 s"),
        Figure("`wallaroo.Client()` that starts the platform", f"{statistics.median(cold):.2f} s", "3 s"),
        Figure("`wallaroo.Client()` that finds it", f"{warm:.2f} s", "0.3 s"),
    ]


def python_s(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def at_rest(home: Path) -> list[Figure]:
    time.sleep(2)  # let it come to rest; this is a measurement, not a test
    processes = ours(home)
    return [
        Figure(
            "server at rest (with its nursery)", f"{pss_mb(processes):.0f} MB in {len(processes)} processes", "160 MB"
        )
    ]


def main_job() -> list[Figure]:
    import pandas as pd

    import wallaroo

    wl = wallaroo.Client()
    home = Path(os.environ["BETTONG_HOME"])
    rest = pss_mb(ours(home))
    with tempfile.TemporaryDirectory() as folder:
        zips = {p.stem: str(p) for p in bundle(Path(folder))}
        first_upload_s = timed(lambda: upload(wl, "forecast", zips["forecast_standard"]))
        second_upload_s = timed(lambda: upload(wl, "forecast", zips["forecast_alternate01"]))
        timing = timed_model(Path(folder))
        wl.upload_model("timed", timing, Framework.PYTHON, input_schema=INPUT, output_schema=TIMED_OUTPUT)
    rows = pd.read_json(EXAMPLE / "data" / "testdata-standard.df.json")
    pipeline = wl.build_pipeline("timed").clear().add_model_step(wl.get_model("timed"))

    def deploy_and_ask() -> None:
        pipeline.deploy()
        pipeline.infer(rows)

    deploys, undeploys = [], []
    for _ in range(5):
        deploys.append(timed(deploy_and_ask))
        undeploys.append(timed(pipeline.undeploy))
    deploy_and_ask()
    over_ms = []
    for _ in range(300):
        began = time.perf_counter()
        answer = pipeline.infer(rows)
        over_ms.append((time.perf_counter() - began) * 1e3 - float(answer.loc[0, "out.model_ms"]))
    one = ours(home)
    with_one = pss_mb(one)
    at_once_ms = trivial_ms(wl, rows)
    worker = pss_mb([p for p in one if "mac._worker" in " ".join(p.cmdline())])
    ten = tenth(wl, wl.get_model("timed"), home)
    pipeline.undeploy()
    return [
        Figure(
            "first upload of the forecast model (its environment is built, from a cold cache)",
            f"{first_upload_s:.1f} s",
        ),
        Figure("upload of another model with the same requirements", f"{second_upload_s:.1f} s", "2 s"),
        Figure("deploy to the first answer, environment built", f"{statistics.median(deploys):.2f} s", "2 s"),
        Figure("undeploy", f"{statistics.median(undeploys):.2f} s", "1 s"),
        Figure(
            "one inference through `pipeline.infer`, over the model function's own time",
            f"{statistics.median(over_ms):.2f} ms (p95 {statistics.quantiles(over_ms, n=20)[-1]:.2f} ms)",
            "2 ms",
        ),
        Figure(
            "the same for a model that does next to nothing: all of the platform's and the SDK's work, caches warm",
            f"{at_once_ms:.2f} ms",
            "2 ms",
        ),
        Figure(
            "one deployment with one replica and its forecast worker",
            f"{with_one - rest:.0f} MB, of which {worker:.0f} MB are the worker (numpy, scipy, pandas, statsmodels)",
        ),
        Figure("the tenth deployed replica, its worker aside", f"{ten:.0f} MB", "40 MB"),
    ]


def trivial_ms(wl: Any, rows: Any) -> float:
    """The median of one inference through `pipeline.infer` of a model that takes no time of its own, in ms."""
    import zipfile

    step = (
        "from mac.types import InferenceData\n\n\n"
        "def process_data(input_data: InferenceData) -> InferenceData:\n"
        '    week = input_data["count"][:, :7]\n'
        '    return {"forecast": week, "weekly_average": week.mean(axis=1)}\n'
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trivial.zip"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("step.py", step)
        upload(wl, "trivial", str(path))
    pipeline = wl.build_pipeline("trivial").clear().add_model_step(wl.get_model("trivial")).deploy()
    taken = [timed(lambda: pipeline.infer(rows)) for _ in range(1000)]
    pipeline.undeploy()
    return statistics.median(taken) * 1e3


def upload(wl: Any, name: str, path: str) -> None:
    version = wl.upload_model(name, path, Framework.PYTHON, input_schema=INPUT, output_schema=OUTPUT)
    assert version.status() == "ready", version.get_upload_logs()


def timed_model(folder: Path) -> str:
    """The standard forecast model, giving the time that its own function took beside its answer."""
    import zipfile

    step = (EXAMPLE / "models" / "standard" / "forecast.py").read_text()
    step = step.replace("def process_data(input_data: InferenceData) -> InferenceData:", "def _answer(input_data):")
    step += (
        "\n\ndef process_data(input_data: InferenceData) -> InferenceData:\n"
        "    import time\n"
        "    began = time.perf_counter()\n"
        "    answer = _answer(input_data)\n"
        '    return {**answer, "model_ms": np.full(len(answer["forecast"]), (time.perf_counter() - began) * 1e3)}\n'
    )
    path = folder / "timed.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("forecast.py", step)
        archive.writestr("requirements.txt", "statsmodels==0.14.1")
    return str(path)


def tenth(wl: Any, model: Any, home: Path) -> float:
    """What the tenth deployment of one replica adds, its worker taken off, in MB."""
    pipelines = [wl.build_pipeline(f"copy-{n}").clear().add_model_step(model) for n in range(9)]

    def own_mb() -> float:
        return pss_mb([p for p in ours(home) if "mac._worker" not in " ".join(p.cmdline())])

    for pipeline in pipelines[:-1]:
        pipeline.deploy()
    nine = own_mb()
    pipelines[-1].deploy()
    ten = own_mb()
    for pipeline in pipelines:
        pipeline.undeploy()
    return ten - nine


def connections() -> list[Figure]:
    import wallaroo

    wl = wallaroo.Client()
    workspace = wl.get_workspace(name="bench", create_if_not_exist=True)
    create = [timed(lambda n=n: wl.create_connection(f"c-{n}", "HTTP", {"n": n})) for n in range(CONNECTIONS)]  # type: ignore[misc]
    get = [timed(lambda n=n: wl.get_connection(f"c-{n}")) for n in range(0, CONNECTIONS, 25)]  # type: ignore[misc]
    link = [timed(lambda n=n: workspace.add_connection(f"c-{n}")) for n in range(0, CONNECTIONS, 25)]  # type: ignore[misc]
    page = [timed(lambda: wl.list_connections(limit=100)) for _ in range(50)]
    whole = [timed(wl.list_connections) for _ in range(10)]
    return [
        Figure(f"create a connection ({CONNECTIONS:,} in all)", ms(create[-500:]), "20 ms"),
        Figure("get a connection", ms(get), "20 ms"),
        Figure("link a connection", ms(link), "20 ms"),
        Figure("a page of 100", ms(page), "20 ms"),
        Figure(f"the whole list of {CONNECTIONS:,}", ms(whole), "200 ms"),
    ]


def timed(call: Callable[[], object]) -> float:
    """Seconds that `call` takes; what it prints is left out."""
    began = time.perf_counter()
    with contextlib.redirect_stdout(None):
        call()
    return time.perf_counter() - began


def ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms"


def ours(home: Path) -> list[psutil.Process]:
    """The processes of the platform in `home`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            about = " ".join([*process.cmdline(), process.cwd()]) + process.environ().get("BETTONG_HOME", "")
            if process.pid != os.getpid() and str(home) in about:
                found.append(process)
    return found


def pss_mb(processes: list[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 2**20


def section(figures: list[Figure]) -> str:
    rows = [(f.what, f.value, "at most " + f.bound if f.bound else "") for f in figures]
    return f"""## The main job

{report.made_by(COMMAND)}

{report.table(("what", "measured", "bound"), rows)}

How each is got: [benchmarks/main_job.py](../benchmarks/main_job.py). Memory is PSS: pages that processes
share are counted once, in parts. Replicas are forked from a parent that has imported the engine, so each
further one shares its pages; a worker has its model's own packages loaded and shares none.
"""


if __name__ == "__main__":
    main()
