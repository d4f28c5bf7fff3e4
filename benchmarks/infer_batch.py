"""Batch inference from table to table on PostgreSQL: `python benchmarks/infer_batch.py [rows] [--page]`.

A private server, a fresh platform, and a small ONNX model (18-64-1) on the columns of a table, through the SDK as a
person would do it: rows a second from the job's own clock, the most memory that the job's process ever had, and where
the CPU time went. Nothing of it leaves this machine; all of it is gone afterwards.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import report  # type: ignore[import-not-found]  # lies beside this file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import onnx_models  # noqa: E402  (lies in tests)
from platforms import new_home  # noqa: E402
from postgres import running_postgres  # noqa: E402

import wallaroo  # noqa: E402
from wallaroo.framework import Framework  # noqa: E402

if TYPE_CHECKING:
    from postgres import Postgres

    from wallaroo.connection import Connection
    from wallaroo.pipeline import Pipeline

COMMAND = "make bench-infer-batch"
FEATURES = 18
WANTED_ROWS_PER_S, WANTED_MB = 150_000, 400


@dataclass
class Watched:
    """What processes took while a job ran: CPU seconds by what they are, and the job's peak of memory."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    peak_mb: float = 0.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("rows", type=int, nargs="?", default=1_000_000)
    asked.add_argument("--rounds", type=int, default=2)
    asked.add_argument("--page", action="store_true", help="write the section of docs/performance.md")
    arguments = asked.parse_args()
    lines = []
    with running_postgres() as server, new_home(), tempfile.TemporaryDirectory() as folder:
        make_tables(server, arguments.rows)
        wl = wallaroo.Client()
        details = {"host": "127.0.0.1", "port": server.port, "user": "bettong", "database": "postgres"}
        warehouse = wl.create_connection("warehouse", "POSTGRES", details)
        pipeline = house_prices(wl, Path(folder))
        columns = [f"f{n}" for n in range(FEATURES)]
        for what, query, mapping in (
            ("a column per feature", "by_column", {"tensor": columns}),
            ("one column of lists", "by_list", {}),
        ):
            for _ in range(arguments.rounds):
                result, watched = measured(pipeline, warehouse, query, mapping)
                lines.append((what, result, watched))
                told = ", ".join(f"{name} {cpu_s:.1f} s" for name, cpu_s in sorted(watched.cpu_s.items()))
                print(
                    f"{what}: {result['rows_per_s']:,} rows/s, peak {watched.peak_mb:.0f} MB; CPU: {told}", flush=True
                )
    if arguments.page:
        report.write_section("infer-batch", section(arguments.rows, lines), COMMAND)


def make_tables(server: Postgres, rows: int) -> None:
    columns = ", ".join(f"f{n} double precision" for n in range(FEATURES))
    values = ", ".join(["random()"] * FEATURES)
    names = ", ".join(f"f{n}" for n in range(FEATURES))
    with psycopg.connect(server.url(), autocommit=True) as owner:
        owner.execute(f"create table by_column (id bigint primary key, {columns})")
        owner.execute(f"insert into by_column select n, {values} from generate_series(1, {rows}) n")
        owner.execute("create table by_list (id bigint primary key, tensor real[])")
        owner.execute(f"insert into by_list select id, array[{names}]::real[] from by_column")
        owner.execute("vacuum analyze")


def house_prices(wl: wallaroo.Client, folder: Path) -> Pipeline:
    file = folder / "mlp.onnx"
    file.write_bytes(onnx_models.mlp(features=FEATURES))
    model = wl.upload_model("mlp", file, Framework.ONNX)
    return wl.build_pipeline("house-prices").add_model_step(model)


def measured(pipeline: Pipeline, warehouse: Connection, table: str, mapping: Any) -> tuple[dict[str, Any], Watched]:
    watched, ended = Watched(), threading.Event()
    watcher = threading.Thread(target=watch, args=(watched, ended))
    watcher.start()
    try:
        job = pipeline.infer_batch(
            source=warehouse,
            query=table,
            sink=warehouse,
            table="prices",
            map=mapping,
            keys=["id"],
            mode="replace",
            outputs={"price": "variable[0]"},
        )
        job.wait()
    finally:
        ended.set()
        watcher.join()
    result = job.result()
    assert result is not None
    return result, watched


def watch(watched: Watched, ended: threading.Event) -> None:
    """Look at the processes of the job often enough to miss little of their last moments."""
    known: dict[int, tuple[str, float]] = {}  # what a process is, and what it had taken when the job began
    last: dict[int, float] = {}
    looked_s = -1.0
    began_s = time.monotonic()
    while not ended.wait(0.02):
        if time.monotonic() - looked_s > 0.3:
            looked_s = time.monotonic()
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    words = " ".join(process.cmdline())
                    name = next((name for name, sign in SIGNS.items() if sign in words), None)
                    if name is not None and process.pid not in known:
                        fresh = looked_s - began_s > 0.3 or name == "job"
                        known[process.pid] = (name, 0.0 if fresh else sum(process.cpu_times()[:2]))
        for pid, (name, _) in known.items():
            with contextlib.suppress(psutil.Error, OSError):
                last[pid] = sum(psutil.Process(pid).cpu_times()[:2])
                if name == "job":
                    status = Path(f"/proc/{pid}/status").read_text()
                    peaks = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")]
                    watched.peak_mb = max(watched.peak_mb, *(peak / 1024 for peak in peaks), 0.0)
    for pid, cpu_s in last.items():
        name, before = known[pid]
        watched.cpu_s[name] = watched.cpu_s.get(name, 0.0) + cpu_s - before


# By what stands in their command lines. Replicas are forked from the server's nursery, and look like it.
SIGNS = {"job": "bettong.jobs._child", "replica": "nursery", "postgres": "postgres: bettong"}


def section(rows: int, lines: list[tuple[str, dict[str, Any], Watched]]) -> str:
    found = [f"| {what} | {result['rows_per_s']:,} | {watched.peak_mb:.0f} MB |" for what, result, watched in lines]
    return "\n".join(
        [
            "## Batch inference from table to table",
            "",
            f"{report.made_by(COMMAND)} Timings on shared machines are noisy: each round has a line of its own.",
            "",
            f"{rows:,} rows of 18 numbers through a small ONNX model, PostgreSQL to PostgreSQL with keys: exactly",
            "once, a checkpoint with each batch. Database, model and job share the machine's processors.",
            "",
            "| the model's input is | rows a second | most memory of the job |",
            "|---|---|---|",
            *found,
            "",
            f"Wanted: at least {WANTED_ROWS_PER_S:,} rows a second on two cores, and at most {WANTED_MB} MB.",
            "",
        ]
    )


if __name__ == "__main__":
    main()
