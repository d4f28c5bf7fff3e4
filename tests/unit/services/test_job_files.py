"""The rows that a job leaves in its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bettong.services.job_files import rows_of

if TYPE_CHECKING:
    from pathlib import Path

FIRST = pa.table({"step": [1, 2, 3]})
SECOND = pa.table({"step": [4], "reason": ["no number"]})


def read(folder: Path, what: str = "rejects") -> pa.Table:
    with rows_of(folder, what) as reader:
        return reader.read_all()


def write(file: Path, rows: pa.Table, *, as_file: bool, whole: bool = True) -> None:
    sink = pa.BufferOutputStream()
    writer: Any = (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, rows.schema)
    for batch in rows.to_batches(max_chunksize=1):
        writer.write_batch(batch)
    if whole:
        writer.close()
    file.write_bytes(sink.getvalue().to_pybytes())


def test_a_job_that_left_nothing_has_no_rows_and_no_columns(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere").schema == pa.schema([])
    assert read(tmp_path).num_rows == 0


def test_files_are_read_in_the_order_of_their_names_whatever_their_form(tmp_path: Path) -> None:
    write(tmp_path / "rejects-1.arrow", FIRST, as_file=False)
    pq.write_table(SECOND, tmp_path / "rejects-2.parquet")
    write(tmp_path / "rejects-3.arrow", FIRST.slice(0, 1), as_file=True)
    write(tmp_path / "result.arrow", SECOND, as_file=False)
    (tmp_path / "rejects.txt").write_text("not rows")

    rows = read(tmp_path)

    assert rows.column("step").to_pylist() == [1, 2, 3, 4, 1]
    assert rows.column("reason").to_pylist() == [None, None, None, "no number", None]
    assert read(tmp_path, "result").equals(SECOND)


@pytest.mark.parametrize("as_file", [False, True], ids=["stream", "file"])
def test_what_is_being_written_is_read_as_far_as_it_is_whole(tmp_path: Path, as_file: bool) -> None:
    write(tmp_path / "rejects-1.arrow", FIRST, as_file=as_file, whole=False)
    assert read(tmp_path).column("step").to_pylist() == [1, 2, 3]

    file = tmp_path / "rejects-1.arrow"
    file.write_bytes(file.read_bytes()[:-7])  # killed in the middle of a batch
    assert read(tmp_path).column("step").to_pylist() == [1, 2]


def test_a_file_that_was_just_begun_has_nothing_to_read_yet(tmp_path: Path) -> None:
    (tmp_path / "rejects-1.arrow").write_bytes(b"")
    (tmp_path / "rejects-2.arrow").write_bytes(b"ARROW1\0\0")
    (tmp_path / "rejects-3.parquet").write_bytes(b"PAR1")
    write(tmp_path / "rejects-4.arrow", FIRST, as_file=False)

    assert read(tmp_path).equals(FIRST)
