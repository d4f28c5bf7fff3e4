"""When a writer goes on in a new segment, and what holds for a process that was forked."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from builders import log_rows

from bettong.domain.deployments import DeploymentSpec
from bettong.domain.logs import LogQuery, topic_of
from bettong.errors import BadInput, Unavailable
from bettong.logstore.factory import open_log
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from pathlib import Path

TOPIC, FAILURES = topic_of(1, "p"), topic_of(1, "p", failures=True)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.seg"))


def test_a_writer_makes_nothing_before_the_first_append(tmp_path: Path) -> None:
    SegmentLogWriter(tmp_path / "logs", TOPIC, FAILURES, "engine-a").close()

    assert not (tmp_path / "logs").exists()


def test_a_segment_that_is_old_or_large_enough_is_followed_by_the_next(tmp_path: Path) -> None:
    clock = Clock()
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a", roll_bytes=10_000, roll_age_s=60.0, clock=clock)
    writer.append(log_rows([1]))
    clock.now_s = 59.9
    writer.append(log_rows([2]))
    assert len(segments(tmp_path)) == 1
    clock.now_s = 60.0
    writer.append(log_rows([3]))
    assert len(segments(tmp_path)) == 2
    writer.append(log_rows([4] * 500))
    writer.append(log_rows([5]))
    writer.close()

    assert segments(tmp_path) == [f"{n:016d}.seg" for n in (1, 2, 3)]
    assert SegmentLogReader(tmp_path).info(TOPIC).partitions == {"engine-a": 504}


def test_writers_of_one_partition_do_not_share_a_segment(tmp_path: Path) -> None:
    old, new = (SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a") for _ in range(2))
    old.append(log_rows([1], [1]))
    new.append(log_rows([2], [2]))
    old.append(log_rows([3], [3]))
    old.close()
    new.close()

    assert len(segments(tmp_path)) == 2
    assert SegmentLogReader(tmp_path).page(LogQuery(TOPIC)).table["in.number"].to_pylist() == [1, 2, 3]


def test_a_log_that_cannot_be_made_is_an_error_that_passes_when_it_can(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file in the way")
    writer = SegmentLogWriter(tmp_path / "logs", TOPIC, FAILURES, "engine-a")
    with pytest.raises(Unavailable, match="could not be written"):
        writer.append(log_rows([1]))
    (tmp_path / "logs").unlink()
    writer.append(log_rows([1]))
    writer.close()

    assert SegmentLogReader(tmp_path / "logs").info(TOPIC).partitions == {"engine-a": 1}


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 300, "a\nb"])
def test_names_that_are_no_folder_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput):
        SegmentLogWriter(tmp_path, TOPIC, FAILURES, name)
    with pytest.raises(BadInput):
        SegmentLogWriter(tmp_path, name, FAILURES, "engine-a")


def test_columns_that_cannot_be_read_back_are_refused(tmp_path: Path) -> None:
    rows = log_rows([1])
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")

    for bad in (
        rows.append_column("in.word", pa.array(["a"]).dictionary_encode()),
        rows.append_column("in.words", pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))),
        rows.append_column("_row", pa.array([1])),
        rows.append_column("in.number", pa.array([1])),
    ):
        with pytest.raises(BadInput):
            writer.append(bad)
    writer.close()
    assert segments(tmp_path) == []


def test_the_log_of_a_replica_is_where_its_deployment_file_says(tmp_path: Path) -> None:
    spec = DeploymentSpec(
        deployment_id=3, name="p", workspace_id=1, workspace_name="w", pipeline_id=1, pipeline_version="v",
        generation=1, replicas=1, cpus=1.0, models=(), public_key="", log_folder=str(tmp_path), topic=TOPIC,
    )  # fmt: skip
    log = open_log(spec, "engine-1")
    log.append(log_rows([1]))
    log.append(log_rows([2]), failed=True)
    log.close()

    found = sorted(os.path.relpath(path, tmp_path) for path in tmp_path.rglob("*.seg"))
    assert found == [f"{topic}/engine-1/{1:016d}.seg" for topic in sorted([TOPIC, FAILURES])]
