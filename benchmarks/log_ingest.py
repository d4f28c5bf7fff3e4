"""What the inference log costs: appending, reading the newest rows of a long log, compacting.

Run it: `python benchmarks/log_ingest.py [rows]`. It works in a temporary folder and prints a table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.logs import LogQuery
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOPIC, FAILURES = "workspace-1-pipeline-bench-inference", "workspace-1-pipeline-bench-failures"
FEATURES = 18
SCHEMA = pa.schema(
    [
        pa.field("time", pa.timestamp("ms")),
        pa.field("in.tensor", pa.list_(pa.float32())),
        pa.field("out.variable", pa.list_(pa.field("inner", pa.float32(), nullable=False)), nullable=False),
        pa.field("anomaly.count", pa.uint32(), nullable=False),
        pa.field("metadata.last_model", pa.string()),
        pa.field("metadata.pipeline_version", pa.string()),
        pa.field("metadata.elapsed", pa.list_(pa.uint64())),
        pa.field("metadata.dropped", pa.list_(pa.string())),
        pa.field("metadata.partition", pa.string()),
    ]
)


def main() -> None:
    """Print the table."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        say("append 1 row", appending(Path(folder, "one"), a_millisecond_apart(1, 20_000)), "µs")
        say("append 1000 rows", appending(Path(folder, "thousand"), a_millisecond_apart(1000, 300)), "µs")
        long = Path(folder, "long")
        appending(long, a_millisecond_apart(1000, max(1, rows // 1000 - 20)))
        appending(long, a_millisecond_apart(1, 20_000))
        read(long, "segments")
        size = sum(file.stat().st_size for file in long.rglob("*.seg"))
        took_s = timed(lambda: maintain(long, time.time(), 2**62))
        say("compact", size / 2**20 / took_s, f"MiB/s of segments ({size / 2**20:.0f} MiB)")
        read(long, "parts")


def read(folder: Path, what: str) -> None:
    """Time the newest 100 rows, for a reader that has seen nothing yet and for one that has."""
    reader, newest = SegmentLogReader(folder), LogQuery(TOPIC, limit=100, newest_first=True)
    total = sum(SegmentLogReader(folder).info(TOPIC).partitions.values())
    say(f"newest 100 of {total} rows, {what}, first", 1000 * timed(lambda: reader.page(newest)), "ms")
    say(f"newest 100 of {total} rows, {what}, again", 1000 * timed(lambda: reader.page(newest)), "ms")
    say(f"oldest 10000 rows, {what}", 1000 * timed(lambda: reader.page(LogQuery(TOPIC, limit=10_000))), "ms")


def appending(folder: Path, batches: Sequence[pa.RecordBatch]) -> float:
    """Mean microseconds of an append."""
    writer = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-bench")

    def appends() -> None:
        for rows in batches:
            writer.append(rows)

    took_s = timed(appends)
    writer.close()
    return 1e6 * took_s / len(batches)


def a_millisecond_apart(rows: int, times: int) -> list[pa.RecordBatch]:
    """Requests of `rows` rows, from now on one each millisecond."""
    first, now_ms = batch(rows), int(time.time() * 1000)
    clock = (pa.array([now_ms + i] * rows, pa.timestamp("ms")) for i in range(times))
    return [first.set_column(0, SCHEMA.field(0), stamp) for stamp in clock]


def batch(rows: int) -> pa.RecordBatch:
    """Rows as the house price pipeline of the tutorials logs them."""
    values: list[Any] = [
        [0] * rows,
        [[float(n + i) for i in range(FEATURES)] for n in range(rows)],
        [[718013.7]] * rows,
        [0] * rows,
        ['{"model_name":"house-price","model_sha":"' + "e2" * 32 + '"}'] * rows,
        ["6a1e5bd2-0f6e-4c0a-9a52-0e2f3f3a9f5d"] * rows,
        [[305_045, 818_254]] * rows,
        [[]] * rows,
        ["engine-5d6c8f"] * rows,
    ]
    columns = [pa.array(column, field.type) for column, field in zip(values, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(what: str, value: float, unit: str) -> None:
    """One line of the table."""
    print(f"{what:<52}{value:>10.1f} {unit}")


if __name__ == "__main__":
    main()
