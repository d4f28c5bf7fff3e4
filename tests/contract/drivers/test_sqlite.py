"""SQLITE: types by declaration, and nothing but the one file."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from contract.drivers.cases import Case, new_calls

from bettong.domain.drivers import Egress
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "declared.db"


@pytest.fixture
def case(file: Path, tmp_path: Path) -> Case:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, day DATE, yes BOOLEAN, amount DECIMAL(10, 2), note)"
        )
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)",
            [(1, "2024-01-01 10:00:00", "2024-01-01", 1, 1.25, None), (2, None, "2024-02-29", 0, 2, "text")],
        )
    return Case("SQLITE", {"path": str(file)}, new_calls(tmp_path))


@pytest.mark.parametrize("query", ["t", "SELECT *, id + 1 AS next FROM t WHERE id >= ?1 AND '?' <> ?2"])
def test_columns_have_the_types_they_were_declared_as(case: Case, query: str) -> None:
    parameters = (1, "x") if "?" in query else ()

    rows = case.read(query, *parameters)

    assert rows.schema.field("at").type == pa.timestamp("us")
    assert rows.schema.field("day").type == pa.date32()
    assert rows.schema.field("yes").type == pa.bool_()
    assert rows["at"].to_pylist() == [dt.datetime(2024, 1, 1, 10), None]
    assert rows["yes"].to_pylist() == [True, False]


def test_what_is_not_as_declared_comes_as_it_is(case: Case, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE t SET day = 'some day' WHERE id = 1")

    assert case.read("t")["day"].to_pylist() == ["some day", "2024-02-29"]


def test_a_column_of_mixed_values_is_told_with_what_to_do(case: Case, file: Path) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE m (v)")
        connection.executemany("INSERT INTO m VALUES (?)", [(n,) for n in range(20_000)])
        connection.execute("INSERT INTO m VALUES ('text')")

    with pytest.raises(BadInput, match="different types") as refused:
        case.read("m")

    assert "CAST" in refused.value.next_step
    assert case.read("SELECT CAST(v AS TEXT) AS v FROM m").num_rows == 20_001


@pytest.mark.parametrize(
    ("query", "parameters", "words"),
    [
        ("SELECT * FROM t WHERE id = ?", (), "has 1 placeholder, and 0 parameters were given"),
        ("SELECT * FROM t WHERE id = ? OR note = '?'", (1, 2), "has 1 placeholder, and 2 parameters were given"),
        ("SELECT :a, :b, :a", (1,), "has 2 placeholders, and 1 parameter was given"),
        ("SELECT ?3", (1, 2), "has 3 placeholders, and 2 parameters were given"),
        ("t", (1,), "has 0 placeholders, and 1 parameter was given"),
    ],
)
def test_placeholders_without_a_value_and_values_without_one_are_counted(
    case: Case, query: str, parameters: tuple[object, ...], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        case.read(query, *parameters)


def test_a_text_is_no_number_whatever_sqlite_thinks(case: Case) -> None:
    case.write("t", pa.table({"id": ["7"], "note": ["a number as a text"]}))

    with pytest.raises(BadInput, match="Column 'id' is string, and its values do not fit int64"):
        case.write("t", pa.table({"id": ["8", "eight"]}))
    with pytest.raises(BadInput, match="Column 'id' is string"):
        case.write("t", pa.table({"id": ["eight"], "note": ["x"]}), "upsert", "id")
    with pytest.raises(BadInput, match=r"'id' is timestamp\[us\], and the table's was declared as INTEGER"):
        case.write("t", pa.table({"id": pa.array([], pa.timestamp("us"))}))

    assert case.read("SELECT id, typeof(id) AS kind FROM t ORDER BY id").to_pylist() == [
        {"id": n, "kind": "integer"} for n in (1, 2, 7)
    ]


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH DATABASE '{other}' AS o",
        "SELECT 1; ATTACH DATABASE '{other}' AS o",
        "/* SELECT */ ATTACH '{other}' AS o",
        "-- SELECT\nATTACH '{other}' AS o",
        "PRAGMA writable_schema = 1",
        "VACUUM INTO '{other}'",
    ],
)
def test_no_query_reaches_another_file(case: Case, tmp_path: Path, query: str) -> None:
    other = tmp_path / "other.db"

    with pytest.raises(BadInput):
        case.read(query.format(other=other))

    assert not other.exists()


def test_only_files_in_the_allowed_folders_are_opened_whatever_links_say(tmp_path: Path, file: Path) -> None:
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    allowed.mkdir()
    outside.mkdir()
    with closing(sqlite3.connect(outside / "secret.db")) as connection, connection:
        connection.execute("CREATE TABLE keys (k)")
    (allowed / "link.db").symlink_to(outside / "secret.db")
    (allowed / "home").mkdir()
    calls = new_calls(egress=Egress(folders=(str(allowed),), forbidden=(str(allowed / "home"),)))

    for path in (
        outside / "secret.db",
        allowed / "link.db",
        allowed / ".." / "outside" / "secret.db",
        allowed / "home/x.db",
    ):
        refused = Case("SQLITE", {"path": str(path)}, calls)
        with pytest.raises(BadInput, match="may not reach"):
            refused.read("keys")
        with pytest.raises(BadInput, match="may not reach"):
            refused.write("keys", pa.table({"k": [1]}))
    with pytest.raises(BadInput, match="not absolute"):
        Case("SQLITE", {"path": "relative.db"}, calls).read("keys")


def test_reading_makes_no_file(tmp_path: Path) -> None:
    missing = Case("SQLITE", {"path": str(tmp_path / "missing.db")}, new_calls(tmp_path))

    with pytest.raises(NotFound, match="no file"):
        missing.read("t")

    assert not (tmp_path / "missing.db").exists()
    assert not missing.test().ok


def test_a_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("not a database, " * 100)

    report = Case("SQLITE", {"path": str(tmp_path / "text.db")}, new_calls(tmp_path)).test()

    assert "no SQLite database" in report.stages[-1].said
