"""The section of docs/performance.md that has us beside other model servers, and its plot, from lines of the driver."""

from __future__ import annotations

import importlib
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

report = importlib.import_module("report")

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "peers.svg"
QUIET_CORES = 0.35  # what others may have used of the machine in a measurement that counts, where there is such a one
OURS, ECHOING = "bettong", "bettong+in"
NAMES = {
    OURS: "bettong",
    ECHOING: "bettong, inputs echoed",
    "fastapi": "FastAPI by hand, 2 workers",
    "mlserver": "MLServer",
    "bentoml-stock": "BentoML",
    "litserve": "LitServe",
    "ray": "Ray Serve",
    "pytriton": "Triton (pytriton)",
}
CELLS = {
    "w1_json": "W1: one row, JSON",
    "w2_json": "W2: 10,000 rows, JSON",
    "w2_bin": "W2: 10,000 rows, binary",
    "w3_json": "W3: an image, JSON",
    "w3_bin": "W3: an image, binary",
    "w4_json": "W4: ARIMA in Python",
}
# What must hold: so many times the requests a second of that peer, or of the best one
BOUNDS: dict[tuple[str, int], tuple[float, str | None]] = {
    ("w1_json", 1): (2.5, "fastapi"),
    ("w1_json", 16): (3.5, "fastapi"),
    ("w2_json", 1): (0.7, None),
    ("w2_json", 4): (1.2, None),
    ("w2_bin", 1): (1.2, None),
    ("w2_bin", 4): (1.2, None),
    ("w3_json", 1): (1.2, None),
    ("w3_json", 4): (2.0, None),
    ("w3_bin", 1): (1.2, None),
    ("w3_bin", 4): (1.2, None),
    ("w4_json", 1): (1.1, None),
    ("w4_json", 4): (1.1, None),
}


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the rounds of one target, cell and concurrency."""

    rps: float
    p99_ms: float
    cpu_ms: float


Results = dict[tuple[str, str, int], Measured]  # target, cell, concurrency


def write(files: list[Path]) -> None:
    """Draw the plot and write the section from the lines in these files."""
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    results = results_of(lines)
    targets = [name for name in NAMES if any(key[0] == name for key in results)]
    draw(results, targets)
    rounds = 1 + max(line.get("round", 0) for line in lines)
    seconds = round(statistics.median(line["seconds"] for line in lines if "seconds" in line))
    command = f"python benchmarks/against_peers.py --bench ../shared/bench --rounds {rounds} --seconds {seconds}"
    made = time.strftime("%Y-%m-%d", time.gmtime(max(file.stat().st_mtime for file in files)))
    apart = "" if len(files) == 1 else f" Its cells and the others come from {len(files)} runs, one after another."
    report.write_section("peers", section(results, targets, command, made, apart), "python benchmarks/against_peers.py")


def results_of(lines: Iterable[dict[str, Any]]) -> Results:
    """Medians of the quiet measurements, of all where none was quiet. A measurement with a wrong answer or an error
    does not count."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for line in lines:
        if line["ok"] and line["cell"] in CELLS:
            found.setdefault((line["target"], line["cell"], line["conc"]), []).append(line)
    results = {}
    for key, runs in found.items():
        quiet = [run for run in runs if run.get("foreign_cores", 0.0) <= QUIET_CORES] or runs
        results[key] = Measured(
            statistics.median(run["rps"] for run in quiet),
            statistics.median(run["p99_us"] for run in quiet) / 1e3,
            statistics.median(run.get("cpu_ms", 0.0) for run in quiet),
        )
    return results


