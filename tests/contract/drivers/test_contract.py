"""What every driver promises, run on every kind of source by what it can do."""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from contract.drivers.cases import CORE, SERVICES, Case, children, new_calls, new_name, with_capability

from bettong.domain.drivers import Capability, Egress, Stage, WriteMode
from bettong.drivers.details import secret_values
from bettong.drivers.registry import Registry
from bettong.errors import BadInput, BettongError, Conflict, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

EVERY = pytest.mark.parametrize("case", [*CORE, *SERVICES], indirect=True)
NETWORK = pytest.mark.parametrize("case", ["HTTP", *SERVICES], indirect=True)
LOGINS = ["HTTP", "POSTGRES", "MARIADB", "AZURE", "BIGQUERY", "SNOWFLAKE"]
WITH_LOGIN = pytest.mark.parametrize("case", LOGINS, indirect=True)
BROWSING = pytest.mark.parametrize("case", with_capability(Capability.BROWSE), indirect=True)
WRITING = pytest.mark.parametrize("case", with_capability(Capability.WRITE), indirect=True)
UPSERTING = pytest.mark.parametrize("case", with_capability(Capability.UPSERT), indirect=True)


def secrets_of(case: Case) -> set[str]:
    info = case.calls.info(case.kind)
    assert info is not None
    return {str(case.details[name]) for name in info.secret_fields if name in case.details and name != "url"}


# --- testing --------------------------------------------------------------------------------------------------------


@EVERY
def test_a_report_goes_through_the_layers_in_order_and_each_holds(case: Case) -> None:
    report = case.test()

    assert report.ok, report
    assert [result.stage for result in report.stages] == list(Stage)
    assert all(result.took_ms >= 0 and result.said for result in report.stages)


@EVERY
def test_missing_details_end_the_report_at_its_first_layer_with_their_names(case: Case) -> None:
    report = case.calls.test(case.kind, {}, 30)

    assert [(result.stage, result.ok) for result in report.stages] == [(Stage.DETAILS, False)]
    assert "is missing" in report.stages[0].said
    assert report.stages[0].next_step


@WITH_LOGIN
def test_a_refused_login_is_told_as_such(case: Case) -> None:
    assert case.wrong_login is not None

    report = case.test(**case.wrong_login)

    assert report.stages[-1].stage is Stage.LOGIN
    assert report.stages[-1].ok is False
    assert "login" in report.stages[-1].said


@NETWORK
def test_a_host_that_is_not_there_ends_the_report_at_dns_and_a_read_at_once(case: Case) -> None:
    assert case.nowhere is not None

    report = case.test(**case.nowhere)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.DNS, False)
    elsewhere = Case(case.kind, {**case.details, **case.nowhere}, case.calls)
    with pytest.raises(Unavailable, match="does not resolve"):
        elsewhere.read("anything.parquet")


@NETWORK
def test_an_address_that_egress_denies_is_not_reached(case: Case) -> None:
    closed = new_calls(egress=Egress(deny=("127.0.0.0/8", "::1/128")))

    report = closed.test(case.kind, case.details, 30)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.DNS, False)
    with pytest.raises(BadInput, match="egress policy"):
        Case(case.kind, case.details, closed).read("anything.parquet")


# --- reading --------------------------------------------------------------------------------------------------------


@EVERY
def test_rows_come_as_a_stream_of_bounded_batches_and_all_of_them(case: Case) -> None:
    query = case.make(pa.table({"n": range(25_000)}))

    with case.reading(query, batch_rows=1_000) as reader:
        sizes = [batch.num_rows for batch in reader]

    assert sum(sizes) == 25_000
    assert max(sizes) <= 1_000


@EVERY
def test_a_limit_counts_rows(case: Case) -> None:
    query = case.make(pa.table({"n": range(5_000)}))

    rows = case.read(query, limit=1_234, batch_rows=1_000)

    assert rows.num_rows == 1_234
    assert case.read(query, limit=0).num_rows == 0
    assert case.read(query, limit=0).schema.names == ["n"]


