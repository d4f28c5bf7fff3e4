"""A segment is readable up to its last whole record, whatever happened to its end."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import textwrap
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from builders import log_rows, request_rows

from bettong.domain.logs import LogQuery
from bettong.errors import StorageFull, Unavailable
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.segment import HEADER, LET_GO_BYTES, Codec, SegmentFile, header_of, refused
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from collections.abc import Callable

TOPIC, FAILURES = "workspace-1-pipeline-p-inference", "workspace-1-pipeline-p-failures"


def write(folder: Path, *numbers: int) -> Path:
    """A log with one append per number; its only segment."""
    writer = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-a")
    for n in numbers:
        writer.append(log_rows([n], [n]))
    writer.close()
    (segment,) = folder.rglob("*.seg")
    return segment


def write_requests(folder: Path, *numbers: int) -> Path:
    """The same of requests whose rows share values."""
    writer = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-a")
    shape = request_rows([0])[0]
    for n in numbers:
        writer.append_request(shape, n, *request_rows([n])[1:])
    writer.close()
    (segment,) = folder.rglob("*.seg")
    return segment


def write_rows(folder: Path, *numbers: int) -> Path:
    """The same of single rows of numbers."""
    writer = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-a")
    shape = request_rows([0])[0]
    for n in numbers:
        values: list[Any] = [np.array([n]), np.array([[n, 0.5]], np.float32), np.array([[n]], np.float32)]
        writer.append_row(shape, n, request_rows([n])[1], values)
    writer.close()
    (segment,) = folder.rglob("*.seg")
    return segment


def numbers(folder: Path) -> list[object]:
    table = SegmentLogReader(folder).page(LogQuery(TOPIC)).table
    return table["in.number"].to_pylist() if table.num_rows else []


@pytest.mark.parametrize("write", [write, write_requests, write_rows])
def test_a_tail_torn_at_any_byte_costs_the_last_record_only(tmp_path: Path, write: Callable[..., Path]) -> None:
    segment = write(tmp_path, 1, 2)
    whole = segment.read_bytes()
    first = write(tmp_path / "one", 1).stat().st_size

    for size in range(first, len(whole)):
        segment.write_bytes(whole[:size])
        assert numbers(tmp_path) == [1], size
    segment.write_bytes(whole)
    assert numbers(tmp_path) == [1, 2]


@pytest.mark.parametrize("write", [write, write_requests, write_rows])
def test_a_damaged_tail_is_cut_off_with_a_notice_at_any_byte(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, write: Callable[..., Path]
) -> None:
    segment = write(tmp_path, 1, 2)
    whole = segment.read_bytes()
    first = write(tmp_path / "one", 1).stat().st_size

    for at in range(first + 4, len(whole), 7):  # a flipped length looks like a record that is still being written
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        caplog.clear()
        assert numbers(tmp_path) == [1], at
        assert f"cut at byte={first}" in caplog.text


def test_a_tail_of_zeros_is_cut_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = write(tmp_path, 1)
    size = segment.stat().st_size
    segment.write_bytes(segment.read_bytes() + bytes(4096))

    assert numbers(tmp_path) == [1]
    assert f"cut at byte={size}" in caplog.text


def test_compaction_keeps_what_stands_before_a_torn_tail_and_says_what_it_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    segment = write(tmp_path, 1, 2)
    segment.write_bytes(segment.read_bytes()[:-5])

    maintain(tmp_path, 0.0, 2**40)

    assert numbers(tmp_path) == [1]
    assert "tail=torn" in caplog.text
    assert not segment.exists()


def test_a_record_of_an_unknown_codec_hides_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    segment = write(tmp_path, 1)
    foreign = bytearray(header_of(Codec.ARROW_BATCH, b"later", 1))
    whole = segment.read_bytes()
    known = write(tmp_path / "more", 2).read_bytes()
    foreign[8] = 200
    foreign[4:8] = zlib.crc32(b"later", zlib.crc32(foreign[8:])).to_bytes(4, "little")
    segment.write_bytes(whole + foreign + b"later" + known)

    assert numbers(tmp_path) == [1, 2]
    assert "codec=200" in caplog.text


def test_what_rows_share_is_written_once(tmp_path: Path) -> None:
    one, many = write_requests(tmp_path / "one", 1).stat().st_size, 1000
    writer = SegmentLogWriter(tmp_path / "many", TOPIC, FAILURES, "engine-a")
    writer.append_request(*_request(many))
    writer.close()
    (segment,) = (tmp_path / "many").rglob("*.seg")

    by_row = 8 + (4 + 3 * 4) + (4 + 4) + 1  # a number, three floats and a price, with where they begin
    assert segment.stat().st_size - one < by_row * many * 1.1


def _request(rows: int) -> Any:
    shape, shared, batch = request_rows(range(rows))
    return shape, 1, shared, batch


def test_records_larger_than_one_read_are_found(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    for n in range(3):
        writer.append(log_rows([n] * 60_000, [n] * 60_000))
    writer.close()

    assert SegmentLogReader(tmp_path).info(TOPIC).partitions == {"engine-a": 180_000}


def test_a_full_disk_is_named_and_leaves_the_segment_alone(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    segment = SegmentFile(fd, tmp_path / "1.seg")
    try:
        with pytest.raises(StorageFull, match="no space left"):
            segment.append([header_of(Codec.ARROW_BATCH, b"x", 1), b"x"])
    finally:
        os.close(fd)

    assert segment.broken  # a device cannot be made shorter: the writer goes on in another segment
    assert segment.size == 0


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="only Linux tells what is in memory")
@pytest.mark.parametrize("large", [True, False], ids=["much", "little"])
def test_much_that_was_written_leaves_the_memory_to_others_once_it_is_on_the_disk(tmp_path: Path, large: bool) -> None:
    path = tmp_path / "1.seg"
    segment, payload = SegmentFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), path), b"x" * LET_GO_BYTES
    count = 3 if large else 1

    for _ in range(count):
        segment.append([payload[: len(payload) if large else 1000]])
    if not in_memory(segment.fd):
        pytest.skip("this disk keeps nothing in memory")
    segment.sync()

    assert in_memory(segment.fd) is not large
    assert path.read_bytes() == b"x" * segment.size
    os.close(segment.fd)


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="not on this system")
def test_what_is_on_the_disk_is_there_also_where_the_memory_cannot_be_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "as a sandbox says")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    path = tmp_path / "1.seg"
    segment = SegmentFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), path)
    segment.append([b"x" * LET_GO_BYTES])

    segment.sync()

    assert not segment.dirty
    os.close(segment.fd)


def in_memory(fd: int) -> bool:
    """Whether the first bytes of a file can be had without its disk."""
    try:
        return os.preadv(fd, [bytearray(8)], 0, os.RWF_NOWAIT) == 8
    except BlockingIOError:
        return False
    except OSError:
        pytest.skip("this disk does not tell what is in memory")


def test_other_refusals_are_named_by_their_code_and_show_no_path() -> None:
    told = refused(OSError(errno.EIO, "Input/output error", "/secret/place"))

    assert type(told) is Unavailable
    assert "EIO" in str(told)
    assert "secret" not in str(told)


def test_a_write_that_the_system_cut_short_is_taken_back(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import resource, sys
        from pathlib import Path
        from builders import log_rows
        from bettong.errors import StorageFull
        from bettong.logstore.writer import SegmentLogWriter

        writer = SegmentLogWriter(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "engine-a")
        writer.append(log_rows([1], [1]))
        (segment,) = Path(sys.argv[1]).rglob("*.seg")
        size = segment.stat().st_size
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            writer.append(log_rows([2], [2]))
        except StorageFull as told:
            print(told, segment.stat().st_size == size)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        writer.append(log_rows([3], [3]))
        writer.close()
    """)
    command = [sys.executable, "-c", script, str(tmp_path), TOPIC, FAILURES]
    tests = str(Path(__file__).parents[2])
    ran = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": tests}, capture_output=True, text=True, check=True, timeout=60
    )

    assert "EFBIG" in ran.stdout
    assert "True" in ran.stdout
    assert numbers(tmp_path) == [1, 3]


def test_a_segment_is_its_owners_alone_and_on_the_disk_after_closing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    segment = write(tmp_path / "logs", 1)

    assert segment.stat().st_mode & 0o777 == 0o600
    assert segment.parent.stat().st_mode & 0o077 == 0
    assert not caplog.records  # no sync was refused


def test_the_header_is_32_bytes_for_ever() -> None:
    assert HEADER.size == 32
    assert header_of(Codec.ARROW_BATCH, b"abc", 2, -1, 7).hex() == (
        "03000000" + header_of(Codec.ARROW_BATCH, b"abc", 2, -1, 7)[4:8].hex() + "01000000" + "02000000"
        "ffffffffffffffff" + "0700000000000000"
    )
