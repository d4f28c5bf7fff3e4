"""The section of docs/performance.md on how cost grows, and its plot, from the figures of growth.py."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

report = importlib.import_module("report")

DIMENSIONS = ("rows", "columns", "models", "replicas", "pipelines", "log")
COMMAND = "make bench-growth"
IMAGE = Path(__file__).parents[1] / "docs" / "images" / "growth.svg"
Points = list[dict[str, float]]


def write(found: dict[str, Points]) -> None:
    """Draw the plot and write the section."""
    plot(found)
    report.write_section("growth", section(found), COMMAND)


def section(found: dict[str, Points]) -> str:
    rows, columns, models, replicas, pipelines, log = (found[name] for name in DIMENSIONS)
    last = rows[-1]
    replica_table = _table(
        replicas,
        ("replicas", "at", "{:.0f}"),
        ("requests/s", "rps", "{:,.0f}"),
        ("CPU", "cpu_ms", "{:.3f} ms"),
        ("memory of the deployment", "pss_mb", "{:.0f} MB"),
    )
    pipeline_table = _table(
        pipelines,
        ("pipelines", "at", "{:.0f}"),
        ("memory of all", "pss_mb", "{:,.0f} MB"),
        ("of each", "each_mb", "{:.1f} MB"),
        ("CPU of all at rest", "idle_cpu_percent", "{:.1f} % of a core"),
        ("the last one's upload and deploy", "deploy_s", "{:.2f} s"),
        ("one inference: CPU", "cpu_ms", "{:.3f} ms"),
        ("wall", "wall_ms", "{:.2f} ms"),
    )
    log_table = _table(
        log,
        ("rows", "at", "{:,.0f}"),
        ("on disk", "bytes", "mb"),
        ("newest 100", "median_ms", "{:.1f} ms"),
        ("CPU", "median_cpu_ms", "{:.1f} ms"),
        ("first", "first_ms", "{:.0f} ms"),
        ("CPU of first", "first_cpu_ms", "{:.0f} ms"),
        ("a day, page by page", "day_s", "{:.2f} s"),
        ("memory of that", "day_peak_mib", "{:.0f} MiB"),
        ("average of all by SQL", "sql_s", "{:.2f} s"),
    )
    return f"""## How cost grows

{report.made_by(COMMAND)}
CPU is that of all the platform's processes per request, the least of three turns; wall time is the median that one
caller saw, on a machine that may have had other things to do. Tokens are checked and every request is logged. How each
is got: [benchmarks/growth.py](../benchmarks/growth.py).

![CPU, memory and time by rows, columns, models, replicas, pipelines and log](images/growth.svg)

### Rows in a request
18 floats a row, a network of 18-64-64-1.

{_forms(rows, "rows")}

At the small end the request itself is what costs: HTTP, the kernel, the token, the log. One row of JSON has a way of
its own, which is why ten rows cost so much more. At the large end it is JSON: a row of 18 floats is read in
{_us(last["json_parse_ms"] / last["at"])} and its model takes {_us(last["json_models_ms"] / last["at"])}; as Arrow it is
read in {_us(last["arrow_parse_ms"] / last["at"])}. What Arrow has beyond the model is the log: checksum and `writev` of
72 bytes a row.

### Columns in a row
Each column is an input of its own of the graph, which adds them up; one row as JSON, 1,000 rows as Arrow.

{_forms(columns, "columns")}

A column costs a place in the row's object, an array, and a tensor that onnxruntime is given by name. At the large end
onnxruntime is what limits: with ten times the inputs this graph takes it forty times as long (0.15 ms at 100, 6.4 ms at
1,000, of CPU alone). Wide tables are cheaper as one column of lists, as the first table has it: there 18 values cost
what one does here.

### Models in a chain
Each takes 18 floats to 18; one row as JSON, 1,000 rows as Arrow.

{_forms(models, "models")}

One model has a way of its own for a row (numpy arrays). From two on rows are Arrow between the steps, and each step
costs its model, a table and the check that it fits the next one.

### Replicas
One row a request over 16 connections. The caller, a process in Python, works on the same cores.

{replica_table}

CPU per request does not grow with replicas, so they add up while there are cores for them; here two are shared with the
caller, and with whatever else ran. A further replica costs memory and nothing else.

### Pipelines deployed at once
One replica each, with an ONNX session of its own, at rest but for the one that is asked.

{pipeline_table}

