"""Batch inference as people ask for it: from a table to a table through the whole platform, whatever is killed."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import onnx_models
import psutil
import psycopg
import pyarrow as pa
import pyarrow.json as json_lines
import pyarrow.parquet as pq
import pytest
from e2e.connection_kit import person
from platforms import bettong
from postgres import Postgres, running_postgres
from pyarrow import csv

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import JobError, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wallaroo.job import Job
    from wallaroo.pipeline import Pipeline

pytestmark = pytest.mark.timeout(300)

DEADLINE_S = 120.0
MANY, HELD = 100_000, 50_000  # rows, and the one at which a job is held: some batches are written before it


@pytest.fixture
def wl(reach: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(reach))
    return wallaroo.Client()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def sqlite(wl: wallaroo.Client, folder: Path, *statements: str) -> tuple[Any, Path]:
    """A connection to a new file, and the file."""
    file = folder / f"{uuid4().hex[:8]}.db"
    with closing(sqlite3.connect(file)) as database, database:
        for statement in statements:
            database.execute(statement)
    return wl.create_connection(f"file-{file.stem}", "SQLITE", {"path": str(file)}), file


def found(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as database:
        return database.execute(query).fetchall()


NUMBERS = (
    "create table numbers (id integer primary key, x integer)",
    "insert into numbers with recursive n(i) as (select 0 union all select i + 1 from n where i < 4999) "
    "select i, case i when 7 then null else i * 2 end from n",
)


def test_a_table_is_answered_into_another_by_a_pipeline_that_nobody_deployed(
    wl: wallaroo.Client, folder: Path, adding: Pipeline
) -> None:
    source, _ = sqlite(wl, folder, *NUMBERS)
    sink, file = sqlite(wl, folder)

    job = adding.infer_batch(
        source=source, query="numbers", sink=sink, table="answers", keys=["id"], outputs={"more": "y"}, lineage=True
    )
    assert job.guarantee().startswith("exactly once")
    job.wait(timeout=DEADLINE_S)

    assert job.state() == "succeeded"
    assert found(file, "select count(*), sum(more - 10), count(distinct job_id) from answers") == [
        (4_999, 2 * (sum(range(5_000)) - 7), 1)
    ]
    result = job.result()
    assert result is not None
    assert (result["rows_read"], result["rows_written"], result["rows_rejected"]) == (5_000, 4_999, 1)
    assert job.progress()["rows_total"] == 5_000
    rejects = job.rejects()
    assert rejects[["key.id", "reason"]].values.tolist() == [
        [7, "Column 'x' is null, and the pipeline takes no null in 'x'."]
    ]
    assert any("Guarantee: exactly once" in line for line in job.logs())
    assert adding.status()["status"].endswith("is not deployed")


def test_what_cannot_be_is_refused_when_the_job_is_asked_for(
    wl: wallaroo.Client, folder: Path, adding: Pipeline
) -> None:
    source, _ = sqlite(wl, folder, *NUMBERS)
    plain = wl.create_connection(f"plain-{uuid4().hex[:8]}", "OTHER", {"a": 1})

    with pytest.raises(RequestRefused, match=r"The map names 'z', which the pipeline does not take. It takes: x"):
        adding.infer_batch(source=source, sink=source, table="t", map={"z": "x"})
    with pytest.raises(RequestRefused, match=r"no column 'why'. They have: y"):
        adding.infer_batch(source=source, sink=source, table="t", outputs={"why": "why"})
    with pytest.raises(RequestRefused, match="no driver knows it"):
        adding.infer_batch(source=plain, sink=source, table="t")
    assert wl.list_jobs(unended=True) == []


def test_columns_that_do_not_fit_fail_the_job_before_its_first_row(
    wl: wallaroo.Client, folder: Path, adding: Pipeline
) -> None:
    source, _ = sqlite(
        wl, folder, "create table words (id integer primary key, x text)", "insert into words values (1, 'a')"
    )

    job = adding.infer_batch(source=source, query="words", sink=source, table="answers", keys=["id"])

    with pytest.raises(JobError, match="'x' takes int64, and column 'x' is string"):
        job.wait(timeout=DEADLINE_S)
    assert job.progress().get("rows_read", 0) == 0


def test_rows_that_a_batch_could_not_do_are_told_wherever_one_looks(
    wl: wallaroo.Client, reach: Path, folder: Path, adding: Pipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    source, _ = sqlite(
        wl,
        folder,
        "create table some (id integer primary key, x integer)",
        "insert into some values (1, null), (2, 5), (3, null)",
    )
    job = adding.infer_batch(source=source, query="some", sink=source, table="answers", keys=["id"])
    job.wait(timeout=DEADLINE_S)
    short, reason = job.id()[:8], "Column 'x' is null, and the pipeline takes no null in 'x'."

    assert "2 of 3 rows were rejected: job.rejects() has them" in capsys.readouterr().err
    result = job.result()
    assert result is not None
    assert (result["outcome"], result["reasons"]) == ("1 of 3 rows were written, 2 were rejected.", {reason: 2})
    shown = bettong("jobs", "show", short, home=reach).stdout
    assert "rows       1 of 3, 2 rejected" in shown
    assert f"rejects    2: bettong jobs rejects {short}" in shown
    assert f"{2:>10}  {reason}" in shown

    first = bettong("jobs", "rejects", short, "-n", "1", home=reach)
    assert first.stdout.splitlines() == ["row  key.id  reason", f"0    1       {reason}"]
    assert first.stderr == "2 rejects; these are the first 1. All of them go into a file with -o.\n"
    for ending, read in (("parquet", pq.read_table), ("csv", csv.read_csv), ("jsonl", json_lines.read_json)):
        told = bettong("jobs", "rejects", short, "--output", str(folder / f"rejects.{ending}"), home=reach).stdout
        assert told.startswith("Wrote 2 rejects to ")
        assert read(folder / f"rejects.{ending}")["key.id"].to_pylist() == [1, 3]
    wrong = bettong("jobs", "rejects", short, "-o", str(folder / "rejects.xls"), home=reach, check=False)
    assert (wrong.returncode, "They end in .csv, .parquet, .arrow or .jsonl." in wrong.stderr) == (1, True)


def test_a_batch_that_could_do_no_row_has_failed_and_one_without_rejects_says_that_there_are_none(
    wl: wallaroo.Client, reach: Path, folder: Path, adding: Pipeline
) -> None:
    source, file = sqlite(
        wl,
        folder,
        "create table some (id integer primary key, x integer)",
        "insert into some values (1, null), (2, null), (3, 5)",
    )
    ends: dict[str, Any] = {"source": source, "sink": source, "table": "answers", "keys": ["id"]}
    none = adding.infer_batch(query="select * from some where id < 3", **ends)
    all_of_them = adding.infer_batch(query="select * from some where id = 3", **ends)

    with pytest.raises(JobError, match=r"All 2 rows were rejected\. The first, id=1: Column 'x' is null, and the"):
        none.wait(timeout=DEADLINE_S)
    all_of_them.wait(timeout=DEADLINE_S)

    assert none.rejects()["key.id"].to_list() == [1, 2]
    assert found(file, "select id, y from answers") == [(3, 15)]
    assert bettong("jobs", "rejects", all_of_them.id(), home=reach).stdout == (
        f"Job {all_of_them.id()} has no rejects.\n"
    )


def test_whoever_does_not_see_a_connection_cannot_run_a_job_on_it(
    wl: wallaroo.Client, reach: Path, folder: Path, adding: Pipeline
) -> None:
    source, _ = sqlite(wl, folder, *NUMBERS)
    other = person(wl, reach, folder, f"eve-{uuid4().hex[:6]}@example.org")
    theirs, _ = sqlite(other, folder)

    with pytest.raises(RequestRefused, match="onnection"):
        other_pipeline(other, folder).infer_batch(source=source, sink=theirs, table="t")


def other_pipeline(client: wallaroo.Client, folder: Path) -> Pipeline:
    name = f"theirs-{uuid4().hex[:8]}"
    file = folder / f"{name}.onnx"
    file.write_bytes(onnx_models.plus(1))
    return client.build_pipeline(name).add_model_step(client.upload_model(name, file, Framework.ONNX))


def test_the_forecast_of_the_tutorial_goes_from_table_to_table(
    wl: wallaroo.Client, folder: Path, zips: dict[str, str]
) -> None:
    series = [[1526 + 7 * shop + (day * 37) % 400 for day in range(28)] for shop in range(3)]
    rows = ", ".join(f"({shop}, '{json.dumps(counts)}')" for shop, counts in enumerate(series))
    source, file = sqlite(
        wl, folder, "create table shops (shop integer primary key, counts text)", f"insert into shops values {rows}"
    )
    takes = pa.schema([pa.field("count", pa.list_(pa.int32()))])
    gives = pa.schema([pa.field("forecast", pa.list_(pa.int32())), pa.field("weekly_average", pa.float32())])
    name = f"forecast-{uuid4().hex[:8]}"
    model = wl.upload_model(name, zips["standard"], Framework.PYTHON, input_schema=takes, output_schema=gives)
    pipeline = wl.build_pipeline(name).add_model_step(model)

    job = pipeline.infer_batch(
        source=source,
        query="shops",
        sink=source,
        table="forecasts",
        map={"count": "counts"},
        keys=["shop"],
        outputs={"week": "forecast", "tomorrow": "forecast[0]", "average": "weekly_average"},
    )
    job.wait(timeout=DEADLINE_S)

    answers = found(file, "select shop, week, tomorrow, average from forecasts order by shop")
    assert [shop for shop, *_ in answers] == [0, 1, 2]
    for _, week, tomorrow, average in answers:
        assert len(json.loads(week)) == 7
        assert json.loads(week)[0] == tomorrow
        assert average == pytest.approx(sum(json.loads(week)) / 7, rel=1e-3)


# --- killed ---------------------------------------------------------------------------------------------------------


def warehouse(wl: wallaroo.Client, postgres: Postgres) -> Any:
    details = {"host": "127.0.0.1", "port": postgres.port, "user": "bettong", "database": "postgres"}
    return wl.create_connection(f"warehouse-{uuid4().hex[:8]}", "POSTGRES", details)


def many_numbers(postgres: Postgres) -> str:
    table = f"numbers_{uuid4().hex[:8]}"
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        owner.execute(f"create table {table} (id bigint primary key, x bigint)")
        owner.execute(f"insert into {table} select n, n * 2 from generate_series(0, {MANY - 1}) n")
    return table


@contextmanager
def held(postgres: Postgres, table: str, job: Callable[[], Job]) -> Iterator[Job]:
    """A job that stands in the middle of its rows for as long as this lasts: somebody else is writing one of them."""
    with psycopg.connect(postgres.url()) as other, psycopg.connect(postgres.url(), autocommit=True) as watch:
        other.execute(f"create table {table} (id bigint primary key, y bigint)")
        other.commit()
        other.execute(f"insert into {table} values ({HELD}, 0)")
        begun = job()
        stands = "select 1 from pg_stat_activity where %s = any(pg_blocking_pids(pid))"
        until = time.monotonic() + DEADLINE_S
        while watch.execute(stands, (other.info.backend_pid,)).fetchone() is None:
            assert begun.state() in ("pending", "running"), begun.error()
            assert time.monotonic() < until
            time.sleep(0.02)
        yield begun
        other.rollback()


def server_of(home: Path) -> psutil.Process:
    return psutil.Process(json.loads((home / "server.json").read_text())["pid"])


def each_once(postgres: Postgres, table: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.url()) as reader:
        return reader.execute(
            f"select count(*), count(distinct id), min(id), max(id), bool_and(y = 2 * id + 10) from {table}"
        ).fetchall()


@pytest.mark.service
def test_a_job_whose_process_is_killed_writes_every_row_once(
    wl: wallaroo.Client, reach: Path, postgres: Postgres, adding: Pipeline
) -> None:
    table, connection = many_numbers(postgres), warehouse(wl, postgres)
    ends = {"source": connection, "query": table, "sink": connection, "table": f"{table}_out"}

    with held(postgres, f"{table}_out", lambda: adding.infer_batch(**ends, keys=["id"])) as job:
        (process,) = [c for c in server_of(reach).children() if "bettong.jobs._child" in c.cmdline()]
        process.kill()
        psutil.wait_procs([process], DEADLINE_S)
    job.wait(timeout=DEADLINE_S)

    assert job.attempts() == 2
    assert each_once(postgres, f"{table}_out") == [(MANY, MANY, 0, MANY - 1, True)]
    assert any("goes on behind row" in line for line in job.logs())


@pytest.mark.service
def test_a_job_goes_on_after_the_platform_was_stopped_in_the_middle(
    wl: wallaroo.Client, reach: Path, postgres: Postgres, adding: Pipeline
) -> None:
    table, connection = many_numbers(postgres), warehouse(wl, postgres)
    ends = {"source": connection, "query": table, "sink": connection, "table": f"{table}_out"}

    with held(postgres, f"{table}_out", lambda: adding.infer_batch(**ends, keys=["id"])) as job:
        server = server_of(reach)
        server.kill()
        psutil.wait_procs([server], DEADLINE_S)
    bettong("up", home=reach)
    again = wallaroo.Client().get_job(job.id())
    again.wait(timeout=DEADLINE_S)

    assert again.attempts() == 2
    assert each_once(postgres, f"{table}_out") == [(MANY, MANY, 0, MANY - 1, True)]
