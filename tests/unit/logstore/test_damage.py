"""Damaged bytes anywhere cost the rows that they hold, never the log."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from builders import log_rows
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.logstore.test_segment import TOPIC, numbers, write, write_requests, write_rows

from bettong.domain.logs import LogQuery
from bettong.logstore.blocks import Unreadable, blocks_of_part
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.segment import HEADER
from bettong.logstore.writer import SegmentLogWriter

WRITES = {"batches": write, "requests": write_requests, "rows": write_rows}
ROWS = list(range(1, 9))
AT = st.integers(0, 2**20)  # taken modulo the size of what is damaged


def flipped(data: bytes, at: int, mask: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def records(data: bytes) -> list[int]:
    """Where the records of a whole segment begin."""
    starts, at = [], 0
    while at < len(data):
        starts.append(at)
        at += HEADER.size + HEADER.unpack_from(data, at)[0]
    return starts


@pytest.fixture(scope="module", params=WRITES)
def segment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    return WRITES[request.param](folder, *ROWS)


@settings(max_examples=150, deadline=None)
@given(at=AT, mask=st.integers(1, 255))
def test_a_flipped_byte_of_a_segment_costs_the_rows_around_it_alone(segment: Path, at: int, mask: int) -> None:
    whole = segment.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "log"
        shutil.copytree(segment.parents[2], folder)
        (damaged,) = folder.rglob("*.seg")
        damaged.write_bytes(flipped(whole, at, mask))

        left = numbers(folder)
        maintain(folder, 0.0, 2**40)

        at %= len(whole)
        number, start = max((n, start) for n, start in enumerate(records(whole)) if start <= at)
        if at < start + 4:  # a length: what follows cannot be found
            assert left == ROWS[: max(number - 1, 0)]
        elif number == 0:  # the schema
            assert left == []
        else:
            assert left == [n for n in ROWS if n != number]
        assert numbers(folder) == left  # compaction keeps what was readable


@settings(max_examples=60, deadline=None)
@given(size=AT)
def test_a_segment_cut_anywhere_keeps_its_whole_records(segment: Path, size: int) -> None:
    whole = segment.read_bytes()
    size %= len(whole)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "log"
        shutil.copytree(segment.parents[2], folder)
        (damaged,) = folder.rglob("*.seg")
        damaged.write_bytes(whole[:size])

        ends = [*records(whole)[1:], len(whole)]
        assert numbers(folder) == ROWS[: max(sum(end <= size for end in ends) - 1, 0)]


def test_what_was_skipped_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = write(tmp_path, 1, 2, 3)
    whole = segment.read_bytes()
    second = records(whole)[2]
    segment.write_bytes(flipped(whole, second + HEADER.size + 40, 1))

    assert numbers(tmp_path) == [1, 3]
    assert f"skipped from byte={second}" in caplog.text


def test_rows_behind_a_damaged_schema_wait_for_the_next_schema(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, "failures", "engine-a")
    for n, output in enumerate(["forecast", "price", "price", "forecast"]):
        writer.append(log_rows([n], [n], output))
    writer.close()
    (segment,) = tmp_path.rglob("*.seg")
    whole = segment.read_bytes()
    second_schema = records(whole)[2]

    segment.write_bytes(flipped(whole, second_schema + HEADER.size + 40, 1))

    assert numbers(tmp_path) == [0, 3]


def test_more_damaged_records_than_can_be_skipped_cut_the_segment_there(tmp_path: Path) -> None:
    segment = write(tmp_path, *range(40))
    data = bytearray(segment.read_bytes())
    for start in records(bytes(data))[3:30]:
        data[start + HEADER.size] ^= 1
    segment.write_bytes(data)

    assert numbers(tmp_path) == [0, 1]


def test_a_segment_damaged_while_it_is_known_is_learned_anew(tmp_path: Path) -> None:
    segment = write(tmp_path, 1, 2, 3)
    reader = SegmentLogReader(tmp_path)
    assert reader.page(LogQuery(TOPIC)).table["in.number"].to_pylist() == [1, 2, 3]
    whole = segment.read_bytes()
    second = records(whole)[2] + HEADER.size

    segment.write_bytes(whole[:second] + bytes(24) + whole[second + 24 :])

    assert reader.page(LogQuery(TOPIC)).table["in.number"].to_pylist() == [1, 3]


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet file of 300 rows, in its log folder."""
    folder = tmp_path_factory.mktemp("parts")
    write(folder, *range(300))
    maintain(folder, 0.0, 2**40)
    (file,) = folder.rglob("*.parquet")
    return file


