"""Rejects lie in files of the job's folder; an attempt that goes on has each of them once."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from bettong.errors import StorageFull
from bettong.jobs.batch.rejects import Reject, RejectFiles
from bettong.services.job_files import rows_of

if TYPE_CHECKING:
    from pathlib import Path

KEYS = (pa.field("day", pa.date32()), pa.field("row", pa.int64()))


def read(folder: Path) -> list[tuple[int, str]]:
    with rows_of(folder, "rejects") as reader:
        rows = reader.read_all().to_pylist()
    return [(row["row"], row["reason"]) for row in rows]


def test_they_come_back_in_order_with_their_keys(tmp_path: Path) -> None:
    files = RejectFiles(tmp_path, KEYS)
    files.keep([Reject(12, (None, 1), "b"), Reject(13, (None, None), "c")])
    files.keep([Reject(2, (None, 3), "a")])
    files.keep([])

    assert read(tmp_path) == [(2, "a"), (12, "b"), (13, "c")]
    with rows_of(tmp_path, "rejects") as reader:
        assert reader.schema.names == ["row", "key.day", "key.row", "reason"]
        assert reader.read_all()["key.row"].to_pylist() == [3, 1, None]


@pytest.mark.parametrize(("null_keys", "left"), [(False, [(2, "a"), (5, "b")]), (True, [(2, "a")])])
def test_those_that_come_again_are_forgotten(tmp_path: Path, null_keys: bool, left: list[tuple[int, str]]) -> None:
    files = RejectFiles(tmp_path, (pa.field("k", pa.int64()),))
    files.keep([Reject(2, (1,), "a"), Reject(5, (None,), "b"), Reject(9, (3,), "c")])
    files.keep([Reject(11, (4,), "d")])

    assert files.drop_from(9, null_keys=null_keys) == len(left)

    assert read(tmp_path) == left
    files.keep([Reject(9, (3,), "again")])
    assert read(tmp_path) == [*left, (9, "again")]


def test_beyond_their_share_they_are_counted_and_kept_no_longer(tmp_path: Path) -> None:
    said: list[str] = []
    files = RejectFiles(tmp_path, (), 2_000, said.append)
    for row in range(100):
        files.keep([Reject(row, (), f"reason {row}")])

    kept = read(tmp_path)
    assert 0 < len(kept) < 100
    assert kept == [(row, f"reason {row}") for row in range(len(kept))]
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) < 4_000
    assert len(said) == 1
    assert f"from row {len(kept)} (from 0) on they are counted, and kept no longer." in said[0]

    again = RejectFiles(tmp_path, (), 2_000, said.append)
    assert again.drop_from(100, null_keys=False, found=100) == 100
    again.keep([Reject(100, (), "late")])
    assert read(tmp_path) == kept


def test_the_first_ones_are_kept_however_small_the_share_is(tmp_path: Path) -> None:
    files = RejectFiles(tmp_path, (), 1)
    files.keep([Reject(1, (), "a")])
    files.keep([Reject(2, (), "b")])

    assert read(tmp_path) == [(1, "a")]
    assert files.first() == "row 1 (from 0): a"


def test_those_that_were_found_behind_the_place_to_go_on_from_are_not_counted_twice(tmp_path: Path) -> None:
    files = RejectFiles(tmp_path, ())
    files.keep([Reject(2, (), "a"), Reject(9, (), "b")])

    assert files.drop_from(5, null_keys=False, found=2) == 1


def test_a_full_disk_is_told_and_leaves_what_was_kept_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RejectFiles(tmp_path, ())
    files.keep([Reject(1, (), "a")])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="takes no more"):
        files.keep([Reject(2, (), "b")])

    monkeypatch.undo()
    assert read(tmp_path) == [(1, "a")]
    files.keep([Reject(2, (), "b")])
    assert read(tmp_path) == [(1, "a"), (2, "b")]