@EVERY
def test_what_is_not_there_is_not_found(case: Case) -> None:
    case.make(pa.table({"n": [1]}))

    with pytest.raises(NotFound) as missing:
        case.read(case.at("no_such_table"))

    assert missing.value.next_step


@EVERY
def test_leaving_early_ends_the_process(case: Case) -> None:
    query = case.make(pa.table({"n": range(400_000)}))

    with case.reading(query, batch_rows=100) as reader:
        reader.read_next_batch()
        assert len(children()) == 1

    assert children() == []


@EVERY
def test_an_error_ends_the_process(case: Case) -> None:
    with pytest.raises(BettongError):
        case.read(case.at("no_such_table"))

    assert children() == []


@BROWSING
def test_browsing_finds_what_was_written(case: Case) -> None:
    name = case.make(pa.table({"day": ["monday"], "sales": [1.5]}))

    top = case.calls.browse(case.kind, case.details, "", 30)
    found = next((entry for entry in all_below(case, top) if entry.name.rpartition(".")[2] == name), None)

    assert found is not None
    assert found.kind in ("table", "folder")
    inner = case.calls.browse(case.kind, case.details, found.name, 30)
    if found.kind == "table":
        assert [entry.name for entry in inner] == ["day", "sales"]


def all_below(case: Case, entries: list[Any]) -> Iterator[Any]:
    for entry in entries:
        yield entry
        if entry.kind == "schema":
            yield from case.calls.browse(case.kind, case.details, entry.name, 30)


# --- types ----------------------------------------------------------------------------------------------------------

ROUND_TRIP = pa.table(
    {
        "whole": pa.array([1, -(2**62), None], pa.int64()),
        "part": pa.array([1.5, -0.25, None], pa.float64()),
        "text": pa.array(["", 'a "quoted"\n, line; it\'s ☕ \\N NULL', None]),
        "yes": pa.array([True, False, None]),
        "day": pa.array([dt.date(2024, 2, 29), dt.date(1969, 12, 31), None]),
        "at": pa.array(
            [dt.datetime(2024, 2, 29, 23, 59, 59, 123456), dt.datetime(1969, 1, 1), None], pa.timestamp("us")
        ),
        "moment": pa.array([dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None, None], pa.timestamp("us", "UTC")),
        "money": pa.array([Decimal("12345.67"), Decimal("-0.01"), None], pa.decimal128(10, 2)),
        "raw": pa.array([b"\x00\xff'\n", b"", None], pa.binary()),
        "forecast": pa.array([[1.0, 2.5], [], None], pa.list_(pa.float64())),
        "named": pa.array([{"a": 1, "b": "x"}, {"a": None, "b": None}, None]),
    }
)


@EVERY
def test_types_come_back_as_they_went(case: Case) -> None:
    went = ROUND_TRIP.drop_columns(list(case.without))

    rows = case.read(case.make(went))

    for column in went.schema:
        wanted, came = case.kept_as(column.type), rows.schema.field(column.name).type
        assert same_type(came, wanted), f"{column.name} came as {came}"
    for name in ("whole", "part", "text", "day", "raw"):
        assert rows[name].to_pylist() == ROUND_TRIP[name].to_pylist(), name
    assert [None if v is None else bool(v) for v in rows["yes"].to_pylist()] == [True, False, None]
    assert [None if v is None else float(v) for v in rows["money"].to_pylist()] == [12345.67, -0.01, None]
    assert rows["at"].to_pylist() == ROUND_TRIP["at"].to_pylist()
    assert rows["moment"][0].as_py().replace(tzinfo=dt.UTC) == dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    if pa.types.is_string(rows["forecast"].type):
        assert rows["forecast"].to_pylist() == ["[1.0,2.5]", "[]", None]
    else:
        assert rows["forecast"].to_pylist() == [[1.0, 2.5], [], case.null_list]


