"""Databases give rows in the order of keys, and go on behind any of them: nothing twice, nothing left out."""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import pyarrow as pa
import pytest
from contract.drivers.cases import CORE, SERVICES, Case

from bettong.domain.drivers import Capability, Readable, ReadOrder, ReadRequest
from bettong.drivers.arrow_forms import plain_reader
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator


def with_order(order: ReadOrder) -> list[str]:
    infos = {kind: Registry().info(kind) for kind in (*CORE, *SERVICES)}
    return [kind for kind, info in infos.items() if info is not None and info.read_order is order]


BY_KEYS = pytest.mark.parametrize("case", with_order(ReadOrder.KEYS), indirect=True)
STABLE = pytest.mark.parametrize("case", with_order(ReadOrder.STABLE), indirect=True)


@contextmanager
def source_of(case: Case) -> Iterator[Readable]:
    opening = Opening(case.kind, Registry().driver(case.kind), case.details, Reach(case.calls._egress), 30)
    with opening.source(Capability.READ) as source:
        yield cast("Readable", source)


def in_order(case: Case, query: str, *by: str, after: tuple[Any, ...] | None = None, **more: Any) -> pa.Table:
    with source_of(case) as source:
        return plain_reader(source.read(ReadRequest(query, order_by=by, after=after, **more))).read_all()


@BY_KEYS
def test_rows_come_in_the_order_of_the_keys_and_go_on_behind_any_of_them(case: Case) -> None:
    shops, days = [2, 1, 1, 3, 2], [5, 9, 4, 1, 3]
    table = case.make(pa.table({"shop": shops, "day": days, "n": [1, 2, 3, 4, 5]}))

    whole = in_order(case, table, "shop", "day").to_pylist()

    assert [(row["shop"], row["day"]) for row in whole] == [(1, 4), (1, 9), (2, 3), (2, 5), (3, 1)]
    for at, row in enumerate(whole):
        behind = in_order(case, table, "shop", "day", after=(row["shop"], row["day"]))
        assert behind.to_pylist() == whole[at + 1 :]
        assert in_order(case, f"select * from {table}", "shop", "day", after=(row["shop"], row["day"])) == behind


@BY_KEYS
def test_a_query_keeps_its_own_parameters_and_a_limit_counts_rows_of_the_order(case: Case) -> None:
    table = case.make(pa.table({"id": [4, 3, 2, 1], "s": ["50%", "a", "50%", "50%"]}))
    mark = {"POSTGRES": "$1", "MARIADB": "%s"}.get(case.kind, "?")
    query = f"SELECT id, s FROM {table} WHERE s = {mark}"

    assert in_order(case, query, "id", parameters=("50%",))["id"].to_pylist() == [1, 2, 4]
    assert in_order(case, query, "id", parameters=("50%",), after=(1,))["id"].to_pylist() == [2, 4]
    assert in_order(case, table, "id", limit=2)["id"].to_pylist()[:2] == [1, 2]
    fixed = f"SELECT id, s FROM {table} WHERE s LIKE '5%'"
    assert in_order(case, fixed, "id", after=(1,))["id"].to_pylist() == [2, 4]


KEYS: dict[str, tuple[list[Any], Any]] = {
    "whole": ([3, -(2**62), 7, 2**62], pa.int64()),
    "part": ([0.1, -1.5, 1e300, 2.5], pa.float64()),
    "text": (["b", "A", "a", "ä ☕"], pa.string()),
    "day": ([dt.date(2024, 2, 29), dt.date(1969, 12, 31), dt.date(2025, 1, 1), dt.date(2024, 3, 1)], pa.date32()),
    "at": (
        [dt.datetime(2024, 1, 1, 12, 0, 0, n) for n in (123456, 1, 999999, 0)],
        pa.timestamp("us"),
    ),
    "moment": ([dt.datetime(2024, 1, n, tzinfo=dt.UTC) for n in (3, 1, 4, 2)], pa.timestamp("us", "UTC")),
    "money": ([Decimal("1.10"), Decimal("-3.00"), Decimal("1.09"), Decimal("99.99")], pa.decimal128(10, 2)),
    "yes": ([True, False], pa.bool_()),
}


@BY_KEYS
@pytest.mark.parametrize("name", list(KEYS))
def test_keys_of_each_type_lead_back_to_where_they_stood(case: Case, name: str) -> None:
    values, kind = KEYS[name]
    table = case.make(pa.table({"k": pa.array(values, kind), "n": range(len(values))}))

    whole = in_order(case, table, "k").to_pylist()

    assert len(whole) == len(values)
    for at, row in enumerate(whole):
        assert in_order(case, table, "k", after=(row["k"],)).to_pylist() == whole[at + 1 :]


