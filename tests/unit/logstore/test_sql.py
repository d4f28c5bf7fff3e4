"""SQL over logs reads the logs that it names, compacted or not, and nothing else; it ends in time and in words."""

from __future__ import annotations

import os
import resource
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from builders import log_rows, request_rows

from bettong.errors import BadInput, TooLarge, Unavailable
from bettong.logstore import sql as sql_module
from bettong.logstore.compaction import maintain
from bettong.logstore.sql import FOLDER, LogSql, NamedLog, SqlLimits, logs_named
from bettong.logstore.writer import SegmentLogWriter
from bettong.packaging.wheels import package_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

TOPIC, FAILURES = "workspace-1-pipeline-rental-inference", "workspace-1-pipeline-rental-failures"
RENTAL = (NamedLog("rental", True, TOPIC), NamedLog("rental", False, FAILURES))
LAUNCHER = package_folder("bettong-mac") / "_launch.py"
LIMITS = SqlLimits(timeout_s=20, memory_bytes=256 * 2**20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A log of a compacted part, a segment of an ended writer, one in use, and another schema in it."""
    folder = tmp_path_factory.mktemp("logs")
    first = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-a")
    first.append(log_rows([1, 2, 3], [1, 2, 3]))
    first.append(log_rows([9], [9]), failed=True)
    first.close()
    maintain(folder, 0.0, 2**40)
    second = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-b")
    second.append(log_rows([4], [4]))
    second.close()
    third = SegmentLogWriter(folder, TOPIC, FAILURES, "engine-c")
    third.append(log_rows([5], [5], output="price"))
    yield folder
    third.close()


def table(folder: Path, query: str, logs: Sequence[NamedLog] = RENTAL, limits: SqlLimits = LIMITS) -> pa.Table:
    with LogSql(folder, LAUNCHER, limits).run(query, logs) as result:
        return pa.ipc.open_stream(result.read()).read_all()


def rows(folder: Path, query: str, **more: Any) -> list[dict[str, Any]]:
    return table(folder, query, **more).to_pylist()


# --- what it reads


def test_a_query_sees_every_row_in_parts_and_segments_of_all_schemas(folder: Path) -> None:
    found = rows(folder, """select "in.number" as n, "out.price" is null as bare from logs('rental') order by n""")

    assert found == [{"n": n, "bare": n != 5} for n in range(1, 6)]


def test_failures_are_a_log_of_their_own(folder: Path) -> None:
    assert rows(folder, """select "in.number" as n from logs('rental', valid := false)""") == [{"n": 9}]


def test_columns_are_those_of_the_log_and_no_other(folder: Path) -> None:
    names = table(folder, "select * from logs('rental')").column_names

    assert "_row" not in names
    assert names[:2] == ["time", "in.number"]


def test_logs_can_be_joined_grouped_and_named(folder: Path) -> None:
    query = """with high as (select "in.number" as n from logs('rental') where "in.number" > 3)
               select count(*) as c from high join logs('rental', valid := false) f on f."in.number" > high.n"""

    assert rows(folder, query) == [{"c": 2}]


def test_a_log_with_nothing_in_it_is_an_empty_table(folder: Path) -> None:
    empty = [NamedLog("idle", True, "workspace-1-pipeline-idle-inference")]

    assert rows(folder, "select * from logs('idle')", logs=empty) == []
    with pytest.raises(BadInput, match="'idle' that it names has no rows yet"):
        rows(folder, """select "in.count" from logs('idle')""", logs=empty)


def test_a_log_without_failures_has_their_columns_nevertheless(folder: Path) -> None:
    empty = [NamedLog("idle", valid, f"workspace-1-pipeline-idle-{valid}") for valid in (True, False)]

    assert rows(folder, "select time, error from logs('idle', valid := false)", logs=empty) == []


def test_rows_that_share_values_are_whole(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    shape, shared, batch = request_rows([1, 2])
    writer.append_request(shape, 7, shared, batch)
    found = table(tmp_path, "select * from logs('rental')")
    writer.close()

    assert found.column_names == shape.schema.names
    assert found.num_rows == 2


def test_a_damaged_part_keeps_nobody_from_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in (1, 2):
        writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, f"engine-{n}")
        writer.append(log_rows([n], [n]))
        writer.close()
    maintain(tmp_path, 0.0, 2**40)
    sorted(tmp_path.rglob("*.parquet"))[0].write_bytes(b"no parquet at all")

    assert rows(tmp_path, """select "in.number" as n from logs('rental')""") == [{"n": 2}]
    assert "left out of a query" in caplog.text


# --- what it does not


@pytest.mark.parametrize(
    "query",
    [
        "select * from read_csv('/etc/passwd')",
        "from read_text('/etc/passwd')",
        "from read_parquet('/etc/passwd')",
        "from '/etc/passwd'",
        "from glob('/*')",
        "copy (select 1) to 'stolen.csv'",
        "attach 'other.db'",
        "install httpfs",
        "load httpfs",
        "set memory_limit = '100GB'",
        "set enable_external_access = true",
        "reset enable_external_access",
        "pragma database_list",
        "call duckdb_settings()",
        "from duckdb_settings()",
        "from query_table('log:rental:inference')",
        "from query('select 1')",
        'from "log:rental:inference"',
        "from information_schema.tables",
        "from duckdb_views",
        "show all tables",
        "select getenv('HOME')",
        "select 1; select 2",
        "create table t as select 1",
        "drop view x",
        "from logs('other')",
        "from logs('rent' || 'al')",
        "from logs((select 'rental'))",
        "explain analyze from logs('rental')",
        "selec 1",
        "select nope from logs('rental')",
        "select 'text'::int",
        "",
        ";",
        "select " + "(" * 45_000 + "1" + ")" * 45_000,
        "select " + "case when " * 9_000 + "1" + " then 1 end" * 9_000,
        "select x.a" + "." * 50_000,
        "select '" + "x" * 90_000,
        "select * from logs('rental') union all select * from read_csv('/etc/passwd')",
        "select (select count(*) from read_text('/etc/passwd')) from logs('rental')",
        "with x as (from read_text('/etc/passwd')) from x",
    ],
)
def test_whatever_else_a_query_wants_is_refused_in_words(folder: Path, query: str) -> None:
    with pytest.raises(BadInput) as refused:
        table(folder, query)

    words = str(refused.value)
    assert refused.value.next_step
    assert "ended the process" not in words  # by a refusal, not by a crash
    assert str(folder) not in words
    assert "root:" not in words
    assert not list((folder / FOLDER).iterdir())


def test_values_of_rows_are_not_in_errors(folder: Path) -> None:
    with pytest.raises(BadInput, match="Conversion Error") as refused:
        table(folder, "select ('secret-' || \"in.number\")::int from logs('rental')")

    assert "secret" not in str(refused.value)


def test_a_query_that_runs_for_ever_is_ended(folder: Path) -> None:
    began = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime

    with pytest.raises(TooLarge, match=r"more than the 2 s .*BETTONG_SQL_TIMEOUT_S"):
        table(
            folder,
            "select count(*) from range(10000000) a, range(10000000) b where a.range % 7 = b.range % 11",
            limits=SqlLimits(timeout_s=2),
        )

    ended = time.process_time() + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    assert ended - began < 60  # it was killed, on any machine: without an end it would use up the test's own time limit


def test_a_result_of_too_many_rows_is_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match="more than 1,000,000 rows"):
        table(folder, "select a.range from range(1000000000000) a")


def test_a_result_of_too_many_bytes_is_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match=r"more than 256 MiB|of memory"):
        table(folder, "select repeat('x', 1000000) || range from range(100000)")


def test_a_query_that_needs_too_much_memory_is_refused(folder: Path) -> None:
    with pytest.raises(TooLarge, match="256 MiB of memory"):
        table(folder, "select list(range || repeat('x', 1000)) from range(100000000)")


def test_a_result_may_have_as_many_rows_as_the_limit(folder: Path) -> None:
    assert table(folder, "select * from range(1000)", limits=SqlLimits(rows=1000)).num_rows == 1000


def test_the_process_that_runs_a_query_is_in_the_sandbox(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []
    run = sql_module._in_child

    def listening(order: dict[str, Any], timeout_s: float) -> tuple[bytes, int]:
        answer = run(order, timeout_s)
        told.append(answer[0])
        return answer

    monkeypatch.setattr(sql_module, "_in_child", listening)
    table(folder, "select 1")

    assert b'"holds"' in told[0]
    if os.path.exists("/proc/sys/kernel/seccomp"):
        assert b"seccomp" in told[0]


def test_too_many_rows_that_are_not_compacted_are_told(folder: Path) -> None:
    with pytest.raises(Unavailable, match="not compacted yet"):
        table(folder, "select 1 from logs('rental')", limits=SqlLimits(open_bytes=10))


def test_nothing_of_a_query_is_left_and_leftovers_of_a_killed_server_go(folder: Path) -> None:
    (folder / FOLDER / "old" / "files").mkdir(parents=True)

    sql = LogSql(folder, LAUNCHER, LIMITS)
    assert not (folder / FOLDER).exists()
    sql.run("select 1", RENTAL).close()

    assert list((folder / FOLDER).iterdir()) == []
    maintain(folder, 0.0, 2**40)  # takes the folder for no topic
    assert (folder / FOLDER).is_dir()


def test_without_duckdb_the_error_names_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(BadInput, match=r"pip install 'bettong\[sql\]'"):
        table(folder, "select 1")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("select 1", []),
        ("from logs('a')", [("a", True)]),
        ("select \"logs\" from LOGS ( 'it''s' )", [("it's", True)]),
        ("from logs('a', valid := false)", [("a", True), ("a", False)]),
        ("from logs('a') join logs('b') using (x) join logs('a') c using (x)", [("a", True), ("b", True)]),
        ("select 'logs(''x'')' -- logs('y')\n /* logs('z') */ from logs('a')", [("a", True)]),
        ("from logs(/* which? */ 'a')", [("a", True)]),
        ("from mylogs('a'), logs(a)", []),
        ("from logs('unended", []),
    ],
)
def test_names_are_found_as_sql_reads_them(query: str, found: list[tuple[str, bool]]) -> None:
    assert logs_named(query) == found