@EVERY
def test_an_empty_table_has_its_columns(case: Case) -> None:
    empty = pa.table({"n": pa.array([], pa.int64()), "s": pa.array([], pa.string())})

    rows = case.read(case.make(empty))

    assert rows.num_rows == 0
    assert rows.schema.equals(empty.schema)


@WRITING
def test_categories_and_views_are_written_as_what_they_stand_for(case: Case) -> None:
    rows = pa.table(
        {"c": pa.array(["a", "b", "a", None]).dictionary_encode(), "v": pa.array(["x"] * 4, pa.string_view())}
    )

    back = case.read(case.make(rows))

    assert back.to_pydict() == {"c": ["a", "b", "a", None], "v": ["x", "x", "x", "x"]}


def same_type(came: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        return pa.types.is_list(came) and came.value_type.equals(wanted.value_type)
    return came.equals(wanted)


def numbers(case: Case, table: str) -> list[Any]:
    """The column `n`, in order: databases give rows in any."""
    found: list[Any] = case.read(table)["n"].to_pylist()
    return sorted(found)


# --- writing --------------------------------------------------------------------------------------------------------


@WRITING
def test_append_adds_and_replace_puts_in_place(case: Case) -> None:
    table = case.at(new_name())

    assert case.write(table, pa.table({"n": [1, 2]})) == 2
    assert case.write(table, pa.table({"n": [3]})) == 1
    assert numbers(case, table) == [1, 2, 3]

    assert case.write(table, pa.table({"n": [9]}), WriteMode.REPLACE) == 1
    assert case.read(table)["n"].to_pylist() == [9]


@WRITING
@pytest.mark.parametrize("mode", [WriteMode.APPEND, WriteMode.REPLACE])
def test_rows_that_end_in_an_error_are_not_kept_and_the_error_is_the_callers(case: Case, mode: WriteMode) -> None:
    table = case.make(pa.table({"n": [1, 2]}))

    def broken() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [3]})
        raise KeyError("from the rows")

    with pytest.raises(KeyError, match="from the rows"):
        case.write(table, pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), broken()), mode)

    assert numbers(case, table) == [1, 2]


@WRITING
def test_many_batches_are_written_at_the_pace_of_the_source(case: Case) -> None:
    table = case.at(new_name())
    fields: Any = {"n": pa.int64(), "s": pa.string()}
    schema = pa.schema(fields)
    batches = (pa.record_batch({"n": range(k, k + 1000), "s": ["x" * 50] * 1000}) for k in range(0, 60_000, 1000))

    written = case.write(table, pa.RecordBatchReader.from_batches(schema, batches))

    assert written == 60_000
    assert numbers(case, table) == list(range(60_000))


@UPSERTING
def test_upsert_takes_the_place_of_rows_with_the_same_keys_and_the_last_of_several_counts(case: Case) -> None:
    table = case.at(new_name())
    case.write(table, pa.table({"day": ["mon", "tue"], "shop": [1, 1], "sales": [1.0, 2.0]}), "upsert", "day", "shop")

    newer = pa.table({"day": ["tue", "wed", "wed"], "shop": [1, 1, 1], "sales": [20.0, 30.0, 31.0]})
    assert case.write(table, newer, "upsert", "day", "shop") == 3

    rows = {row["day"]: row["sales"] for row in case.read(table).to_pylist()}
    assert rows == {"mon": 1.0, "tue": 20.0, "wed": 31.0}