@BY_KEYS
def test_rows_without_a_key_come_whatever_is_behind(case: Case) -> None:
    table = case.make(pa.table({"a": [1, None, 2, 3], "b": [1, 2, None, 3], "n": [1, 2, 3, 4]}))

    behind = in_order(case, table, "a", "b", after=(2, 0))

    assert sorted(behind["n"].to_pylist()) == [2, 3, 4]  # type: ignore[type-var]


@BY_KEYS
def test_texts_that_a_collation_takes_for_the_same_are_different_keys(case: Case) -> None:
    table = case.make(pa.table({"k": ["a", "A", "á", "a "]}))

    whole = in_order(case, table, "k")["k"].to_pylist()

    assert sorted(map(str, whole)) == sorted(["a", "A", "á", "a "])
    for at, value in enumerate(whole):
        assert in_order(case, table, "k", after=(value,))["k"].to_pylist() == whole[at + 1 :]


@BY_KEYS
def test_a_key_that_is_not_there_is_told_with_what_is(case: Case) -> None:
    table = case.make(pa.table({"id": [1], "x": [2]}))

    with pytest.raises(BadInput, match="no column 'key'") as refused:
        in_order(case, table, "key")

    assert "id, x" in refused.value.next_step


@pytest.mark.parametrize("case", ["POSTGRES"], indirect=True)
def test_types_of_postgresql_are_keys_unless_they_are_not_read_exactly(case: Case) -> None:
    ids = [str(UUID(int=n << 100)) for n in (3, 1, 2)]
    case.write("ids", pa.table({"id": ids, "n": [3.5, 1.5, 2.5]}))
    typed = "select id::uuid as id, n::numeric as n, n::numeric(5, 2) as m, n::int2 as s from ids"

    assert in_order(case, typed, "id")["id"].to_pylist() == sorted(ids)
    assert in_order(case, typed, "id", after=(sorted(ids)[0],))["id"].to_pylist() == sorted(ids)[1:]
    assert in_order(case, typed, "m", "s", after=(Decimal("1.50"), 2)).num_rows == 2
    with pytest.raises(BadInput, match="'n' is numeric, which is not read exactly"):
        in_order(case, typed, "n")


@pytest.mark.parametrize("case", ["DUCKDB"], indirect=True)
def test_types_of_duckdb_are_keys_unless_they_are_not_read_exactly(case: Case) -> None:
    table = case.make(pa.table({"n": [3, 1, 2]}))

    query = f"select n, n::HUGEINT as h from {table} where n >= $1"
    assert in_order(case, query, "n", parameters=(1,), after=(1,))["n"].to_pylist() == [2, 3]
    with pytest.raises(BadInput, match="'h' is HUGEINT"):
        in_order(case, query, "h", parameters=(1,))


@pytest.mark.parametrize("case", ["POSTGRES"], indirect=True)
def test_going_on_behind_a_key_is_still_a_stream(case: Case) -> None:
    table = case.make(pa.table({"id": range(300_000), "s": ["x" * 50] * 300_000}))

    with source_of(case) as source:
        batches = list(source.read(ReadRequest(table, order_by=("id",), after=(9,))))

    assert sum(batch.num_rows for batch in batches) == 299_990
    assert max(batch.nbytes for batch in batches) < 8 * 2**20


@pytest.mark.parametrize("case", ["POSTGRES"], indirect=True)
def test_a_query_with_parameters_is_still_a_stream_and_the_connection_works_on(case: Case) -> None:
    table = case.make(pa.table({"id": range(200_000), "s": ["x" * 50] * 200_000}))
    request = ReadRequest(f"select * from {table} where id >= $1", (10,))

    with source_of(case) as source:
        batches = list(source.read(request))
        again = source.read(ReadRequest(f"select * from {table} where id < $1", (3,))).read_all()
        with pytest.raises(BadInput):
            source.read(ReadRequest(f"select nope from {table} where id < $1", (3,)))
        empty = source.read(ReadRequest(f"select id, s from {table} where id < $1", (0,))).read_all()

    assert sum(batch.num_rows for batch in batches) == 199_990
    assert max(batch.nbytes for batch in batches) < 8 * 2**20
    assert again.num_rows == 3
    assert (empty.num_rows, empty.schema.names) == (0, ["id", "s"])


@STABLE
def test_files_give_their_rows_in_the_same_order_each_time(case: Case) -> None:
    table = case.make(pa.table({"n": range(20_000)}))

    assert case.read(table)["n"].to_pylist() == list(range(20_000))
    assert case.read(table) == case.read(table)


def test_what_sources_say_of_their_order() -> None:
    assert set(with_order(ReadOrder.KEYS)) >= {"SQLITE", "DUCKDB", "POSTGRES", "MARIADB"}
    assert set(with_order(ReadOrder.STABLE)) >= {"FILE", "HTTP", "S3", "GCS", "AZURE"}
