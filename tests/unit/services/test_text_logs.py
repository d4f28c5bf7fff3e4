"""Logs in words do not fill the disk, and their last lines are there whatever was cut."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from bettong.services.text_logs import bound, tail

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def written(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A host's log, and the descriptor that its host has on it."""
    log = tmp_path / "deployments" / "adder-1" / "host.log"
    log.parent.mkdir(parents=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    yield log, descriptor
    os.close(descriptor)


def test_a_log_that_outgrew_its_bound_is_emptied_and_its_end_put_aside(
    tmp_path: Path, written: tuple[Path, int]
) -> None:
    log, descriptor = written
    os.write(descriptor, b"".join(b"line %03d\n" % n for n in range(100)))

    assert bound(tmp_path, kept_bytes=95) == [log]
    os.write(descriptor, b"after\n")

    assert log.read_bytes() == b"after\n"  # no hole where the writer was
    aside = log.with_name("host.log.1")
    assert aside.read_bytes() == b"".join(b"line %03d\n" % n for n in range(90, 100))
    assert stat.S_IMODE(aside.stat().st_mode) == 0o600
    assert sorted(p.name for p in log.parent.iterdir()) == ["host.log", "host.log.1"]


def test_what_is_within_its_bound_is_left_alone(tmp_path: Path, written: tuple[Path, int]) -> None:
    log, descriptor = written
    os.write(descriptor, b"x" * 100)

    assert bound(tmp_path, kept_bytes=100) == []
    assert log.stat().st_size == 100


def test_only_one_old_end_is_kept(tmp_path: Path, written: tuple[Path, int]) -> None:
    log, descriptor = written
    for word in (b"first\n", b"second\n"):
        os.write(descriptor, word * 10)
        bound(tmp_path, kept_bytes=20)

    assert log.with_name("host.log.1").read_bytes() == b"second\n" * 2
    assert log.read_bytes() == b""


def test_the_server_has_its_log_bounded_too(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_bytes(b"a line\n" * 10)

    assert bound(tmp_path, kept_bytes=20) == [log]


def test_the_last_lines_reach_back_over_a_cut(tmp_path: Path, written: tuple[Path, int]) -> None:
    log, descriptor = written
    os.write(descriptor, b"one\ntwo\nthree\n")
    bound(tmp_path, kept_bytes=12)
    os.write(descriptor, b"four\nfive")

    assert tail(log, 3) == ["three", "four", "five"]
    assert tail(log, 1) == ["five"]
    assert tail(log, 10) == ["two", "three", "four", "five"]
    assert tail(log.with_name("none.log"), 3) == []
