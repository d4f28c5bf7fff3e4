"""MYSQL and MARIADB: both ways of writing, strictly, and types of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from contract.drivers.test_transactions import sink_of

from bettong.domain.drivers import WriteRequest
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract.drivers.cases import Case
    from services.mariadb import MariaDb

    from bettong.drivers.mysql import MySqlSource

pytestmark = pytest.mark.service


@pytest.fixture(params=["load data", "insert"])
def way(request: pytest.FixtureRequest, mariadb: MariaDb) -> Iterator[str]:
    """With and without LOAD DATA LOCAL, which servers may forbid."""
    mariadb.execute(f"SET GLOBAL local_infile = {int(request.param == 'load data')}")
    yield str(request.param)
    mariadb.execute("SET GLOBAL local_infile = 1")


@pytest.fixture
def table(mariadb: MariaDb) -> Iterator[str]:
    yield "strict"
    mariadb.execute("DROP TABLE IF EXISTS strict")


YES: Any = pa.array([True, None, False, True])
HARD = pa.table(
    {
        "n": [1, 2, 3, 4],
        "s": ["", None, 'q"uo,te\n\r\\N', "NULL"],
        "b": [b"", None, b'\x00"\n\xff', b"NULL"],
        "f": [0.1, None, -1e300, 5e-324],
        "y": YES,
    }
)


def test_texts_that_look_like_something_else_come_back_as_they_were(mariadb_case: Case, way: str, table: str) -> None:
    mariadb_case.write(table, HARD)

    back = mariadb_case.read(f"SELECT * FROM {table} ORDER BY n")

    assert back["s"].to_pylist() == HARD["s"].to_pylist()
    assert back["b"].to_pylist() == HARD["b"].to_pylist()
    assert back["f"].to_pylist() == HARD["f"].to_pylist()
    assert back["y"].to_pylist() == [1, None, 0, 1]


@pytest.mark.parametrize(
    ("declared", "value"),
    [("TINYINT", 1000), ("VARCHAR(3)", "too long"), ("DATE", "no date"), ("INT NOT NULL", None), ("JSON", "{no json")],
)
def test_a_value_that_does_not_fit_is_refused_and_never_bent(
    mariadb_case: Case, mariadb: MariaDb, way: str, table: str, declared: str, value: object
) -> None:
    mariadb.execute(f"CREATE TABLE {table} (x {declared})")
    column: Any = pa.array([value], pa.int64()) if value is None else pa.array([value])

    with pytest.raises(BadInput) as refused:
        mariadb_case.write(table, pa.table({"x": column}))

    assert str(value) not in str(refused.value) or value is None
    assert mariadb_case.read(table).num_rows == 0


def test_a_row_whose_key_is_taken_is_refused_and_not_left_out(
    mariadb_case: Case, mariadb: MariaDb, way: str, table: str
) -> None:
    mariadb.execute(f"CREATE TABLE {table} (k INT PRIMARY KEY)", f"INSERT INTO {table} VALUES (2)")

    with pytest.raises(BadInput, match="same key"):
        mariadb_case.write(table, pa.table({"k": [1, 2, 3]}))

    assert mariadb_case.read(table)["k"].to_pylist() == [2]


def test_types_of_its_own_are_read_as_ones_that_everybody_has(mariadb_case: Case) -> None:
    query = (
        "SELECT CAST(18446744073709551615 AS UNSIGNED) AS u, CAST(1.50 AS DECIMAL(6, 2)) AS d, "
        "TIME '25:00:00' AS t, JSON_OBJECT('a', 1) AS j, x'00ff' AS raw, NULL AS nothing, 1 AS a, 2 AS a"
    )

    rows = mariadb_case.read(query)

    assert rows["u"].to_pylist() == [2**64 - 1]
    assert rows.schema.field("d").type == pa.decimal128(6, 2)
    assert rows["t"].to_pylist() == ["25:00:00"]
    assert rows["raw"].to_pylist() == [b"\x00\xff"]
    assert rows["nothing"].to_pylist() == [None]


def test_dates_that_are_none_are_told_with_what_to_do(mariadb_case: Case, mariadb: MariaDb, table: str) -> None:
    mariadb.execute(f"CREATE TABLE {table} (d DATE)", "SET sql_mode = ''", f"INSERT INTO {table} VALUES ('0000-00-00')")

    with pytest.raises(BadInput, match="0000-00-00"):
        mariadb_case.read(table)


def test_a_table_without_transactions_takes_no_checkpoint(mariadb_case: Case, mariadb: MariaDb, table: str) -> None:
    mariadb.execute(f"CREATE TABLE {table} (n BIGINT) ENGINE=Aria TRANSACTIONAL=0")

    with sink_of(mariadb_case) as sink, pytest.raises(BadInput, match="without transactions"):
        sink.write_batch(WriteRequest(table), pa.record_batch({"n": [1]}), "job-1", "1")

    assert mariadb_case.read(table).num_rows == 0


def test_tls_that_is_demanded_and_not_there_is_told(mariadb_case: Case) -> None:
    report = mariadb_case.test(ssl="require")

    assert not report.ok
    assert "has no TLS" in report.stages[-1].said


def test_a_server_is_not_given_a_file_that_it_wishes_for(mariadb_case: Case, mariadb: MariaDb, table: str) -> None:
    """A server may wish for any file in answer to any statement; an honest one does so for LOAD DATA alone."""
    mariadb.execute(f"CREATE TABLE {table} (line TEXT)")

    with sink_of(mariadb_case) as sink:
        source = cast("MySqlSource", sink)
        with pytest.raises(RuntimeError, match="local_infile"), source.writing():
            source._run(f"LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE {table}")

    assert mariadb_case.read(table).num_rows == 0