@UPSERTING
def test_upsert_refuses_keys_that_are_none(case: Case) -> None:
    table = case.make(pa.table({"day": ["mon"], "sales": [1.0]}))  # made by append: without a key

    with pytest.raises(BadInput, match="needs key columns"):
        case.write(table, pa.table({"day": ["mon"], "sales": [2.0]}), "upsert")
    with pytest.raises(BadInput, match="no key column"):
        case.write(table, pa.table({"day": ["mon"], "sales": [2.0]}), "upsert", "week")
    if case.unique_keys:
        with pytest.raises(BadInput, match="no unique index"):
            case.write(table, pa.table({"day": ["mon"], "sales": [2.0]}), "upsert", "day")
    other = case.at(new_name())
    with pytest.raises(BadInput, match="'day' holds nulls"):
        case.write(other, pa.table({"day": ["mon", None], "sales": [2.0, 3.0]}), "upsert", "day")


@UPSERTING
def test_rows_whose_columns_the_table_lacks_are_refused_with_the_names(case: Case) -> None:
    table = case.make(pa.table({"day": ["mon"], "sales": [1.0]}))

    with pytest.raises(BadInput, match="has no column 'slaes'") as refused:
        case.write(table, pa.table({"day": ["tue"], "slaes": [1.0]}))

    assert "day, sales" in refused.value.next_step
    assert case.read(table).num_rows == 1


@UPSERTING
def test_names_are_quoted_whatever_they_are(case: Case) -> None:
    strange, *columns = case.odd_names
    rows = pa.table({name: [place] for place, name in enumerate(columns)})

    case.write(strange, rows)
    case.write(strange, rows.slice(0, 1), WriteMode.REPLACE)

    assert case.read(strange).to_pylist() == rows.to_pylist()


@UPSERTING
def test_values_are_bound_as_parameters(case: Case) -> None:
    table = case.make(pa.table({"n": [1, 2, 3], "s": ["a", "x' OR '1'='1", None]}))

    rows = case.read(f"SELECT n FROM {table} WHERE s = {case.mark}", "x' OR '1'='1")

    assert rows.to_pydict() == {"n": [2]}


@UPSERTING
@pytest.mark.parametrize(
    "statement", ["DELETE FROM {t}", "DROP TABLE {t}", "INSERT INTO {t} VALUES (9)", "SELECT 1; SELECT 2"]
)
def test_reading_changes_nothing(case: Case, statement: str) -> None:
    table = case.make(pa.table({"n": [1, 2]}))

    with pytest.raises(BadInput):
        case.read(statement.format(t=table))

    assert case.read(table).num_rows == 2


@UPSERTING
def test_a_wrong_query_is_told_without_the_databases_own_words(case: Case) -> None:
    table = case.make(pa.table({"n": [1]}))

    with pytest.raises(BadInput, match="no such column 'nope'"):
        case.read(f"SELECT nope FROM {table}")
    with pytest.raises(BadInput, match=r"does not understand the query|does not begin with"):
        case.read(f"SELEKT n FROM {table}")


@pytest.mark.parametrize("case", ["FILE", "S3", "GCS", "AZURE"], indirect=True)
def test_a_file_that_is_there_is_not_appended_to(case: Case) -> None:
    name = f"{new_name()}.jsonl"
    case.write(name, pa.table({"n": [1]}))

    with pytest.raises(Conflict, match="already"):
        case.write(name, pa.table({"n": [2]}))

    case.write(name, pa.table({"n": [3]}), WriteMode.REPLACE)
    assert case.read(name)["n"].to_pylist() == [3]


@pytest.mark.parametrize("case", ["FILE", "S3", "GCS", "AZURE"], indirect=True)
def test_folders_and_patterns_are_read_in_order_with_columns_from_names(case: Case) -> None:
    top = new_name()
    for day, n in (("2024-01-01", 1), ("2024-01-02", 2), ("2024-02-01", 3)):
        case.write(f"{top}/day={day}/shop={n}/rows.parquet", pa.table({"n": [n]}))

    january = case.read(f"{top}/day=2024-01-*/**/*.parquet")

    assert january.to_pylist() == [
        {"n": 1, "day": "2024-01-01", "shop": 1},
        {"n": 2, "day": "2024-01-02", "shop": 2},
    ]
    assert case.read(top)["n"].to_pylist() == [1, 2, 3]
    with pytest.raises(BadInput, match="leads out"):
        case.read(f"{top}/../first")


