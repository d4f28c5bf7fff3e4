"""Jobs that last longer than the credentials they work with, through the whole platform, with a real vault."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from e2e.connection_kit import reaching_home
from postgres import Postgres, running_postgres
from services.openbao import OpenBao, running_openbao

import wallaroo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from wallaroo.pipeline import Pipeline

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

DEADLINE_S = 120.0
ROWS, ROW_S = 5_000, 0.0025  # what the target takes for each row: a job lasts longer than 12 s


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def openbao() -> Iterator[OpenBao]:
    with running_openbao() as vault:
        yield vault


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vault") / "token"


@pytest.fixture(scope="module")
def home(openbao: OpenBao, token: Path) -> Iterator[Path]:
    token.write_text(openbao.token("database/creds/*"))
    with reaching_home({"BETTONG_VAULT_ADDR": openbao.address, "BETTONG_VAULT_TOKEN_FILE": str(token)}) as home:
        yield home


@pytest.fixture
def wl(home: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(home))
    return wallaroo.Client()


def slow_tables(owner: psycopg.Connection[Any]) -> tuple[str, str]:
    """A table of numbers, and one that takes its time for every row that is written to it."""
    table = f"numbers_{uuid4().hex[:8]}"
    out = f"{table}_out"
    for statement in (
        "do $$ begin create role workers; exception when duplicate_object then null; end $$",
        "grant create on schema public to workers",
        f"create table {table} (id bigint primary key, x bigint)",
        f"insert into {table} select n, n * 2 from generate_series(0, {ROWS - 1}) n",
        f"create table {out} (id bigint primary key, y bigint)",
        f"create or replace function takes_{out}() returns trigger language plpgsql as "
        f"'begin perform pg_sleep({ROW_S}); return new; end'",
        f"create trigger slow before insert on {out} for each row execute function takes_{out}()",
        f"grant all on {table}, {out} to workers",
    ):
        owner.execute(statement)
    return table, out


# What people have their vault do: who comes is a member of a role that lasts, and what they make belongs to it.
AS_WORKER = ('GRANT workers TO "{{name}}"', "ALTER ROLE \"{{name}}\" SET role = 'workers'")


def users(owner: psycopg.Connection[Any]) -> set[str]:
    return {name for (name,) in owner.execute("select rolname from pg_roles where rolname like 'v-%'").fetchall()}


@pytest.mark.parametrize(("most_s", "all_in_one"), [(600, True), (8, False)])
def test_a_job_that_is_longer_than_its_lease_writes_every_row_once(
    wl: wallaroo.Client,
    postgres: Postgres,
    openbao: OpenBao,
    adding: Pipeline,
    most_s: int,
    all_in_one: bool,
) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        table, out = slow_tables(owner)
        path = openbao.lend(postgres.port, *AS_WORKER, lasts_s=4, most_s=most_s)
        leased = {field: {"$secret": f"vault:{path}#{of}"} for field, of in (("user", "username"), ("password",) * 2)}
        details = {"host": "127.0.0.1", "port": postgres.port, "database": "postgres", **leased}
        warehouse = wl.create_connection(f"warehouse-{uuid4().hex[:8]}", "POSTGRES", details)
        seen: set[str] = set()

        began = time.monotonic()
        job = adding.infer_batch(source=warehouse, query=table, sink=warehouse, table=out, keys=["id"])
        while job.state() in ("pending", "running"):
            seen |= users(owner)
            assert time.monotonic() < began + DEADLINE_S, job.logs()
            time.sleep(0.05)
        took_s = time.monotonic() - began

        assert job.state() == "succeeded", job.logs()
        assert took_s > ROWS * ROW_S > 8
        counted = owner.execute(f"select count(*), count(distinct id), bool_and(y = 2 * id + 10) from {out}").fetchone()
        assert counted == (ROWS, ROWS, True)
        run_out = [line for line in job.logs() if line.startswith("The short-lived credentials")]
        if all_in_one:
            assert (job.attempts(), len(seen), run_out) == (1, 1, [])
        else:
            assert job.attempts() == len(seen) == len(run_out) + 1 > 1
        until = time.monotonic() + 30
        while users(owner):
            assert time.monotonic() < until, "the users of a job that is over are gone"
            time.sleep(0.02)
        assert warehouse.details()["password"] == leased["password"]
