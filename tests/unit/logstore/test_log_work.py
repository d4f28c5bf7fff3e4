"""How much of a long log a page looks at: a few files, whatever the length. Counted, not timed."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import log_rows

from bettong.domain.logs import LogQuery
from bettong.logstore.columns import ROW_COLUMN
from bettong.logstore.compaction import open_parquet
from bettong.logstore.layout import part_name
from bettong.logstore.reader import SegmentLogReader

if TYPE_CHECKING:
    from pathlib import Path

TOPIC = "workspace-1-pipeline-long-inference"
GROUPS, GROUP_ROWS = 6, 50
PART_ROWS = GROUPS * GROUP_ROWS


def build(folder: Path, parts: int) -> None:
    """A log of parts as compaction leaves them, a row per millisecond."""
    for number in range(1, parts + 1):
        first = (number - 1) * PART_ROWS
        path = folder / TOPIC / "engine-a" / part_name(number, first, first + PART_ROWS - 1, PART_ROWS)
        path.mkdir(parents=True)
        schema = log_rows([0]).schema
        with open_parquet(path / "0000.parquet", schema, {}) as writer:
            for at in range(0, PART_ROWS, GROUP_ROWS):
                times = list(range(first + at, first + at + GROUP_ROWS))
                rows = pa.Table.from_batches([log_rows(times, times)])
                numbers = pa.array(np.arange(at, at + GROUP_ROWS), pa.int64())
                writer.write_table(rows.append_column(pa.field(ROW_COLUMN, pa.int64(), nullable=False), numbers))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many files were opened and row groups read, and of how many different files."""
    done: Counter[str] = Counter()
    parquet_file: Any = pq.ParquetFile

    class Watched(parquet_file):  # type: ignore[misc]
        def __init__(self, path: Path, **more: Any) -> None:
            super().__init__(path, **more)
            done["opened"] += 1
            done[str(path)] += 1

        def read_row_group(self, group: int, **more: Any) -> pa.Table:
            done["groups"] += 1
            done[f"rows of {sorted(more['columns'])}"] += 1
            rows: pa.Table = super().read_row_group(group, **more)
            return rows

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    return done


def files(work: Counter[str]) -> int:
    return sum(name.endswith(".parquet") for name in work)


@pytest.mark.parametrize("parts", [4, 60])
def test_the_newest_rows_take_the_last_row_group_of_the_last_file(
    tmp_path: Path, work: Counter[str], parts: int
) -> None:
    build(tmp_path, parts)

    page = SegmentLogReader(tmp_path).page(LogQuery(TOPIC, limit=20, newest_first=True))

    assert page.table["in.number"].to_pylist() == list(range(parts * PART_ROWS - 1, parts * PART_ROWS - 21, -1))
    assert (files(work), work["groups"]) == (1, 2)  # its times, then the rows that were chosen


@pytest.mark.parametrize("parts", [4, 60])
def test_a_window_takes_the_files_and_row_groups_that_it_is_in(tmp_path: Path, work: Counter[str], parts: int) -> None:
    build(tmp_path, parts)
    start = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=2 * PART_ROWS + 10)

    page = SegmentLogReader(tmp_path).page(LogQuery(TOPIC, start=start, end=start + dt.timedelta(milliseconds=30)))

    assert page.table.num_rows == 30
    assert (files(work), work["groups"]) == (1, 2)


def test_a_stream_of_pages_opens_each_file_a_few_times_and_holds_one_page(tmp_path: Path, work: Counter[str]) -> None:
    build(tmp_path, 20)
    reader, cursor, read, pages = SegmentLogReader(tmp_path), None, 0, 0

    while True:
        page = reader.page(LogQuery(TOPIC, limit=PART_ROWS, cursor=cursor))
        read, pages = read + page.table.num_rows, pages + 1
        assert page.table.num_rows <= PART_ROWS
        if (cursor := page.cursor) is None:
            break

    assert (read, pages) == (20 * PART_ROWS, 20)
    assert work["groups"] <= pages * (2 * GROUPS + 3)  # each group's times and rows, and those next to the page
    assert files(work) == 20


def test_columns_that_are_not_asked_for_are_not_read(tmp_path: Path, work: Counter[str]) -> None:
    build(tmp_path, 2)

    SegmentLogReader(tmp_path).page(LogQuery(TOPIC, limit=5, newest_first=True, columns=("time",)))

    assert {name for name in work if name.startswith("rows of")} == {"rows of ['_row', 'time']", "rows of ['time']"}


def test_how_much_a_topic_holds_is_told_by_its_names_alone(tmp_path: Path, work: Counter[str]) -> None:
    build(tmp_path, 10)

    assert SegmentLogReader(tmp_path).info(TOPIC).partitions == {"engine-a": 10 * PART_ROWS}
    assert work["opened"] == 0
