"""FILE: folders and patterns, and nothing outside of what is allowed."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from contract.drivers.cases import Case, new_calls

from bettong.domain.drivers import Egress
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed" / "data"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def case(data: Path) -> Case:
    home = data.parent / "home"
    home.mkdir()
    (home / "keys.json").write_text('[{"key": "of the platform"}]')
    (data.parents[1] / "outside.json").write_text('[{"key": "of somebody"}]')
    egress = Egress(folders=(str(data.parent),), forbidden=(str(home),))
    return Case("FILE", {"path": str(data)}, new_calls(egress=egress))


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow_whose_offsets_reach_into_the_memory_of_the_reader_is_refused(case: Case, data: Path, form: str) -> None:
    size = 100_000
    rows = pa.record_batch({"s": ["x" * size, "y"]})
    made = pa.BufferOutputStream()
    with getattr(pa.ipc, f"new_{form}")(made, rows.schema) as writer:
        writer.write_batch(rows)
    honest = made.getvalue().to_pybytes()
    crafted = honest.replace(struct.pack("<iii", 0, size, size + 1), struct.pack("<iii", 0, size + 200_000, size + 1))
    assert crafted != honest
    (data / "a.arrow").write_bytes(crafted)

    with pytest.raises(BadInput, match="not whole ARROW"):
        case.read("a.arrow")


def test_a_single_file_is_a_connection_of_its_own(case: Case, data: Path) -> None:
    (data / "a.json").write_text('[{"n": 1}]')

    single = Case("FILE", {"path": str(data / "a.json")}, case.calls)

    assert single.test().ok
    assert single.read("").to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("link", ["../../outside.json", "../home/keys.json"])
def test_links_do_not_lead_out(case: Case, data: Path, link: str) -> None:
    (data / "link.json").symlink_to(data / link)

    for query in ("link.json", ""):
        with pytest.raises(BadInput, match="may not reach"):
            case.read(query)


def test_linked_folders_are_not_walked_into(case: Case, data: Path) -> None:
    (data / "a.json").write_text('[{"n": 1}]')
    (data / "sub").symlink_to(data.parent / "home")

    assert case.read("**/*.json").to_pylist() == [{"n": 1}]
    with pytest.raises(BadInput, match="may not reach"):
        case.write("sub/new.jsonl", pa.table({"n": [1]}))


@pytest.mark.parametrize("path", ["../home/keys.json", "/etc/passwd", "a/../../home/keys.json", "file:///etc/passwd"])
def test_paths_do_not_lead_out(case: Case, path: str) -> None:
    with pytest.raises((BadInput, NotFound), match=r"leads out|no file"):
        case.read(path)
    with pytest.raises(BadInput, match="leads out"):
        case.write(path, pa.table({"n": [1]}))


def test_the_platforms_own_folder_is_no_connection(case: Case, data: Path) -> None:
    report = Case("FILE", {"path": str(data.parent / "home")}, case.calls).test()

    assert not report.ok
    assert "may not reach" in report.stages[-1].said


def test_without_allowed_folders_no_file_is_reached(data: Path) -> None:
    (data / "a.json").write_text('[{"n": 1}]')

    with pytest.raises(BadInput, match="may not reach"):
        Case("FILE", {"path": str(data)}, new_calls()).read("a.json")


def test_a_device_or_pipe_is_not_read(case: Case, data: Path) -> None:
    os.mkfifo(data / "pipe.json")

    with pytest.raises((BadInput, NotFound)):
        case.read("pipe.json")


def test_hidden_files_are_nobodys_data(case: Case, data: Path) -> None:
    (data / "a.json").write_text('[{"n": 1}]')
    (data / ".b.json").write_text("broken")
    (data / "_SUCCESS").write_text("")
    (data / "_temporary").mkdir()
    (data / "_temporary" / "c.json").write_text("broken")

    assert case.read("").to_pylist() == [{"n": 1}]


def test_files_that_differ_are_told_unless_columns_are_declared(case: Case, data: Path) -> None:
    (data / "1.json").write_text('[{"n": 1}]')
    (data / "2.json").write_text('[{"n": 2, "more": "x"}]')

    with pytest.raises(BadInput, match=r"'2.json' has other columns"):
        case.read("*.json")

    declared = Case("FILE", {**case.details, "columns": {"n": "int32", "more": "string"}}, case.calls)
    assert declared.read("*.json").to_pylist() == [{"n": 1, "more": None}, {"n": 2, "more": "x"}]


def test_a_declared_type_that_does_not_exist_is_named_by_its_column(case: Case) -> None:
    report = case.test(columns={"n": "integer64"})

    assert "'n' a type that Arrow does not have" in report.stages[0].said


def test_a_write_that_fails_leaves_nothing_behind(case: Case, data: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [1]})
        raise KeyError("from the rows")

    fields = pa.schema({"n": pa.int64()})
    with pytest.raises(KeyError):
        case.write("results", pa.RecordBatchReader.from_batches(fields, broken()))

    assert [path for path in data.rglob("*") if path.is_file() and not path.name.startswith(".")] == []


def test_nested_columns_stand_as_json_in_csv(case: Case, data: Path) -> None:
    case.write("a.csv", pa.table({"forecast": [[1.0, 2.0]]}))

    assert json.loads(case.read("a.csv")["forecast"][0].as_py()) == [1.0, 2.0]
