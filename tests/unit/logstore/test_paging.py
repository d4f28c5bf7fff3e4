"""Pages joined by cursors are the log, whatever their sizes, its shape, and what happens meanwhile."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

from builders import log_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.domain.logs import LogPage, LogQuery, PageStatus
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

TOPIC, FAILURES = "workspace-1-pipeline-p-inference", "workspace-1-pipeline-p-failures"

appends = st.tuples(
    st.just("append"),
    st.sampled_from(["engine-a", "engine-b", "engine-c"]),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    st.sampled_from(["forecast", "forecast", "forecast", "price"]),
)
endings = st.tuples(st.just("end"), st.sampled_from(["engine-a", "engine-b", "engine-c"]))
compactions = st.tuples(st.just("compact"))
readings = st.tuples(st.just("read"), st.integers(1, 5), st.integers(1, 600))


class Scene:
    """A log, its writers, and all that was ever appended: number → (time, arrival)."""

    def __init__(self, folder: Path, roll_bytes: int) -> None:
        self.folder, self.roll_bytes = folder, roll_bytes
        self.writers: dict[str, SegmentLogWriter] = {}
        self.times: list[int] = []

    def play(self, step: tuple[object, ...]) -> None:
        match step:
            case ("append", str(partition), list(times), str(output)):
                if partition not in self.writers:
                    self.writers[partition] = SegmentLogWriter(
                        self.folder, TOPIC, FAILURES, partition, roll_bytes=self.roll_bytes
                    )
                first = len(self.times)
                self.times += times
                self.writers[partition].append(log_rows(times, range(first, len(self.times)), output))
            case ("end", str(partition)):
                if partition in self.writers:
                    self.writers.pop(partition).close()
            case ("compact",):
                maintain(self.folder, 0.0, 2**40)

    def close(self) -> None:
        for writer in self.writers.values():
            writer.close()


def numbers(page: LogPage) -> list[int]:
    return cast("list[int]", page.table["in.number"].to_pylist()) if page.table.num_rows else []


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(appends | endings | compactions, max_size=15),
    roll_bytes=st.sampled_from([1, 3000, 2**20]),
    newest_first=st.booleans(),
    start=st.integers(0, 6),
    sizes=st.lists(st.tuples(st.integers(1, 6), st.integers(1, 2000)), min_size=1, max_size=5),
)
def test_pages_of_any_sizes_are_one_big_read(
    steps: list[tuple[object, ...]], roll_bytes: int, newest_first: bool, start: int, sizes: list[tuple[int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), roll_bytes)
        for step in steps:
            scene.play(step)
        reader = SegmentLogReader(Path(folder))
        query = LogQuery(TOPIC, newest_first=newest_first, start=at(start))
        whole = read_on(reader, query, [(10_000, 2**30)])
        pages = read_on(reader, query, sizes)
        scene.close()

    in_order = [n for page in pages for n in numbers(page)]
    assert in_order == [n for page in whole for n in numbers(page)]
    assert sorted(in_order) == [n for n, ms in enumerate(scene.times) if ms >= start]
    times = [scene.times[n] for n in in_order]
    assert times == sorted(times, reverse=newest_first)
    assert all(page.table.num_rows for page in pages if page.cursor)
    assert (pages[-1].status, pages[-1].cursor) == (PageStatus.ALL, None)


@settings(max_examples=60, deadline=None)
@given(
    before=st.lists(appends, min_size=1, max_size=6),
    meanwhile=st.lists(appends | endings | compactions | readings, max_size=20),
    roll_bytes=st.sampled_from([1, 3000, 2**20]),
    newest_first=st.booleans(),
)
def test_a_reading_of_a_growing_log_has_no_row_twice_and_loses_none(
    before: list[tuple[object, ...]], meanwhile: list[tuple[object, ...]], roll_bytes: int, newest_first: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder), roll_bytes)
        for step in before:
            scene.play(step)
        there = at_the_end = len(scene.times)
        reader = SegmentLogReader(Path(folder))
        query = LogQuery(TOPIC, newest_first=newest_first)
        pages = [reader.page(replace(query, limit=2))]
        for step in meanwhile:
            match step:
                case ("read", int(limit), int(max_bytes)) if cursor := pages[-1].cursor:
                    pages.append(reader.page(replace(query, limit=limit, max_bytes=max_bytes, cursor=cursor)))
                    at_the_end = len(scene.times)
                case _:
                    scene.play(step)
        if cursor := pages[-1].cursor:
            pages += read_on(reader, query, [(3, 2**20)], cursor)
            at_the_end = len(scene.times)
        scene.close()

    read = [n for page in pages for n in numbers(page)]
    assert len(set(read)) == len(read)
    assert set(read) >= set(range(there))
    if not newest_first:
        assert set(read) == set(range(at_the_end))


def read_on(
    reader: SegmentLogReader, query: LogQuery, sizes: list[tuple[int, int]], cursor: str | None = None
) -> list[LogPage]:
    """Pages up to the last one, of the sizes (rows, bytes) in turn."""
    pages: list[LogPage] = []
    while not pages or cursor:
        limit, max_bytes = sizes[len(pages) % len(sizes)]
        pages.append(reader.page(replace(query, limit=limit, max_bytes=max_bytes, cursor=cursor)))
        cursor = pages[-1].cursor
    return pages


def at(ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