def foot_of(data: bytes) -> int:
    """Where the foot of a Parquet file begins."""
    return len(data) - 8 - int.from_bytes(data[-8:-4], "little")


@settings(max_examples=100, deadline=None)
@given(at=AT, mask=st.integers(1, 255))
def test_a_damaged_part_hides_itself_and_no_other(part: Path, at: int, mask: int) -> None:
    whole = part.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "log"
        shutil.copytree(part.parents[3], folder)
        (damaged,) = folder.rglob("*.parquet")
        damaged.write_bytes(flipped(whole, at, mask))
        write_more(folder)

        left = readable(folder)

        assert 1000 in left
        if 4 < at % len(whole) < foot_of(whole):
            assert left in ([*range(300), 1000], [1000])
        elif at % len(whole) > 4:
            assert left == [1000]


def test_no_bit_of_a_foot_that_is_wrong_ends_the_process(part: Path, tmp_path: Path) -> None:
    """Parquet's library aborts over some: of this file, over the lowest bit of four bytes."""
    whole, folder = part.read_bytes(), tmp_path / "log"
    shutil.copytree(part.parents[3], folder)
    (damaged,) = folder.rglob("*.parquet")
    write_more(folder)
    for at in range(foot_of(whole), len(whole)):
        damaged.write_bytes(flipped(whole, at, 1))
        with pytest.raises(Unreadable):
            blocks_of_part(1, damaged.parent)

    assert readable(folder) == [1000]


@pytest.mark.parametrize("said", [b"", b"\0\0\0\0\1\0\0\0"], ids=["nothing", "two things"])
def test_a_foot_is_believed_when_it_is_what_is_said_of_it_that_is_damaged(
    part: Path, tmp_path: Path, said: bytes
) -> None:
    folder = tmp_path / "log"
    shutil.copytree(part.parents[3], folder)
    (file,) = folder.rglob("*.foot")
    file.write_bytes(said)

    assert readable(folder) == list(range(300))


def test_a_part_that_was_made_before_feet_had_checksums_is_read(part: Path, tmp_path: Path) -> None:
    folder = tmp_path / "log"
    shutil.copytree(part.parents[3], folder)
    (file,) = folder.rglob("*.foot")
    file.unlink()

    assert readable(folder) == list(range(300))


def test_a_part_that_is_no_parquet_is_left_out_with_a_notice(
    part: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "log"
    shutil.copytree(part.parents[3], folder)
    (damaged,) = folder.rglob("*.parquet")
    damaged.write_bytes(bytes(100))
    write_more(folder)

    assert readable(folder) == [1000]
    assert f"damaged: file={damaged}" in caplog.text


def write_more(folder: Path) -> None:
    writer = SegmentLogWriter(folder, TOPIC, "failures", "engine-b")
    writer.append(log_rows([1000], [1000]))
    writer.close()


def readable(folder: Path) -> list[object]:
    """The numbers of all rows that have one, page by page: damage may change a schema."""
    reader, cursor = SegmentLogReader(folder), None
    found: list[object] = []
    while True:
        page = reader.page(LogQuery(TOPIC, cursor=cursor))
        if "in.number" in page.table.column_names:
            found += page.table["in.number"].to_pylist()
        if (cursor := page.cursor) is None:
            return found