@pytest.mark.parametrize("case", ["FILE", "S3", "GCS", "AZURE"], indirect=True)
@pytest.mark.parametrize("extension", ["parquet", "arrow", "csv", "jsonl"])
def test_each_format_is_written_and_read(case: Case, extension: str) -> None:
    rows = pa.table({"n": [1, 2], "s": ["a", "b, ☕"], "f": [0.5, 1.5]})
    name = f"{new_name()}.{extension}"

    case.write(name, rows)

    assert case.read(name).to_pylist() == rows.to_pylist()


# --- secrets --------------------------------------------------------------------------------------------------------


@EVERY
def test_no_secret_gets_into_a_text_a_log_or_the_list_of_processes(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    query = case.make(pa.table({"n": range(400_000)}))
    texts = [repr(case.test())]
    for changes in (case.nowhere, case.wrong_login):
        if changes is not None:
            texts.append(repr(case.test(**changes)))
            texts += told_by(Case(case.kind, {**case.details, **changes}, case.calls), query)
    texts += told_by(case, case.at("no_such_table"))
    with case.reading(query, batch_rows=10) as reader:
        reader.read_next_batch()
        for child in children():
            texts.append(Path(f"/proc/{child.pid}/cmdline").read_bytes().decode(errors="replace"))
            texts.append(Path(f"/proc/{child.pid}/environ").read_bytes().decode(errors="replace"))

    secrets = secrets_of(case) | {str(v) for v in (case.wrong_login or {}).values() if "secret" in str(v)}
    for secret in secrets:
        for text in [*texts, caplog.text]:
            assert secret not in text
            assert quote(secret, safe="") not in text


def told_by(case: Case, query: str) -> list[str]:
    """Everything that a failing call shows: its words, and the whole chain of tracebacks."""
    try:
        case.read(query)
    except BettongError as error:
        return [str(error), repr(error), "".join(traceback.format_exception(error))]
    raise AssertionError("it should have failed")


@pytest.mark.parametrize("case", ["POSTGRES", "MARIADB", "S3", "AZURE", "HTTP", "BIGQUERY", "SNOWFLAKE"], indirect=True)
def test_secrets_may_be_references_that_resolve_where_the_work_is_done(case: Case) -> None:
    info = case.calls.info(case.kind)
    assert info is not None
    name = next(field for field in info.secret_fields if field in case.details and field != "url")
    calls = new_calls(env=("WAREHOUSE_*",))
    calls._environment = {"WAREHOUSE_KEY": str(case.details[name])}
    referring = Case(case.kind, {**case.details, name: {"$secret": "env:WAREHOUSE_KEY"}}, calls, at=case.at)

    report = referring.test()

    assert report.ok, report
    assert report.stages[1].said == "1 resolved"
    query = case.make(pa.table({"n": range(400_000)}))
    with referring.reading(query, batch_rows=10) as reader:
        reader.read_next_batch()
        environ = [Path(f"/proc/{child.pid}/environ").read_bytes() for child in children()]
    assert environ
    assert not any(str(case.details[name]).encode() in variables for variables in environ)


def test_what_is_told_of_a_driver_marks_its_secrets() -> None:
    for info in Registry().all():
        for name in info.secret_fields:
            schema = info.details_schema["properties"][name]
            marked = [schema, *schema.get("anyOf", []), schema.get("additionalProperties", {})]
            assert any(part.get("writeOnly") and part.get("format") == "password" for part in marked), (
                info.types,
                name,
            )


def test_secret_values_are_found_at_any_depth() -> None:
    http = Registry().driver("HTTP").details
    details = http.model_validate({"url": "https://h/f?token=abcdef", "headers": {"x-key": "ghijkl"}})

    assert {"https://h/f?token=abcdef", "ghijkl"} <= set(secret_values(details))
