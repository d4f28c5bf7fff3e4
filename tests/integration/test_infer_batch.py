"""Batch inference over real files and databases and a real replica: every row once, whatever ends in the middle."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_models
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_kit import PLUS, TITLES, End, WorkDouble, answering, batch_request, columns, plus, work_double

from bettong.domain.drivers import Capability, ReadRequest, WriteMode, WriteRequest
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.jobs.batch.ends import Ends, NamedSink
from bettong.jobs.infer_batch import infer_batch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postgres import Postgres

TESTS = Path(__file__).parents[1]
ROWS = 3_000


@pytest.fixture(params=["SQLITE", "DUCKDB", pytest.param("POSTGRES", marks=pytest.mark.service)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], End]]:
    """Databases of a kind, by name."""
    if request.param != "POSTGRES":
        yield lambda name: End(request.param, {"path": str(tmp_path / f"{name}.db")})
        return
    server: Postgres = request.getfixturevalue("postgres")
    urls: dict[str, str] = {}

    def end(name: str) -> End:
        url = urls.setdefault(name, "") or urls.update({name: server.new_database()}) or urls[name]
        database = url.rpartition("/")[2]
        return End("POSTGRES", {"host": "127.0.0.1", "port": server.port, "user": "bettong", "database": database})

    yield end
    for url in urls.values():
        server.drop(url)


def put(work: WorkDouble, role: str, table: str, rows: pa.Table) -> None:
    with work.source(role, Capability.WRITE) as source:
        source.write(WriteRequest(table, WriteMode.REPLACE), rows.to_reader())  # type: ignore[attr-defined]


def read(work: WorkDouble, role: str, query: str) -> list[dict[str, Any]]:
    with work.source(role, Capability.READ) as source:
        found: list[dict[str, Any]] = source.read(ReadRequest(query)).read_all().to_pylist()  # type: ignore[attr-defined]
    return found


def numbers(count: int = ROWS) -> pa.Table:
    """Rows in no order: `x` is `id` plus 1."""
    ids = [(n * 7919) % count for n in range(count)]
    return pa.table({"id": ids, "x": [n + 1 for n in ids]})


def expected(count: int = ROWS) -> list[dict[str, int]]:
    return [{"id": n, "y": n + 11} for n in range(count)]


def stopping_at(rows: int) -> Callable[[WorkDouble], bool]:
    """Cancels once so many rows are written."""
    return lambda work: bool(work.told) and work.told[-1][0]["rows_written"] >= rows


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_a_real_replica_answers_every_row(tmp_path: Path, database: Callable[[str], End]) -> None:
    takes, gives = {"x": pa.int64()}, {"y": pa.int64()}
    with answering(tmp_path, onnx_models.plus(10), takes, gives) as infer:
        work = work_double(batch_request(PLUS, lineage=True), database("a"), database("b"), infer, tmp_path)
        put(work, "source", "rows", numbers())

        result = infer_batch(work)

    assert read(work, "sink", "select id, y from answers order by id") == expected()
    assert read(work, "sink", "select distinct job_id, pipeline_version, model_version from answers") == [
        dict(work.lineage)
    ]
    assert (result["rows_read"], result["rows_written"], result["rows_rejected"]) == (ROWS, ROWS, 0)
    assert result["guarantee"].startswith("exactly once")
    assert work.told[-1][0]["rows_total"] == ROWS
    assert "Guarantee: exactly once" in work.said[0]


def test_one_database_may_be_both_source_and_target(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS), database("a"), database("a"), plus(10), tmp_path)
    put(work, "source", "rows", numbers())

    infer_batch(work)

    assert read(work, "sink", "select id, y from answers order by id") == expected()
    assert list(work.folder.iterdir()) == []


def test_a_query_with_parameters_and_other_names_in_both_places(tmp_path: Path, database: Callable[[str], End]) -> None:
    mark = "$1" if database("a").kind == "POSTGRES" else "?"
    request = batch_request(
        PLUS,
        source={"query": f"select id as day, x as amount from rows where x > {mark}", "parameters": [ROWS - 5]},
        map={"x": "amount"},
        keys=["day"],
        outputs={"more": "y"},
    )
    work = work_double(request, database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", numbers())

    infer_batch(work)

    assert read(work, "sink", "select * from answers order by day") == [
        {"day": n, "more": n + 11} for n in range(ROWS - 5, ROWS)
    ]


def test_rows_at_fault_stand_alone_with_their_reasons_and_the_rest_goes_through(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    rows = pa.concat_tables(
        [numbers(), pa.table({"id": [5, 5, None, 9_000], "x": [0, 1, 1, None]}, schema=numbers().schema)]
    )
    refuses = lambda row: "no such number" if row["x"] in (101, 2_002) else None  # noqa: E731
    work = work_double(batch_request(PLUS), database("a"), database("b"), plus(10, refuses=refuses), tmp_path)
    put(work, "source", "rows", rows)

    result = infer_batch(work)

    good = [row for row in expected() if row["id"] not in (5, 100, 2_001)]
    assert [r for r in read(work, "sink", "select id, y from answers order by id") if r["id"] != 5] == good
    assert (result["rows_written"], result["rows_rejected"]) == (ROWS - 2, 6)
    rejects = work.rejects()
    assert sorted((row["key.id"] or -1, row["reason"]) for row in rejects) == [
        (-1, "Key column 'id' is null."),
        (5, "A row with the same keys came before."),
        (5, "A row with the same keys came before."),
        (100, "Column 'x': no such number."),
        (2_001, "Column 'x': no such number."),
        (9_000, "Column 'x' is null, and the pipeline takes no null in 'x'."),
    ]
    assert [row["row"] for row in rejects] == sorted(row["row"] for row in rejects)


def test_rows_that_the_target_refuses_are_rejects_too(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS, sink={"mode": "append"}), database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", numbers(500))
    with work.source("sink", Capability.UPSERT) as sink:  # a table with a primary key, and two of the rows in it
        there = pa.table({"id": [7, 300], "y": [0, 0]})
        sink.write(WriteRequest("answers", WriteMode.UPSERT, ("id",)), there.to_reader())  # type: ignore[attr-defined]

    result = infer_batch(work)

    assert (result["rows_written"], result["rows_rejected"]) == (498, 2)
    assert [row["key.id"] for row in work.rejects()] == [7, 300]
    assert all("same key" in row["reason"] or "constraint" in row["reason"] for row in work.rejects())
    assert read(work, "sink", "select count(*) as n from answers") == [{"n": 500}]


def test_the_result_says_what_became_of_the_rows_and_why(tmp_path: Path, database: Callable[[str], End]) -> None:
    refuses = lambda row: "no such number" if row["x"] in (101, 2_002) else None  # noqa: E731
    work = work_double(batch_request(PLUS), database("a"), database("b"), plus(10, refuses=refuses), tmp_path)
    put(work, "source", "rows", pa.concat_tables([numbers(), pa.table({"id": [9_000], "x": pa.nulls(1, pa.int64())})]))

    result = infer_batch(work)

    assert result["outcome"] == "2,998 of 3,001 rows were written, 3 were rejected."
    assert list(result["reasons"].items()) == [
        ("Column 'x': no such number.", 2),
        ("Column 'x' is null, and the pipeline takes no null in 'x'.", 1),
    ]
    assert work.said[-1] == "Done: 2,998 of 3,001 rows were written, 3 were rejected."


@pytest.mark.parametrize(
    ("most", "words"),
    [
        (5, r"More than 5 rows were rejected\. The first"),
        (0.01, r"More than 1% of the rows were rejected: \d\d of 3,000"),
    ],
)
def test_too_many_rejects_end_the_job_and_what_was_written_and_found_stays(
    tmp_path: Path, database: Callable[[str], End], most: float, words: str
) -> None:
    refuses = lambda row: "never" if row["x"] > 2_000 else None  # noqa: E731
    work = work_double(
        batch_request(PLUS, max_rejects=most), database("a"), database("b"), plus(10, refuses=refuses), tmp_path
    )
    put(work, "source", "rows", numbers())

    with pytest.raises(BadInput, match=words) as failed:
        infer_batch(work)

    assert re.search(r"The first, id=2\d\d\d: Column 'x': never\. job\.rejects\(\) and", str(failed.value))
    assert read(work, "sink", "select id, y from answers order by id") == expected()[: len(written(work))]
    assert 0 < len(written(work)) <= 2_000
    rejects = work.rejects()
    assert 6 if most == 5 else 31 <= len(rejects) < 500
    assert work.told[-1][0]["rows_rejected"] == len(rejects)


def test_a_job_that_could_do_no_row_fails_with_the_reason_of_the_first(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    never = plus(10, refuses=lambda row: "never")
    work = work_double(batch_request(PLUS, sink={"mode": "replace"}), database("a"), database("b"), never, tmp_path)
    put(work, "source", "rows", numbers(10).slice(0, 10).append_column("z", pa.array(["s3cret"] * 10)))
    put(work, "sink", "answers", pa.table({"id": [1], "y": [1]}))

    with pytest.raises(BadInput, match=r"All 10 rows were rejected\. The first, id=0: Column 'x': never\."):
        infer_batch(work)

    assert [row["key.id"] for row in work.rejects()] == list(range(10))
    assert read(work, "sink", "select id, y from answers") == [{"id": 1, "y": 1}]  # nothing takes its place


def test_without_keys_a_row_is_named_by_its_place_and_a_file_of_no_row_is_not_made(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    (tmp_path / "out").mkdir()
    sink = End("FILE", {"path": str(tmp_path / "out")})
    request = batch_request(PLUS, keys=[], sink={"table": "answers.parquet"})
    work = work_double(request, database("a"), sink, plus(10, refuses=lambda row: "never"), tmp_path)
    put(work, "source", "rows", numbers(1))

    with pytest.raises(BadInput, match=r"The only row was rejected: row 0 \(from 0\): Column 'x': never\."):
        infer_batch(work)

    assert list((tmp_path / "out").iterdir()) == []


def test_too_many_rows_that_the_target_refuses_end_the_job_too(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS, max_rejects=1), database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", numbers(500))
    with work.source("sink", Capability.UPSERT) as sink:
        there = pa.table({"id": [7, 300, 400], "y": [0, 0, 0]})
        sink.write(WriteRequest("answers", WriteMode.UPSERT, ("id",)), there.to_reader())  # type: ignore[attr-defined]

    with pytest.raises(BadInput, match=r"More than 1 row was rejected\. The first, id=7: "):
        infer_batch(work)

    assert [row["key.id"] for row in work.rejects()] == [7, 300]


def written(work: WorkDouble) -> list[int]:
    return [row["id"] for row in read(work, "sink", "select id from answers order by id")]


# --- before the first row -------------------------------------------------------------------------------------------


def test_columns_that_do_not_fit_are_told_before_the_first_row(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS), database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", pa.table({"id": [1], "amount": [2.5]}))

    with pytest.raises(BadInput, match="'x' takes 'x', which is not there") as refused:
        infer_batch(work)

    assert "amount (double)" in refused.value.next_step
    assert work.asked == []


def test_an_output_that_the_table_does_not_take_is_named_before_the_first_row(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    lists = columns({"x": pa.int64()}, {"week": pa.list_(pa.float32()), "mean": pa.float32()})
    work = work_double(batch_request(lists), database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", numbers(10))
    put(work, "sink", "answers", pa.table({"id": [1], "week": [1.5], "mean": [1.5]}))

    with pytest.raises(BadInput, match="does not take column 'week', which is list") as refused:
        infer_batch(work)

    assert 'outputs={"week": "…[0]"}' in refused.value.next_step
    assert work.asked == []
    assert read(work, "sink", "select count(*) as n from answers") == [{"n": 1}]


WEEK = columns({"x": pa.int64()}, {"week": pa.list_(pa.int32())})


def weeks(rows: pa.Table) -> pa.Table:
    """A list as long as the row's number says."""
    lengths: list[Any] = rows["x"].to_pylist()
    lists = [list(range(length)) for length in lengths]
    return pa.table({"out.week": pa.array(lists, pa.list_(pa.int32()))})


