"""DUCKDB: its own types, and a door that stays locked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from pathlib import Path

    from contract.drivers.cases import Case


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "ATTACH '{other}' AS o",
        "COPY first TO '{other}'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SELECT getenv('PATH')",
        "SELECT * FROM first; SELECT * FROM first",
        "EXPORT DATABASE '{other}'",
    ],
)
def test_no_query_reaches_beyond_the_file(duckdb_case: Case, tmp_path: Path, query: str) -> None:
    other = tmp_path / "other"

    with pytest.raises(BettongError):
        duckdb_case.read(query.format(other=other))

    assert not other.exists()


def test_nested_rows_stay_nested(duckdb_case: Case) -> None:
    rows = pa.table({"s": [{"a": 1, "b": ["x"]}], "l": [[[1.0], [2.0]]]})

    back = duckdb_case.read(duckdb_case.make(rows))

    assert back.to_pylist() == rows.to_pylist()


def test_types_without_a_counterpart_are_cast(duckdb_case: Case) -> None:
    query = (
        "SELECT sum(a) AS total, INTERVAL 1 DAY AS i, uuid() AS u, 1.5::DECIMAL(4, 2) AS d, a AS a, a AS a "
        "FROM first GROUP BY a"
    )

    schema = duckdb_case.read(query).schema

    assert [str(field.type) for field in schema] == ["double", "string", "string", "decimal128(4, 2)", "int64", "int64"]


def test_a_table_with_a_key_can_be_replaced_by_rows_with_the_same_keys(duckdb_case: Case) -> None:
    duckdb_case.write("keyed", pa.table({"k": [1, 2], "v": ["a", "b"]}), "upsert", "k")

    duckdb_case.write("keyed", pa.table({"k": [1], "v": ["c"]}), "replace")

    assert duckdb_case.read("keyed").to_pylist() == [{"k": 1, "v": "c"}]


def test_a_value_that_does_not_fit_is_told_without_it(duckdb_case: Case) -> None:
    with pytest.raises(BadInput, match="does not fit") as refused:
        duckdb_case.write("first", pa.table({"a": ["a secret value"]}))

    assert "a secret value" not in str(refused.value)
