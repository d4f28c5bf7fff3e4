"""Rejects lie in files of the job's folder; an attempt that goes on has each of them once."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from bettong.errors import BadInput, StorageFull
from bettong.jobs.batch.rejects import Limit, Reject, RejectFiles
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


def test_too_many_end_the_job_with_the_last_reason() -> None:
    limit = Limit(3, before=1)
    limit.found(2, "fine")

    with pytest.raises(BadInput, match=r"More than 3 rows were rejected. The last one: the model is ill"):
        limit.found(1, "the model is ill")


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