def test_a_row_without_the_item_that_is_picked_is_a_reject_and_no_null(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    work = work_double(batch_request(WEEK, outputs={"third": "week[2]"}), database("a"), database("b"), weeks, tmp_path)
    put(work, "source", "rows", numbers(5))

    result = infer_batch(work)

    assert read(work, "sink", "select id, third from answers order by id") == [{"id": n, "third": 2} for n in (2, 3, 4)]
    assert (result["rows_written"], result["rows_rejected"]) == (3, 2)
    reason = "Output 'third' is 'week[2]', and the list of this row has no such item."
    assert [(row["row"], row["key.id"], row["reason"]) for row in work.rejects()] == [(0, 0, reason), (1, 1, reason)]


def test_an_item_that_no_row_has_fails_the_job(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(WEEK, outputs={"a": "week[9]"}), database("a"), database("b"), weeks, tmp_path)
    put(work, "source", "rows", numbers(5))

    with pytest.raises(BadInput, match=r"All 5 rows were rejected\. The first, id=0: Output 'a' is 'week\[9\]'"):
        infer_batch(work)

    assert read(work, "sink", "select count(*) as n from answers") == [{"n": 0}]


def test_lists_and_their_items_are_written(tmp_path: Path, database: Callable[[str], End]) -> None:
    lists = columns({"x": pa.int64()}, {"week": pa.list_(pa.int32())})

    def infer(rows: pa.Table) -> pa.Table:
        values: list[Any] = rows["x"].to_pylist()
        weeks = [[x, x + 1] for x in values]
        return pa.table({"out.week": pa.array(weeks, pa.list_(pa.int32()))})

    outputs = {"week": "week", "next": "week[1]"}
    work = work_double(batch_request(lists, outputs=outputs), database("a"), database("b"), infer, tmp_path)
    put(work, "source", "rows", numbers(3))

    infer_batch(work)

    (first, *_) = read(work, "sink", "select id, week, next from answers order by id")
    assert (first["week"], first["next"]) in (([1, 2], 2), ("[1,2]", 2))


# --- going on -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_cancelled_job_stops_and_another_attempt_goes_on(
    tmp_path: Path, database: Callable[[str], End], mode: str
) -> None:
    rows = pa.concat_tables([numbers(), pa.table({"id": [None, 17], "x": [1, 1]}, schema=numbers().schema)])
    work = work_double(
        batch_request(PLUS, sink={"mode": mode}),
        database("a"),
        database("b"),
        plus(10),
        tmp_path,
        stop=stopping_at(700),
    )
    put(work, "source", "rows", rows)
    stopped = infer_batch(work)
    assert 700 <= stopped["rows_written"] < ROWS

    second = work.again()
    result = infer_batch(second)

    assert [row for row in read(work, "sink", "select id, y from answers order by id") if row["id"] != 17] == [
        row for row in expected() if row["id"] != 17
    ]
    assert (result["rows_read"], result["rows_written"], result["rows_rejected"]) == (ROWS + 2, ROWS, 2)
    assert sorted(row["reason"] for row in work.rejects()) == [
        "A row with the same keys came before.",
        "Key column 'id' is null.",
    ]
    assert sum(second.asked) < ROWS
    assert "goes on behind row" in second.said[1]


