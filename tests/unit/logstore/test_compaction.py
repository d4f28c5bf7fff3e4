"""Compaction and retention: every row is readable exactly once at every moment, until it is dropped on purpose."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow.parquet as pq
from builders import log_rows

from bettong.domain.logs import LogQuery
from bettong.logstore import compaction, index
from bettong.logstore.compaction import Dropped, Maintenance, Sized, compact, maintain, over_quota
from bettong.logstore.layout import PartEntry
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    import pytest

    from bettong.domain.logs import LogPage

TOPIC, FAILURES = "workspace-1-pipeline-p-inference", "workspace-1-pipeline-p-failures"
TESTS = str(Path(__file__).parents[2])


def write(folder: Path, *numbers: int, partition: str = "engine-a", output: str = "forecast") -> None:
    """A segment with one append per number, of a writer that has ended."""
    writer = SegmentLogWriter(folder, TOPIC, FAILURES, partition)
    for n in numbers:
        writer.append(log_rows([n], [n], output))
    writer.close()


def in_page(page: LogPage) -> list[int]:
    return cast("list[int]", page.table["in.number"].to_pylist()) if page.table.num_rows else []


def numbers(folder: Path) -> list[int]:
    return in_page(SegmentLogReader(folder).page(LogQuery(TOPIC)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / TOPIC).glob("*/*"))


def test_segments_of_ended_writers_become_parts_and_those_in_use_stay(tmp_path: Path) -> None:
    write(tmp_path, 1, 2)
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-b")
    writer.append(log_rows([3], [3]))

    done = maintain(tmp_path, 0.0, 2**40)

    assert done == Maintenance(compacted=1)
    assert names(tmp_path) == ["0000000000000001_1_2_2.part", "0000000000000002.seg"]
    assert numbers(tmp_path) == [1, 2, 3]
    writer.append(log_rows([4], [4]))
    writer.close()
    assert numbers(tmp_path) == [1, 2, 3, 4]


def test_parts_have_statistics_on_time_and_one_file_per_schema(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    for n in range(4):
        writer.append(log_rows([n], [n], output="price" if n % 2 else "forecast"))
    writer.close()

    maintain(tmp_path, 1234.5, 2**40)

    files = sorted(tmp_path.rglob("*.parquet"))
    assert [path.name for path in files] == ["0000.parquet", "0001.parquet"]
    metadata = pq.read_metadata(files[1])
    assert (metadata.metadata or {})[b"bettong.compacted_at"] == b"1234.500"
    times = metadata.row_group(0).column(0)
    assert times.compression == "ZSTD"
    assert times.statistics is not None
    assert (times.statistics.min_raw, times.statistics.max_raw) == (1, 3)


def test_a_segment_without_rows_goes_without_a_part(tmp_path: Path) -> None:
    write(tmp_path, 1)
    (segment,) = tmp_path.rglob("*.seg")
    segment.write_bytes(b"torn")

    assert maintain(tmp_path, 0.0, 2**40).compacted == 0
    assert names(tmp_path) == []
    maintain(tmp_path, 0.0, 2**40)
    assert not segment.parent.exists()


def test_numbers_go_on_after_everything_was_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1)
    maintain(tmp_path, 0.0, 0)
    write(tmp_path, 2)

    assert names(tmp_path) == ["0000000000000002.seg"]


def test_a_compaction_killed_at_any_step_neither_loses_nor_doubles_a_row(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path / "0", TOPIC, FAILURES, "engine-a")
    for n in range(5):
        writer.append(log_rows([n], [n], output="forecast" if n < 3 else "price"))
    writer.close()
    script = textwrap.dedent("""
        import os, shutil, signal, sys
        from pathlib import Path
        from bettong.logstore import compaction, layout

        class Dying:  # in place of os: the process is killed before its nth call of it
            def __init__(self, lives): self.lives = lives
            def __getattr__(self, name):
                found = getattr(os, name)
                self.lives -= callable(found)
                if not self.lives:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

        folder, lives, status = Path(sys.argv[1]), 0, None
        while status != 0:
            lives += 1
            shutil.copytree(folder / "0", folder / str(lives))
            if not (child := os.fork()):
                compaction.os = layout.os = Dying(lives)
                compaction.maintain(folder / str(lives), 0.0, 2**40)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            assert status in (0, signal.SIGKILL)
        print(lives)
    """)
    command, env = [sys.executable, "-c", script, str(tmp_path)], {**os.environ, "PYTHONPATH": TESTS}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=100)

    deaths = int(ran.stdout)
    assert deaths > 20
    for lives in range(1, deaths + 1):
        folder = tmp_path / str(lives)
        reader = SegmentLogReader(folder)
        assert read(reader) == [0, 1, 2, 3, 4], lives
        maintain(folder, 0.0, 2**40)
        assert read(reader) == [0, 1, 2, 3, 4], lives
        assert [Path(name).suffix for name in names(folder)] == [".part"], lives


def read(reader: SegmentLogReader) -> list[int]:
    page = reader.page(LogQuery(TOPIC))
    found = in_page(page)
    while page.cursor:
        page = reader.page(LogQuery(TOPIC, cursor=page.cursor))
        found += in_page(page)
    return found


def test_a_log_is_whole_while_another_process_writes_it_and_it_is_compacted(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from builders import log_rows
        from bettong.logstore.writer import SegmentLogWriter

        writer = SegmentLogWriter(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "engine-a", roll_bytes=60_000)
        for n in range(2000):
            writer.append(log_rows([n], [n]))
            if n % 100 == 0:
                print(n, flush=True)
        writer.close()
    """)
    command, env = [sys.executable, "-c", script, str(tmp_path), TOPIC, FAILURES], {**os.environ, "PYTHONPATH": TESTS}
    reader, seen, compacted = SegmentLogReader(tmp_path), 0, 0
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            found = in_page(reader.page(LogQuery(TOPIC, limit=10_000)))
            newest = in_page(reader.page(LogQuery(TOPIC, limit=10, newest_first=True)))
            assert found == list(range(len(found)))
            assert len(found) > max(int(line), seen - 1)
            assert newest == list(range(newest[0], newest[0] - len(newest), -1))
            assert newest[0] >= len(found) - 1
            seen = len(found)
            compacted += maintain(tmp_path, 0.0, 2**40).compacted
        assert process.wait(timeout=30) == 0

    assert numbers(tmp_path)[-1] == 999  # the default page
    assert reader.page(LogQuery(TOPIC, limit=10_000)).table.num_rows == 2000
    assert compacted > 2


