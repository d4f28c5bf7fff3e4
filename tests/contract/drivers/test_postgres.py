"""POSTGRES: its own types both ways, rights, and what happens on the server."""

from __future__ import annotations

import datetime as dt
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pyarrow as pa
import pytest

from bettong.domain.drivers import ReadRequest, Stage
from bettong.errors import BadInput, DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from contract.drivers.cases import Case

pytestmark = pytest.mark.service


@pytest.fixture
def server(postgres_case: Case) -> Iterator[psycopg.Connection]:
    details = {name: postgres_case.details[name] for name in ("host", "port", "user")}
    with closing(psycopg.connect(**details, dbname=postgres_case.details["database"], autocommit=True)) as connection:
        yield connection


def test_types_of_its_own_are_read_as_ones_that_everybody_has(postgres_case: Case, server: psycopg.Connection) -> None:
    server.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    server.execute(
        "CREATE TABLE own AS SELECT 12.50::numeric(6, 2) AS declared, 0.1::numeric AS free, "
        "'5e58bf99-b447-4d28-ba11-86b2833aad33'::uuid AS u, '10.0.0.1'::inet AS ip, '{\"a\": 1}'::jsonb AS j, "
        "'glad'::mood AS m, ARRAY[1.5, 2]::numeric[] AS numbers, ARRAY[1, 2] AS whole, interval '1 day' AS i, "
        "2.5::money AS price, int4range(1, 3) AS r, now() AS at"
    )

    (row,) = postgres_case.read("own").to_pylist()

    assert row.pop("at").tzinfo is not None
    assert row == {
        "declared": Decimal("12.50"),
        "free": 0.1,
        "u": "5e58bf99-b447-4d28-ba11-86b2833aad33",
        "ip": "10.0.0.1/32",
        "j": '{"a": 1}',
        "m": "glad",
        "numbers": [1.5, 2.0],
        "whole": [1, 2],
        "i": "1 day",
        "price": 2.5,
        "r": "[1,3)",
    }


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT 1 / (n - 1) AS n FROM generate_series(1, 3) AS n", "PostgreSQL divides by zero in this query"),
        ("SELECT t::int AS n FROM (VALUES ('s3cret')) AS v(t)", "a text that is no value of its type"),
        (
            "SELECT (n * 40000)::smallint AS n FROM generate_series(1, 3) AS n",
            "a number that is too large for its type",
        ),
    ],
)
def test_what_a_query_computes_wrongly_is_told(postgres_case: Case, query: str, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        postgres_case.read(query)

    assert "s3cret" not in str(refused.value)


def test_a_placeholder_without_a_value_is_no_broken_connection(postgres_case: Case) -> None:
    with pytest.raises(BadInput, match="more placeholders than parameters were given"):
        postgres_case.read("SELECT $1::int AS a, $2::int AS b", 1)


def test_a_refused_row_is_told_with_the_names_that_it_is_about_and_no_value(
    postgres_case: Case, server: psycopg.Connection
) -> None:
    server.execute("CREATE TABLE strict (id int CONSTRAINT one_of_each UNIQUE, amount int NOT NULL)")
    postgres_case.write("strict", pa.table({"id": [4711], "amount": [1]}))

    with pytest.raises(BadInput, match=r"has none \(column 'amount' of table 'strict'\)\. Nothing was kept"):
        postgres_case.write("strict", pa.table({"id": [4712], "amount": pa.nulls(1, pa.int32())}))
    with pytest.raises(BadInput, match=r"same key is there \(constraint 'one_of_each' of table 'strict'\)") as refused:
        postgres_case.write("strict", pa.table({"id": [4711], "amount": [1]}))

    assert "4711" not in str(refused.value)


@pytest.mark.parametrize(("rule", "wanted"), [("double", 12.5), ("text", "12.50"), ("auto", Decimal("12.50"))])
def test_numeric_is_read_by_the_rule_of_the_details(postgres_case: Case, rule: str, wanted: object) -> None:
    case = type(postgres_case)("POSTGRES", {**postgres_case.details, "numeric": rule}, postgres_case.calls)

    assert case.read("SELECT 12.50::numeric(6, 2) AS n")["n"].to_pylist() == [wanted]


def test_rows_are_fitted_to_the_types_of_a_table_that_is_there(postgres_case: Case, server: psycopg.Connection) -> None:
    server.execute("CREATE TYPE mood AS ENUM ('glad', 'sad')")
    server.execute(
        "CREATE TABLE typed (i int4, f float8, r real, n numeric(10, 2), u uuid, j jsonb, m mood, v varchar(5), "
        "at timestamptz, day date, l float4[], extra int DEFAULT 7)"
    )
    rows = pa.table(
        {
            "i": pa.array([1], pa.int64()),
            "f": pa.array([3], pa.int64()),
            "r": [1.5],
            "n": [1.25],
            "u": ["5e58bf99-b447-4d28-ba11-86b2833aad33"],
            "j": [{"a": [1, None]}],
            "m": ["sad"],
            "v": ["text"],
            "at": pa.array([dt.datetime(2024, 1, 1)], pa.timestamp("ns")),
            "day": [dt.datetime(2024, 1, 1)],
            "l": [[1.5]],
        }
    )

    for _ in range(2):
        assert postgres_case.write("typed", rows) == 1

    assert postgres_case.read("typed")["f"].to_pylist() == [3.0, 3.0]
    assert (
        server.execute("SELECT n, j->'a'->0, m::text, at = '2024-01-01 00:00Z', extra FROM typed").fetchall()
        == [(Decimal("1.25"), 1, "sad", True, 7)] * 2
    )


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("int2", 100_000),
        ("int4", 1.5),
        ("varchar(3)", "too long"),
        ("uuid", "no uuid"),
        ("jsonb", "{no json"),
        ("date", "no date"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_never_bent(
    postgres_case: Case, server: psycopg.Connection, declared: str, value: object
) -> None:
    server.execute(f"CREATE TABLE narrow (x {declared})")

    with pytest.raises(BadInput) as refused:
        postgres_case.write("narrow", pa.table({"x": [value]}))

    assert str(value) not in str(refused.value)
    assert server.execute("SELECT count(*) FROM narrow").fetchone() == (0,)


def test_a_query_whose_reader_has_gone_does_not_run_on(postgres_case: Case, server: psycopg.Connection) -> None:
    running = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"

    query = ReadRequest("SELECT pg_sleep(600)")
    with (
        pytest.raises(DeadlineExceeded),
        postgres_case.calls.read("POSTGRES", postgres_case.details, query, 2.0),
    ):
        pass

    for _ in range(100):  # the server looks every two seconds whether somebody is still there
        if not server.execute(running).fetchall():
            break
        server.execute("SELECT pg_sleep(0.1)")
    assert server.execute(running).fetchall() == []


def test_all_of_it_may_stand_in_one_uri(postgres_case: Case) -> None:
    d = postgres_case.details
    uri = f"postgresql://{d['user']}:pass%20word@{d['host']}:{d['port']}/{d['database']}?sslmode=disable"
    case = type(postgres_case)("POSTGRES", {"uri": uri}, postgres_case.calls)

    report = case.test()

    assert report.ok, report
    tls = next(result for result in report.stages if result.stage is Stage.TLS)
    assert tls.ok is None


def test_tls_that_is_demanded_and_not_there_ends_the_report_at_its_layer(postgres_case: Case) -> None:
    report = postgres_case.test(sslmode="require")

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.TLS, False)


def test_a_table_that_may_not_be_read_ends_the_report_at_permission(
    postgres_case: Case, server: psycopg.Connection
) -> None:
    server.execute("CREATE TABLE hidden (a int)")
    server.execute("DROP ROLE IF EXISTS guest")
    server.execute("CREATE ROLE guest LOGIN")

    report = postgres_case.test(user="guest", table="hidden")

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.PERMISSION, False)
    assert "may not read 'hidden'" in report.stages[-1].said
    server.execute("DROP ROLE guest")


def test_a_schema_of_the_details_is_where_tables_are_looked_for(
    postgres_case: Case, server: psycopg.Connection
) -> None:
    server.execute('CREATE SCHEMA "My Schema"')
    case = type(postgres_case)("POSTGRES", {**postgres_case.details, "schema": "My Schema"}, postgres_case.calls)

    case.write("t", pa.table({"a": [1]}))

    assert case.read("t").num_rows == 1
    assert postgres_case.read('"My Schema".t').num_rows == 1
    assert [entry.name for entry in case.calls.browse("POSTGRES", case.details, "", 30)] == ["My Schema"]


def test_a_path_in_place_of_a_host_is_refused(postgres_case: Case) -> None:
    for host in ("/var/run/postgresql", "@abstract", "a,b", ""):
        report = postgres_case.test(host=host)
        assert not report.ok
        assert report.stages[-1].stage is Stage.DNS