def test_rejects_beyond_the_share_are_counted_in_the_next_attempt_too(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    rows = pa.table({"id": list(range(ROWS)), "x": [None if n % 3 == 0 else n + 1 for n in range(ROWS)]})
    request = batch_request(PLUS, max_rejects=ROWS)
    work = work_double(
        request, database("a"), database("b"), plus(10), tmp_path, stop=stopping_at(700), most_bytes=5_000
    )
    put(work, "source", "rows", rows)
    infer_batch(work)

    second = work.again()
    result = infer_batch(second)

    assert read(work, "sink", "select id, y from answers order by id") == [e for e in expected() if e["id"] % 3]
    assert (result["rows_written"], result["rows_rejected"]) == (ROWS * 2 // 3, ROWS // 3)
    assert 0 < len(work.rejects()) < ROWS // 3
    assert any("counted, and kept no longer" in line for line in work.said)


def test_what_the_target_keeps_counts_more_than_what_was_told(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS), database("a"), database("b"), plus(10), tmp_path, stop=stopping_at(1_000))
    put(work, "source", "rows", numbers())
    infer_batch(work)

    infer_batch(work.again(position=None))  # nothing of it reached the server

    assert read(work, "sink", "select id, y from answers order by id") == expected()


def test_without_keys_a_new_attempt_starts_over_and_says_so(tmp_path: Path, database: Callable[[str], End]) -> None:
    ends = database("a"), database("b")
    stop = stopping_at(700)
    work = work_double(batch_request(PLUS, keys=[]), *ends, plus(10), tmp_path, stop=stop)
    put(work, "source", "rows", numbers())
    before = infer_batch(work)["rows_written"]

    second = work.again()
    infer_batch(second)

    assert read(work, "sink", "select count(*) as n from answers") == [{"n": before + ROWS}]
    assert "at least once: a new attempt starts over" in second.said[0]
    assert second.said[1] == "Attempt 2 starts over."


def test_replacing_without_keys_starts_over_and_leaves_every_row_once(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    work = work_double(
        batch_request(PLUS, keys=[], sink={"mode": "replace"}),
        database("a"),
        database("b"),
        plus(10),
        tmp_path,
        stop=stopping_at(700),
    )
    put(work, "source", "rows", numbers())
    put(work, "sink", "answers", pa.table({"y": [-1]}))
    infer_batch(work)

    infer_batch(work.again())

    assert read(work, "sink", "select y from answers order by y") == [{"y": n + 11} for n in range(ROWS)]


def test_replacing_by_nothing_empties_the_table(tmp_path: Path, database: Callable[[str], End]) -> None:
    work = work_double(batch_request(PLUS, sink={"mode": "replace"}), database("a"), database("b"), plus(1), tmp_path)
    put(work, "source", "rows", numbers(3).slice(0, 0))
    put(work, "sink", "answers", pa.table({"id": [1], "y": [1]}))

    assert infer_batch(work)["rows_written"] == 0

    assert read(work, "sink", "select count(*) as n from answers") == [{"n": 0}]


def test_files_are_read_on_from_where_they_were_left(tmp_path: Path, database: Callable[[str], End]) -> None:
    (tmp_path / "in").mkdir()
    for part in range(3):
        pq.write_table(numbers().slice(part * 1_000, 1_000), tmp_path / "in" / f"part-{part}.parquet")
    source = End("FILE", {"path": str(tmp_path / "in")})
    request = batch_request(PLUS, source={"query": ""})
    work = work_double(request, source, database("b"), plus(10), tmp_path, stop=stopping_at(1_200))
    infer_batch(work)

    second = work.again()
    infer_batch(second)

    assert read(work, "sink", "select id, y from answers order by id") == expected()
    assert sum(second.asked) < ROWS - 1_000


def test_files_are_written_all_at_once(tmp_path: Path, database: Callable[[str], End]) -> None:
    (tmp_path / "out").mkdir()
    sink = End("FILE", {"path": str(tmp_path / "out")})
    refuses = lambda row: "no" if row["x"] == 7 else None  # noqa: E731
    work = work_double(
        batch_request(PLUS, sink={"table": "answers.parquet"}),
        database("a"),
        sink,
        plus(10, refuses=refuses),
        tmp_path,
    )
    put(work, "source", "rows", numbers())

    result = infer_batch(work)

    found = pq.read_table(tmp_path / "out" / "answers.parquet").to_pylist()
    assert found == [row for row in expected() if row["id"] != 6]
    assert (result["rows_written"], result["rows_rejected"]) == (ROWS - 1, 1)
    assert result["guarantee"].startswith("at least once")


def test_a_failure_ends_every_thread_and_what_came_before_is_kept(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    def infer(rows: pa.Table) -> pa.Table:
        if 1_500 in rows["x"].to_pylist():
            raise Unavailable("The deployment is gone.", "Look at its log.")
        return plus(10)(rows)  # type: ignore[no-any-return]

    work = work_double(batch_request(PLUS), database("a"), database("b"), infer, tmp_path)
    put(work, "source", "rows", numbers())

    with pytest.raises(Unavailable, match="is gone"):
        infer_batch(work)

    kept = written(work)
    assert kept == list(range(len(kept)))
    assert 0 < len(kept) < 1_500
    infer_batch(work.again(infer_rows=plus(10)))
    assert read(work, "sink", "select id, y from answers order by id") == expected()


def test_what_goes_wrong_at_an_end_names_the_connection_and_its_side(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    work = work_double(batch_request(PLUS, sink={"mode": "upsert"}), database("a"), database("b"), plus(10), tmp_path)

    put(work, "sink", "answers", pa.table({"id": [1], "y": [1]}))  # without an index for the keys
    with pytest.raises(NotFound, match=r"^DB 'shop' \(source\): .*no "):
        infer_batch(work)
    put(work, "source", "rows", numbers(10))
    with pytest.raises(BadInput, match=r"^DB 'warehouse' \(sink\): "):
        infer_batch(work)


def test_an_end_that_breaks_in_the_middle_is_named_too() -> None:
    class Breaking:
        def write_batch(self, *_: object) -> None:
            raise Unavailable("The connection broke.", "Try again.")

    def broken() -> Iterator[pa.RecordBatch]:
        yield from numbers(3).to_batches()
        raise Unavailable("The connection broke.", "Try again.")

    ends = Ends(TITLES)
    batches = ends.read(broken())

    assert next(batches).num_rows == 3
    with pytest.raises(Unavailable, match=r"^DB 'shop' \(source\): The connection broke"):
        next(batches)
    with pytest.raises(Unavailable, match=r"^DB 'warehouse' \(sink\): The connection broke"):
        NamedSink(Breaking(), ends).write_batch(WriteRequest("t"), numbers(1).to_batches()[0], "job", "")


def test_a_job_is_stopped_between_requests_not_only_between_batches(
    tmp_path: Path, database: Callable[[str], End]
) -> None:
    never = plus(10, refuses=lambda row: "never")  # so that every batch is halved, down to single rows
    work = work_double(
        batch_request(PLUS),
        database("a"),
        database("b"),
        never,
        tmp_path,
        lanes=1,
        stop=lambda work: len(work.asked) > 2,
    )
    put(work, "source", "rows", numbers())

    result = infer_batch(work)

    assert work.asked == [4, 2, 1]
    assert (result["rows_read"], result["rows_written"], result["rows_rejected"]) == (0, 0, 0)
    assert work.rejects() == []


# --- killed ---------------------------------------------------------------------------------------------------------

# An attempt in a process of its own, told over its standard input what to do and after how many batches to be killed:
# with the rows of one more in the database, and no checkpoint of them.
ATTEMPT = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from batch_kit import End, WorkDouble, plus
from bettong.domain.drivers import Egress
from bettong.drivers.opening import Reach
from bettong.drivers.sql_sink import SqlSink
from bettong.jobs.infer_batch import infer_batch
told = json.load(sys.stdin)
left = told["batches"]
write_batch = SqlSink.write_batch
def dying(self, *arguments):
    global left
    if left == 0:
        self.keep_position = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    write_batch(self, *arguments)
SqlSink.write_batch = dying
work = WorkDouble(told["request"], {role: End(**end) for role, end in told["ends"].items()}, plus(10),
                  Path(told["folder"]), Reach(Egress(folders=(told["root"],))), attempt=told["attempt"])
infer_batch(work)
"""


def attempt(work: WorkDouble, root: Path, number: int, batches: int) -> int:
    told = {
        "request": dict(work.request),
        "ends": {role: {"kind": end.kind, "details": end.details} for role, end in work.ends.items()},
        "folder": str(work.folder),
        "root": str(root),
        "attempt": number,
        "batches": batches,
    }
    command = [sys.executable, "-c", ATTEMPT, str(TESTS)]
    return subprocess.run(command, input=json.dumps(told), text=True, check=False, env={**os.environ}).returncode


@pytest.mark.parametrize("mode", ["append", "replace", "upsert"])
def test_a_job_that_is_killed_again_and_again_writes_every_row_once(
    tmp_path: Path, database: Callable[[str], End], mode: str
) -> None:
    rows = pa.concat_tables([numbers(), pa.table({"id": [None, 9_000], "x": [1, None]}, schema=numbers().schema)])
    work = work_double(batch_request(PLUS, sink={"mode": mode}), database("a"), database("b"), plus(10), tmp_path)
    put(work, "source", "rows", rows)

    for number, batches in enumerate((0, 1, 2), 1):
        assert attempt(work, tmp_path, number, batches) == -signal.SIGKILL
    assert attempt(work, tmp_path, 4, -1) == 0

    assert read(work, "sink", "select id, y from answers order by id") == expected()
    assert len(work.rejects()) == 2