def section(results: Results, targets: list[str], command: str, made: str, apart: str) -> str:
    cells = sorted({key[1:] for key in results}, key=lambda cell: (list(CELLS).index(cell[0]), cell[1]))
    by_cell = {name: [conc for cell, conc in cells if cell == name] for name in CELLS}
    heads = ["requests/s", *(f"{CELLS[name]} ({' / '.join(map(str, by_cell[name]))})" for name in CELLS)]
    rows = [
        [NAMES[target], *(_pair(results, target, name, by_cell[name], "rps") for name in CELLS)] for target in targets
    ]
    cpu = [
        [NAMES[target], *(_pair(results, target, name, by_cell[name], "cpu_ms") for name in CELLS)]
        for target in targets
    ]
    ratios = _ratios(results, cells)
    return f"""## Beside other model servers

Measured on {made} by the driver of the bench, which starts each server, checks its answers and loads it by turns:

    BENCH_VENVS=… BENCH_DATA=… {command}

Two replicas (two workers elsewhere), two cores, the load generator on one of them; medians of the rounds, in brackets
how many connections ask. Ours checks a token of at most a minute's life with every request and has written each to its
log before it answers; the others do neither. Peers echo no inputs, so the figures to compare leave them out; beside
them stand those with inputs echoed, as the SDK asks. The Python model has the same packages everywhere.{apart}

![Requests a second of each server](images/peers.svg)

{report.table(heads, rows)}

Against the peer that is named, the best one unless a bound names another:

{report.table(("cell", "connections", "times the requests/s of", "wanted", "p99, ours and theirs"), ratios)}

CPU of all of a server's processes per request, in ms:

{report.table(["CPU ms", *heads[1:]], cpu)}

Ours counts what goes on after an answer, too: the log of the requests before is turned into Parquet in the background.
"""


def _pair(results: Results, target: str, cell: str, concs: list[int], what: str) -> str:
    told = []
    for conc in concs:
        measured = results.get((target, cell, conc))
        value = getattr(measured, what) if measured is not None else None
        told.append("–" if value is None else _short(value))
    return " / ".join(told)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _ratios(results: Results, cells: list[tuple[str, int]]) -> list[list[str]]:
    rows = []
    for cell, conc in cells:
        ours = results.get((OURS, cell, conc))
        wanted, named = BOUNDS[cell, conc]
        peers = {key[0]: m for key, m in results.items() if key[1:] == (cell, conc) and key[0] not in (OURS, ECHOING)}
        if ours is None or not peers:
            continue
        peer = named if named in peers else max(peers, key=lambda name: peers[name].rps)
        ratio, theirs = ours.rps / peers[peer].rps, peers[peer]
        rows.append(
            [
                CELLS[cell],
                str(conc),
                f"{ratio:.2f} {NAMES[peer]}",
                f"{wanted:g}{'' if ratio >= wanted else ', missed'}",
                f"{ours.p99_ms:.1f} ms, {theirs.p99_ms:.1f} ms",
            ]
        )
    return rows


def draw(results: Results, targets: list[str]) -> None:
    """A small plot per cell: a bar per server, at the higher number of connections."""
    import matplotlib.pyplot as plt

    with plt.rc_context(report.PLOTS):
        figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained", sharey=True)
        for ax, (cell, title) in zip(axes.flat, CELLS.items(), strict=True):
            concs = [key[2] for key in results if key[1] == cell]
            if not concs:
                ax.set_visible(False)
                continue
            most = max(concs)
            rps = [results[t, cell, most].rps if (t, cell, most) in results else 0.0 for t in targets]
            colours = ["#d1662b" if t == OURS else "#e8b08f" if t == ECHOING else "#1f5a7a" for t in targets]
            bars = ax.barh([NAMES[t] for t in targets], rps, color=colours)
            ax.bar_label(bars, [_short(value) for value in rps], padding=3)
            ax.set(title=f"{title}, {most} connections", xlim=(0, max(rps) * 1.2), xticks=[])
            ax.spines["bottom"].set_visible(False)
        axes.flat[0].invert_yaxis()
        IMAGE.parent.mkdir(exist_ok=True)
        figure.savefig(IMAGE, metadata={"Date": None})
        plt.close(figure)