def test_a_topic_over_its_bytes_loses_its_oldest_parts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in (3, 1, 2):
        write(tmp_path, n)
    maintain(tmp_path, 0.0, 2**40)
    size = SegmentLogReader(tmp_path).info(TOPIC).bytes

    done = maintain(tmp_path, 0.0, size - 1)

    assert numbers(tmp_path) == [2, 3]
    assert done.dropped[TOPIC].rows == 1
    assert done.dropped[TOPIC].bytes == size - SegmentLogReader(tmp_path).info(TOPIC).bytes
    assert "dropped_rows=1" in caplog.text


def test_a_piece_of_work_that_takes_long_does_not_put_off_what_has_to_go(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2)
    left: list[list[int]] = []

    done = maintain(
        tmp_path,
        0.0,
        0,
        rest=lambda: left.append(numbers(tmp_path)),
        clock=itertools.count(0.0, compaction.RETAIN_EVERY_S).__next__,
    )

    assert left == [[1, 2]]  # the first segment was in hand, and the second one gone when its turn had come
    assert done.compacted == 1
    assert done.dropped[TOPIC].rows == 2


def test_rows_that_are_being_written_are_never_dropped(tmp_path: Path) -> None:
    write(tmp_path, 1)
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-b")
    writer.append(log_rows([2], [2]))

    done = maintain(tmp_path, 0.0, 0)

    assert numbers(tmp_path) == [2]
    assert done.dropped == {TOPIC: Dropped(1, done.dropped[TOPIC].bytes)}
    writer.close()


def test_over_quota_takes_the_oldest_until_the_rest_fits() -> None:
    items = [
        Sized(PartEntry("a", n, Path(), 0, last_ms, 1), size, last_ms)
        for n, (last_ms, size) in enumerate([(30, 10), (10, 10), (20, 10)])
    ]

    assert [item.last_ms for item in over_quota(items, 30)] == []
    assert [item.last_ms for item in over_quota(items, 29)] == [10]
    assert [item.last_ms for item in over_quota(items, 10)] == [10, 20]
    assert [item.last_ms for item in over_quota(items, 0)] == [10, 20, 30]


def test_two_maintainers_do_not_meet(tmp_path: Path) -> None:
    write(tmp_path, 1)
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from bettong.logstore import compaction

        with compaction._alone(Path(sys.argv[1])) as alone:
            print(alone, flush=True)
            sys.stdin.read()
    """)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert maintain(tmp_path, 0.0, 2**40) == Maintenance()
        other.communicate("")

    assert maintain(tmp_path, 0.0, 2**40).compacted == 1


def test_a_folder_that_does_not_exist_needs_nothing(tmp_path: Path) -> None:
    assert maintain(tmp_path / "none", 0.0, 0) == Maintenance()


def test_rows_go_by_age_once_the_newest_of_their_file_is_old_enough(tmp_path: Path) -> None:
    day_ms = 86_400_000
    write(tmp_path, 1 * day_ms, 9 * day_ms)
    write(tmp_path, 2 * day_ms, 4 * day_ms)
    assert [*compact(tmp_path, 0.0)] == [True, True]

    done = maintain(tmp_path, now_s=11 * 86_400, max_bytes_per_topic=2**40, max_days=6)

    assert done.dropped[TOPIC].rows == 2
    assert numbers(tmp_path) == [1 * day_ms, 9 * day_ms]
    assert maintain(tmp_path, now_s=99 * 86_400, max_bytes_per_topic=2**40).dropped == {}


def test_a_round_that_takes_long_drops_what_is_over_the_quota_in_between(tmp_path: Path) -> None:
    for n in range(4):
        write(tmp_path, n)
    minutes = itertools.count(0, 60)

    done = maintain(tmp_path, 0.0, 0, clock=lambda: float(next(minutes)))

    assert done.compacted == 1, "the other segments were dropped before their turn came"
    assert done.dropped[TOPIC].rows == 4
    assert numbers(tmp_path) == []


def test_others_may_work_after_each_row_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "ROW_GROUP_ROWS", 1)
    monkeypatch.setattr(index, "CHUNK_ROWS", 1)
    write(tmp_path, 1, 2, 3)
    rests = []

    maintain(tmp_path, 0.0, 2**40, rest=lambda: rests.append(1))

    assert len(rests) == 3
    assert numbers(tmp_path) == [1, 2, 3]