Memory is what limits here. A deployment is two processes, its host and its replica, forked from one parent that has
imported the engine: what each adds are the pages that it has written. At rest a replica tells its host once a second
that it lives.

### Rows in a log
18 inputs a row, ten days, as compaction leaves them. "First" is a process that has read no log since its start, and may
have to have its libraries and the log's files read from the disk.

{log_table}

A log's length costs an inference nothing: it is appended to. The newest rows are in the last row group of the last
file, so reading them grows with the number of files alone, whose names are listed. A window costs what is in it, and
its memory is a page. A sum reads its columns of all files: decompression is what limits it, and the quota of a log
(10 GiB) limits that.
"""


def _forms(points: Points, what: str) -> str:
    of_which = "of which reading, models"
    heads = (what, "JSON: CPU", "wall", of_which, "Arrow: CPU", "wall", of_which)
    cells = []
    for point in points:
        line = [f"{point['at']:,.0f}"]
        for form in ("json", "arrow"):
            line += [
                _ms(point[f"{form}_cpu_ms"]),
                _ms(point[f"{form}_wall_ms"]),
                f"{_ms(point[f'{form}_parse_ms'])}, {_ms(point[f'{form}_models_ms'])}",
            ]
        cells.append(line)
    table: str = report.table(heads, cells)
    return table


def _table(points: Points, *columns: tuple[str, str, str]) -> str:
    cells = []
    for point in points:
        told = {**point, "each_mb": point.get("pss_mb", 0.0) / max(point["at"], 1)}
        cells.append([_mb(told[key]) if form == "mb" else form.format(told[key]) for _, key, form in columns])
    table: str = report.table([head for head, _, _ in columns], cells)
    return table


def _ms(value: float) -> str:
    return f"{value:.3f} ms" if value < 1 else f"{value:.1f} ms" if value < 100 else f"{value:,.0f} ms"


def _us(ms: float) -> str:
    return f"{ms * 1e3:.2g} µs"


def _mb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB" if size >= 2**20 else f"{size / 2**20:.1f} MB"


# --- the plot -------------------------------------------------------------------------------------------------------


def plot(found: dict[str, Points]) -> None:
    """Six small plots in one file, whose text stays text and whose bytes are the same for the same figures."""
    import matplotlib.pyplot as plt

    lined = {
        "axes.grid": True,
        "grid.color": "#dddddd",
        "lines.marker": "o",
        "lines.markersize": 4,
    }
    with plt.rc_context(report.PLOTS | lined):
        figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
        rows, columns, models, replicas, pipelines, log = axes.flat
        for ax, name, title in (
            (rows, "rows", "Rows in a request (18 floats each)"),
            (columns, "columns", "Columns in a row"),
            (models, "models", "Models in a chain"),
        ):
            many = "" if name == "rows" else ", 1,000 rows"
            one = "" if name == "rows" else ", 1 row"
            _lines(ax, found[name], (("json_cpu_ms", f"JSON{one}"), ("arrow_cpu_ms", f"Arrow{many}")))
            ax.set(title=title, xscale="log", yscale="log", ylabel="CPU of a request, ms")
        _lines(replicas, found["replicas"], (("rps", "requests/s"),))
        replicas.set(title="Replicas, 16 connections", ylabel="requests/s", ylim=(0, None))
        _lines(pipelines, found["pipelines"], (("pss_mb", "memory"),))
        pipelines.set(title="Pipelines deployed at once", ylabel="memory of all (PSS), MB", ylim=(0, None))
        there = [point for point in found["log"] if point["at"]]
        _lines(log, there, (("first_cpu_ms", "newest 100, first"), ("median_cpu_ms", "newest 100, again")))
        log.set(title="Rows in a log", xscale="log", ylabel="CPU of a read, ms", ylim=(0, None))
        for ax, name in ((models, "models"), (replicas, "replicas")):
            at = [int(point["at"]) for point in found[name]]
            ax.set_xticks(at, [str(n) for n in at])
            ax.minorticks_off()
        IMAGE.parent.mkdir(exist_ok=True)
        figure.savefig(IMAGE, metadata={"Date": None})
        plt.close(figure)


def _lines(ax: Any, points: Points, lines: tuple[tuple[str, str], ...]) -> None:
    for (key, label), colour in zip(lines, ("#1f5a7a", "#d1662b"), strict=False):
        ax.plot([point["at"] for point in points], [point[key] for point in points], label=label, color=colour)
    if len(lines) > 1:
        ax.legend(frameon=False)
