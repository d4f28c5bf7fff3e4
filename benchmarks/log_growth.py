"""How reading an inference log grows with its length: newest rows, a day streamed page by page, and a sum by SQL.

Run it: `python benchmarks/log_growth.py [rows ...]`, such as `10000000 50000000`. For each length it builds a log in a
temporary folder as compaction leaves it (Parquet parts of a segment's size, row groups of 16,384 rows), ten days long,
and prints one JSON line per figure. 10 million rows take some 0.9 GB there. Each measurement is a process of its own,
so that its memory is its own too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.domain.logs import LogQuery
from bettong.engine.forking import keep_pandas_out
from bettong.logstore.columns import ROW_COLUMN, TIME_COLUMN
from bettong.logstore.compaction import ROW_GROUP_ROWS, open_parquet
from bettong.logstore.layout import part_name
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.sql import LogSql, NamedLog, SqlLimits
from bettong.packaging.wheels import package_folder

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC = "workspace-1-pipeline-bench-inference"
FEATURES = 18
PART_ROWS = 18 * ROW_GROUP_ROWS  # what a segment of 64 MiB has of them
DAYS = 10
START = datetime(2026, 1, 1, tzinfo=UTC)
READS = 30
PAGE_ROWS = 10_000
SCHEMA = pa.schema(
    [
        pa.field(TIME_COLUMN, pa.timestamp("ms")),
        pa.field("in.tensor", pa.list_(pa.float32())),
        pa.field("out.variable", pa.list_(pa.field("inner", pa.float32(), nullable=False)), nullable=False),
        pa.field("anomaly.count", pa.uint32(), nullable=False),
        pa.field("metadata.last_model", pa.string()),
        pa.field("metadata.pipeline_version", pa.string()),
        pa.field("metadata.elapsed", pa.list_(pa.uint64())),
        pa.field("metadata.dropped", pa.list_(pa.string())),
        pa.field("metadata.partition", pa.string()),
        pa.field("metadata.request_id", pa.string()),
    ]
)


def main() -> None:
    """Print a line per figure."""
    for rows in [int(word) for word in sys.argv[1:]] or [1_000_000, 10_000_000]:
        with tempfile.TemporaryDirectory(prefix="bettong-log-growth-") as name:
            folder = Path(name)
            began = time.perf_counter()
            build(folder, rows)
            size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
            say(rows, "built", s=time.perf_counter() - began, bytes=size, parts=len(list(folder.rglob("*.part"))))
            for measure in (newest, a_tenth_of_a_day, a_day, counted):
                say(rows, measure.__name__, **alone(measure, folder, rows))


def say(rows: int, figure: str, **values: float) -> None:
    """One line on stdout."""
    told = {name: round(value, 6) for name, value in values.items()}
    print(json.dumps({"rows": rows, "figure": figure, "cores": os.cpu_count(), **told}), flush=True)


def build(folder: Path, rows: int) -> None:
    """A topic of so many rows, evenly over ten days."""
    group = _group(ROW_GROUP_ROWS)
    step_ms = DAYS * 86_400_000 / rows
    for number, first in enumerate(range(0, rows, PART_ROWS), start=1):
        count = min(PART_ROWS, rows - first)
        times = int(START.timestamp() * 1000) + (np.arange(first, first + count) * step_ms).astype(np.int64)
        path = folder / TOPIC / "engine-bench" / part_name(number, int(times[0]), int(times[-1]), count)
        path.mkdir(parents=True)
        with open_parquet(path / "0000.parquet", SCHEMA, {}) as writer:
            for at in range(0, count, ROW_GROUP_ROWS):
                some = group.slice(0, min(ROW_GROUP_ROWS, count - at))
                some = some.set_column(0, TIME_COLUMN, pa.array(times[at : at + some.num_rows], pa.timestamp("ms")))
                numbers = pa.array(np.arange(at, at + some.num_rows), pa.int64())
                some = some.append_column(pa.field(ROW_COLUMN, pa.int64(), nullable=False), numbers)
                writer.write_table(some, row_group_size=2**31 - 1)


def _group(rows: int) -> pa.Table:
    made = np.random.default_rng(7)
    offsets = pa.array(np.arange(rows + 1) * FEATURES, pa.int32())
    inputs = pa.ListArray.from_arrays(offsets, pa.array(made.integers(0, 1000, rows * FEATURES).astype(np.float32)))
    ones = pa.array(np.arange(rows + 1), pa.int32())
    outputs = pa.ListArray.from_arrays(ones, pa.array(made.random(rows, np.float32)), type=SCHEMA.field(2).type)
    model = json.dumps({"model_name": "house-price", "model_sha": "ab" * 32})
    columns: list[Any] = [
        pa.array(np.zeros(rows, np.int64), pa.timestamp("ms")),
        inputs,
        outputs,
        pa.array(np.zeros(rows, np.uint32)),
        pa.repeat(model, rows),
        pa.repeat("6c7d6f2c-0000-4000-8000-000000000001", rows),
        pa.array([[305_045, 818_254]] * rows, pa.list_(pa.uint64())),
        pa.array([[]] * rows, pa.list_(pa.string())),
        pa.repeat("engine-bench", rows),
        pa.array([bytes(word).hex() for word in made.integers(0, 256, (rows, 8), np.uint8)]),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


# --- what is measured -----------------------------------------------------------------------------------------------


def newest(folder: Path, rows: int) -> dict[str, float]:
    """The newest 100 rows: by a reader that has seen nothing, then again and again."""
    query = LogQuery(TOPIC, limit=100, newest_first=True)
    first, cpu = _timed(lambda: SegmentLogReader(folder).page(query))
    reader = SegmentLogReader(folder)
    again = [_timed(lambda: reader.page(query)) for _ in range(READS)]
    return {
        "first_ms": first * 1000,
        "first_cpu_ms": cpu * 1000,
        "median_ms": statistics.median(wall for wall, _ in again) * 1000,
        "worst_ms": max(wall for wall, _ in again) * 1000,
        "median_cpu_ms": statistics.median(cpu for _, cpu in again) * 1000,
    }


def a_day(folder: Path, rows: int) -> dict[str, float]:
    """One day in the middle, page by page, oldest first."""
    return _streamed(folder, timedelta(days=1))


def a_tenth_of_a_day(folder: Path, rows: int) -> dict[str, float]:
    """The same of 2.4 hours, for its memory."""
    return _streamed(folder, timedelta(days=0.1))


def _streamed(folder: Path, window: timedelta) -> dict[str, float]:
    reader, cursor, read, pages = SegmentLogReader(folder), None, 0, 0
    start = START + timedelta(days=DAYS / 2)
    began, cpu = time.perf_counter(), time.process_time()
    while True:
        page = reader.page(LogQuery(TOPIC, limit=PAGE_ROWS, start=start, end=start + window, cursor=cursor))
        read, pages = read + page.table.num_rows, pages + 1
        if (cursor := page.cursor) is None:
            break
    took = time.perf_counter() - began
    return {"read": read, "pages": pages, "s": took, "cpu_s": time.process_time() - cpu, "rows_per_s": read / took}


def counted(folder: Path, rows: int) -> dict[str, float]:
    """A sum over all rows by SQL, its process included."""
    sql = LogSql(folder, package_folder("bettong-mac") / "_launch.py", SqlLimits(timeout_s=600))
    query = """select count(*) as n, avg("out.variable"[1]) as mean from logs('bench')"""
    wall, _ = _timed(lambda: sql.run(query, [NamedLog("bench", True, TOPIC)]).close())
    return {"s": wall}


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def alone(measure: Callable[[Path, int], dict[str, float]], folder: Path, rows: int) -> dict[str, float]:
    """The figures of `measure` in a fresh process, with what it took of memory beyond its imports."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_weighed, (measure, folder, rows))


def _weighed(measure: Callable[[Path, int], dict[str, float]], folder: Path, rows: int) -> dict[str, float]:
    keep_pandas_out()  # as the server does
    before = _peak_mib()
    figures = measure(folder, rows)
    return {**figures, "peak_mib": _peak_mib(), "grew_mib": _peak_mib() - before}


def _peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with that of the process it was forked from
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


if __name__ == "__main__":
    main()
