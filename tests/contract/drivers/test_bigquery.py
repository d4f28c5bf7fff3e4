"""BIGQUERY: its own types both ways, both ways of reading, jobs that go on, and what a login may and may not."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from batch_kit import PLUS, End, batch_request, plus, work_double
from contract.drivers.cases import Case, new_calls, new_name
from contract.drivers.test_transactions import sink_of
from services.bigquery import DATASET

from bettong.domain.drivers import Capability, Egress, Readable, ReadRequest, Stage, WriteRequest
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.jobs.infer_batch import infer_batch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from google.cloud import bigquery
    from services.bigquery import BigQuery

pytestmark = pytest.mark.service

OWN = (
    "SELECT 1 AS whole, 0.5 AS part, NUMERIC '12.50' AS money, BIGNUMERIC '1.25' AS more, 'text' AS text, "
    "b'raw' AS raw, true AS yes, DATE '2024-02-29' AS day, DATETIME '2024-02-29 23:59:59.123456' AS clock, "
    "TIMESTAMP '2024-01-01 00:00:00+00' AS moment, TIME '12:30:00' AS time, [1, 2] AS list, "
    "STRUCT(1 AS a, ['x'] AS b) AS record, CAST(NULL AS STRING) AS nothing"
)


def with_details(case: Case, **changes: Any) -> Case:
    details = {name: value for name, value in {**case.details, **changes}.items() if value is not None}
    return Case("BIGQUERY", details, case.calls)


@pytest.fixture
def official(bigquery: BigQuery) -> Iterator[bigquery.Client]:
    """The client that the tutorials use."""
    from google.cloud.bigquery import Client
    from google.oauth2.service_account import Credentials

    credentials = Credentials.from_service_account_info(bigquery.account)
    with_login = {"credentials": credentials, "project": credentials.project_id}
    client = Client(**with_login, client_options={"api_endpoint": bigquery.api_endpoint})
    yield client
    client.close()


@pytest.fixture
def ran(bigquery_case: Case, official: bigquery.Client) -> Case:
    """The case, with a table `own` of the types that BigQuery has."""
    official.query(f"CREATE OR REPLACE TABLE {DATASET}.own AS {OWN}").result()
    return bigquery_case


@pytest.mark.parametrize("query", [OWN, "own"], ids=["query", "table"])
@pytest.mark.parametrize("storage", [True, False], ids=["storage", "rest"])
def test_types_of_its_own_are_read_as_ones_that_everybody_has(ran: Case, query: str, storage: bool) -> None:
    case = ran if storage else with_details(ran, grpc_endpoint=None)

    rows = case.read(query)

    (row,) = rows.to_pylist()
    assert row.pop("moment").timestamp() == 1704067200
    assert row == {
        "whole": 1,
        "part": 0.5,
        "money": Decimal("12.50"),
        "more": Decimal("1.25"),
        "text": "text",
        "raw": b"raw",
        "yes": True,
        "day": dt.date(2024, 2, 29),
        "clock": dt.datetime(2024, 2, 29, 23, 59, 59, 123456),
        "time": dt.time(12, 30),
        "list": [1, 2],
        "record": {"a": 1, "b": ["x"]},
        "nothing": None,
    }
    assert rows.schema.field("moment").type == pa.timestamp("us", "UTC")
    assert rows.schema.field("money").type == pa.decimal128(38, 9)


def test_pages_of_rest_are_all_read(bigquery_case: Case) -> None:
    table = bigquery_case.make(pa.table({"n": range(25_000)}))

    rows = with_details(bigquery_case, grpc_endpoint=None).read(table, batch_rows=4_000)

    assert sorted(row["n"] for row in rows.to_pylist()) == list(range(25_000))


def test_a_test_says_by_which_way_rows_come(bigquery_case: Case) -> None:
    table = bigquery_case.make(pa.table({"n": [1]}))
    fast, slow = with_details(bigquery_case, table=table), with_details(bigquery_case, table=table, grpc_endpoint=None)

    assert "by the Storage API" in said(fast.test(), Stage.PERMISSION)
    assert "by REST" in said(slow.test(), Stage.PERMISSION)
    assert "1 row of 1 columns" in said(slow.test(), Stage.SAMPLE)


def said(report: Any, stage: Stage) -> str:
    assert report.ok, report
    return str(next(result.said for result in report.stages if result.stage is stage))


def test_without_the_storage_api_nothing_is_written_and_the_detail_is_named(bigquery_case: Case) -> None:
    case, table = with_details(bigquery_case, grpc_endpoint=None), new_name()

    with pytest.raises(BadInput, match="Give grpc_endpoint"):
        case.write(table, pa.table({"n": [1]}))

    with pytest.raises(NotFound):
        bigquery_case.read(table)


def test_the_official_client_sees_what_was_written_and_nothing_besides(
    bigquery_case: Case, official: bigquery.Client
) -> None:
    table, before = new_name(), on_their_way(official)
    rows = pa.table({"day": [dt.date(2024, 1, 1)], "forecast": pa.array([[1, 2, 3]], pa.list_(pa.int32()))})

    bigquery_case.write(table, rows, "upsert", "day")
    bigquery_case.write(table, rows, "upsert", "day")

    found = official.get_table(f"{DATASET}.{table}")
    columns = [(field.name, field.field_type, field.mode == "REPEATED") for field in found.schema]
    assert columns == [("day", "DATE", False), ("forecast", "INTEGER", True)]
    assert [dict(row) for row in official.list_rows(found)] == rows.to_pylist()
    assert on_their_way(official) == before


def on_their_way(official: bigquery.Client) -> set[str]:
    """The tables of rows that are not where they belong yet."""
    names = {table.table_id for table in official.list_tables(DATASET)}
    return {name for name in names if name.startswith("_bettong_rows")}


def test_rows_are_fitted_to_the_types_of_a_table_that_is_there(bigquery_case: Case, official: bigquery.Client) -> None:
    table = new_name()
    official.query(
        f"CREATE TABLE {DATASET}.{table} "
        "(f FLOAT64, n NUMERIC, moment TIMESTAMP, day DATE, l ARRAY<FLOAT64>, extra INT64)"
    ).result()
    rows = pa.table({"f": [3], "n": [1.25], "moment": [dt.datetime(2024, 1, 1)], "day": ["2024-01-01"], "l": [[1]]})

    bigquery_case.write(table, rows)

    (row,) = bigquery_case.read(table).to_pylist()
    assert row.pop("moment").timestamp() == 1704067200
    assert row == {"f": 3.0, "n": Decimal("1.25"), "day": dt.date(2024, 1, 1), "l": [1.0], "extra": None}


@pytest.mark.parametrize(("declared", "value"), [("INT64", 1.5), ("DATE", "no date"), ("BOOL", "no truth")])
def test_a_value_that_does_not_fit_is_refused_and_never_bent(
    bigquery_case: Case, official: bigquery.Client, declared: str, value: object
) -> None:
    table = new_name()
    official.query(f"CREATE TABLE {DATASET}.{table} (x {declared})").result()

    with pytest.raises(BadInput) as refused:
        bigquery_case.write(table, pa.table({"x": [value]}))

    assert str(value) not in str(refused.value)
    assert bigquery_case.read(table).num_rows == 0


def test_what_bigquery_has_no_columns_for_is_refused_by_name(bigquery_case: Case) -> None:
    with pytest.raises(BadInput, match=r"no column 'out\.forecast'"):
        bigquery_case.write(new_name(), pa.table({"out.forecast": [[1]]}))
    with pytest.raises(BadInput, match="'forecast' holds lists with nulls"):
        bigquery_case.write(new_name(), pa.table({"forecast": [[1, None]]}))


def test_parameters_keep_their_types(bigquery_case: Case) -> None:
    values = [
        1,
        1.5,
        "a",
        True,
        None,
        Decimal("1.5"),
        dt.date(2024, 1, 1),
        dt.time(12),
        dt.datetime(2024, 1, 1),
    ]

    rows = bigquery_case.read(f"SELECT {', '.join(f'? AS v{n}' for n in range(len(values)))}", *values)

    assert list(rows.to_pylist()[0].values()) == values
    moment = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    assert bigquery_case.read("SELECT UNIX_SECONDS(?) AS s", moment)["s"].to_pylist() == [1704067200]


def test_a_checkpoint_may_hold_anything(bigquery_case: Case) -> None:
    position = json.dumps(["it's; \\ \" `☕`", 1, None]) + "\n'); DROP TABLE x; --"
    table = new_name()

    with sink_of(bigquery_case) as sink:
        sink.write_batch(WriteRequest(table), pa.record_batch({"n": [1]}), f"job's \\ {table}", position)

        assert sink.position(f"job's \\ {table}") == position


def test_an_account_that_is_not_whole_is_no_login(bigquery_case: Case) -> None:
    for left_out in ("private_key", "client_email"):
        report = with_details(bigquery_case, **{left_out: None}).test()
        assert "hold no service account" in report.stages[-1].said
    public = {"project_id": "p", "dataset": "d"}
    assert "hold no service account" in Case("BIGQUERY", public, new_calls()).test().stages[-1].said


def test_without_an_account_an_emulator_is_asked_by_nobody(bigquery_case: Case) -> None:
    case = with_details(bigquery_case, client_email=None, private_key=None)

    assert case.test().ok
    assert case.read("SELECT 1 AS n")["n"].to_pylist() == [1]


def test_the_whole_json_may_stand_in_one_field(bigquery_case: Case, bigquery: BigQuery) -> None:
    places = {name: bigquery_case.details[name] for name in ("api_endpoint", "grpc_endpoint", "dataset")}
    case = Case("BIGQUERY", {**places, "service_account": json.dumps(dict(bigquery.account))}, new_calls())

    assert case.test().ok
    assert not case.test(service_account="no JSON, but secret").ok


def test_no_line_of_the_key_is_told_whatever_it_stands_in(bigquery_case: Case) -> None:
    """A query is a place where a person may paste one, and its words are repeated in errors."""
    line = str(bigquery_case.details["private_key"]).splitlines()[1]

    with pytest.raises((BadInput, NotFound)) as refused:
        bigquery_case.read(f"SELECT `{line}` FROM nowhere")
    with pytest.raises((BadInput, NotFound)) as missing:
        bigquery_case.read(f"`{line}`")

    assert line not in f"{refused.value!r} {missing.value!r}"


@pytest.mark.parametrize("detail", ["api_endpoint", "grpc_endpoint", "token_uri"])
def test_every_service_that_is_talked_to_is_checked_by_the_egress_policy(bigquery_case: Case, detail: str) -> None:
    elsewhere = {"api_endpoint": "http://198.51.100.7", "grpc_endpoint": "198.51.100.7:443"}
    changed = {detail: elsewhere.get(detail, "http://198.51.100.7/token")}
    calls = new_calls(egress=Egress(allow=("127.0.0.0/8",)))
    case = Case("BIGQUERY", {**bigquery_case.details, **changed}, calls)

    report = case.test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.DNS, False)
    assert "egress policy" in report.stages[-1].said
    with pytest.raises(BadInput, match="egress policy"):
        case.read("SELECT 1 AS n")


def test_a_dataset_that_is_not_there_is_told(bigquery_case: Case) -> None:
    with pytest.raises(NotFound, match="dataset or project"):
        with_details(bigquery_case, dataset="no_such_dataset").read("SELECT * FROM no_such_dataset.t")


def test_a_port_where_something_else_listens_is_told(bigquery_case: Case) -> None:
    grpc = with_details(bigquery_case, api_endpoint=f"http://{bigquery_case.details['grpc_endpoint']}")

    report = grpc.test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    with pytest.raises(Unavailable):
        grpc.read("SELECT 1 AS n")


@pytest.mark.parametrize("sink", ["SQLITE", "BIGQUERY"])
def test_a_batch_inference_that_was_stopped_goes_on_behind_its_keys(
    bigquery_case: Case, tmp_path: Path, sink: str
) -> None:
    count = 3_000
    ids = [(n * 7919) % count for n in range(count)]
    table = bigquery_case.make(pa.table({"id": ids, "x": ids}))
    source = End("BIGQUERY", bigquery_case.details)
    target = source if sink == "BIGQUERY" else End(sink, {"path": str(tmp_path / "answers.db")})
    request = batch_request(PLUS, source={"query": table}, sink={"table": f"{table}_answers"})
    stop = lambda work: bool(work.told) and work.told[-1][0]["rows_written"] >= 700  # noqa: E731
    first = work_double(request, source, target, plus(10), tmp_path, stop=stop)

    infer_batch(first)
    second = first.again()
    result = infer_batch(second)

    assert sum(second.asked) < count
    assert result["guarantee"].startswith("exactly once")
    assert (result["rows_read"], result["rows_written"]) == (count, count)
    with second.source("sink", Capability.READ) as answers:
        query = f"select id, y from {table}_answers order by id"
        found = cast("Readable", answers).read(ReadRequest(query)).read_all().to_pylist()
    assert found == [{"id": n, "y": n + 10} for n in range(count)]
