"""What a notebook does with a connection beyond storing it: rows both ways, and the reports about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from unit.wallaroo.stub import CREATED, UUIDS, Asked, Reply, StubPlatform, error

from wallaroo._row_streams import Batches, Progress
from wallaroo._wait import Clock, Screen
from wallaroo.connection import Connection
from wallaroo.object import CommunicationError, RequestRefused

if TYPE_CHECKING:
    from wallaroo import Client

ROOT = "/v1/api/connections"
ROWS = pa.table({"day": [1, 2, 3], "price": [1.5, None, 2.5]})


def stream(rows: pa.Table, *, whole: bool = True, problem: dict[str, Any] | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    writer = pa.ipc.new_stream(sink, rows.schema)
    for batch in rows.to_batches(max_chunksize=2):
        writer.write_batch(batch)
    if problem is not None:
        last = pa.RecordBatch.from_pylist([], rows.schema)
        writer.write_batch(last, custom_metadata={b"bettong.problem": json.dumps(problem).encode()})
    if whole:
        writer.close()
    return bytes(sink.getvalue())


@pytest.fixture
def connection(client: Client) -> Connection:
    return Connection(client, {"id": UUIDS[1], "name": "warehouse", "type": "POSTGRES"})


def asked(platform: StubPlatform, call: str) -> Any:
    return platform.calls(f"{ROOT}/{call}")[-1].json


# --- rows in --------------------------------------------------------------------------------------------------------


def test_rows_come_in_the_form_that_was_asked_for(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", Reply(stream(ROWS)))

    frame = connection.read("select 1")
    table = connection.read("select 1", as_="arrow")
    polars = connection.read("select 1", "polars")
    with connection.read("select 1", as_="batches") as batches:
        assert batches.schema == ROWS.schema
        sizes = [batch.num_rows for batch in batches]

    assert isinstance(frame, pd.DataFrame)
    assert frame.equals(ROWS.to_pandas())
    assert table.equals(ROWS)
    assert polars.equals(pl.from_arrow(ROWS))
    assert sizes == [2, 1]


def test_a_query_its_parameters_and_its_purpose_go_over_as_they_are(
    connection: Connection, platform: StubPlatform
) -> None:
    platform.on(f"{ROOT}/read", Reply(stream(ROWS)))

    connection.read("select $1", parameters=[1, "a", None], limit=5, purpose="report", timeout_s=7)

    assert asked(platform, "read") == {
        "id": UUIDS[1],
        "query": "select $1",
        "parameters": [1, "a", None],
        "limit": 5,
        "purpose": "report",
        "timeout_s": 7,
    }


def test_a_preview_is_a_frame(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/preview", Reply(stream(ROWS)))

    assert connection.preview("daily", rows=3).equals(ROWS.to_pandas())
    assert asked(platform, "preview") == {"id": UUIDS[1], "table": "daily", "rows": 3}


def test_a_form_that_is_none_is_refused_before_anything_is_asked(
    connection: Connection, platform: StubPlatform
) -> None:
    with pytest.raises(ValueError, match=r"as_ is 'numpy'\. It is one of 'pandas', 'arrow', 'polars', 'batches'"):
        connection.read("select 1", as_="numpy")  # type: ignore[arg-type]
    assert platform.calls(f"{ROOT}/read") == []


@pytest.mark.parametrize("parameters", [11, "abc", {"day": 1}])
def test_parameters_are_a_list_or_a_tuple(connection: Connection, platform: StubPlatform, parameters: Any) -> None:
    with pytest.raises(TypeError, match=r"Pass a list or a tuple, such as parameters=\[11\]"):
        connection.read("select ?", parameters=parameters)
    assert platform.calls(f"{ROOT}/read") == []


def test_a_refusal_names_the_connection_and_says_why(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", error(503, "The database refuses the password."))

    with pytest.raises(RequestRefused) as refused:
        connection.read("select 1")

    assert str(refused.value) == "Failed to read connection 'warehouse': The database refuses the password."
    assert refused.value.code == 503


def test_a_problem_in_the_middle_is_told_and_no_part_is_taken_for_the_whole(
    connection: Connection, platform: StubPlatform
) -> None:
    problem = {"msg": "The source went away.", "code": 503, "error": "unavailable", "next_step": "", "request_id": "r"}
    platform.on(f"{ROOT}/read", Reply(stream(ROWS, whole=False, problem=problem)))

    with pytest.raises(RequestRefused, match="The source went away"):
        connection.read("select 1")
    batches = connection.read("select 1", as_="batches")
    assert next(batches).num_rows == 2
    assert next(batches).num_rows == 1
    with pytest.raises(RequestRefused, match="The rows broke off: The source went away"):
        next(batches)


def test_rows_that_break_off_without_a_word_are_an_error(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", Reply(stream(ROWS)[:-60]))

    with pytest.raises(CommunicationError, match="broke off in the middle"):
        connection.read("select 1")


def test_an_answer_that_is_no_arrow_is_an_error(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", Reply({"rows": []}))

    with pytest.raises(CommunicationError, match="not an Arrow stream"):
        connection.read("select 1")


def test_batches_may_be_given_up(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", Reply(stream(pa.table({"a": range(100_000)}))))

    batches: Batches = connection.read("select 1", as_="batches")
    next(batches)
    batches.close()
    batches.close()

    platform.on(f"{ROOT}/preview", Reply(stream(ROWS)))
    assert len(connection.preview("daily")) == 3


# --- rows out -------------------------------------------------------------------------------------------------------


def written(asked: Asked) -> pa.Table:
    return pa.ipc.open_stream(asked.body).read_all()


@pytest.mark.parametrize(
    "data",
    [
        ROWS,
        ROWS.to_pandas(),
        pl.from_arrow(ROWS),
        ROWS.to_pylist(),
        ROWS.to_batches()[0],
        ROWS.to_reader(),
        iter(ROWS.to_batches()),
        ROWS.to_batches(),
    ],
    ids=["table", "pandas", "polars", "dicts", "batch", "reader", "iterator", "batches"],
)
def test_rows_of_every_kind_are_written(connection: Connection, platform: StubPlatform, data: Any) -> None:
    platform.on(f"{ROOT}/write", {"rows": 3})

    assert connection.write("out", data) == 3

    sent = platform.calls(f"{ROOT}/write")[0]
    assert written(sent).to_pylist() == ROWS.to_pylist()
    assert sent.query == [("id", UUIDS[1]), ("table", "out"), ("mode", "append"), ("timeout_s", "3600.0")]
    assert sent.headers["content-type"] == "application/vnd.apache.arrow.stream"


def test_what_is_read_in_batches_can_be_written_as_it_comes(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/read", Reply(stream(ROWS)))
    platform.on(f"{ROOT}/write", {"rows": 3})

    connection.write("out", connection.read("daily", as_="batches"), "upsert", keys=["day"], purpose="forecast")

    sent = platform.calls(f"{ROOT}/write")[0]
    assert written(sent).equals(ROWS)
    assert ("mode", "upsert") in sent.query
    assert ("keys", "day") in sent.query
    assert ("purpose", "forecast") in sent.query


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        ("rows", TypeError, "Rows are of type str"),
        ({"a": [1]}, TypeError, "Rows are of type dict"),
        ([1, 2], TypeError, "Rows are of type int"),
        ([], ValueError, "list of rows is empty"),
        (iter(()), ValueError, "There is no batch of rows"),
    ],
)
def test_what_are_no_rows_is_refused_before_anything_is_sent(
    connection: Connection, platform: StubPlatform, data: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        connection.write("out", data)
    assert platform.calls(f"{ROOT}/write") == []


def test_keys_are_a_list(connection: Connection) -> None:
    with pytest.raises(TypeError, match=r"keys=\['day'\]"):
        connection.write("out", ROWS, "upsert", keys="day")


# --- reports --------------------------------------------------------------------------------------------------------

STAGES = [
    {"stage": "details", "ok": True, "took_ms": 0.21, "said": "complete", "next_step": ""},
    {
        "stage": "login",
        "ok": False,
        "took_ms": 12.0,
        "said": "The <b>database</b> refuses.",
        "next_step": "Correct it.",
    },
    {"stage": "sample", "ok": None, "took_ms": 0.0, "said": "", "next_step": ""},
]


def test_a_report_says_where_it_fails_and_what_to_do(connection: Connection, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/test", {"ok": False, "stages": STAGES})

    report = connection.test({"password": "guess"})

    assert asked(platform, "test") == {"id": UUIDS[1], "details": {"password": "guess"}}
    assert not report
    assert report.failed is not None
    assert report.failed.name == "login"
    assert repr(report).splitlines() == [
        "layer    state   ms",
        "details  ok      0.2",
        "login    failed  12.0",
        "sample   -       0.0",
        "It fails at login: The <b>database</b> refuses. Correct it.",
    ]
    assert "&lt;b&gt;database" in report._repr_html_()


def test_a_layer_that_holds_and_is_worth_a_look_says_so(connection: Connection, platform: StubPlatform) -> None:
    said = {
        "said": "complete; not known to POSTGRES and not used: tabel (did you mean table?)",
        "next_step": "Correct it.",
    }
    platform.on(f"{ROOT}/test", {"ok": True, "stages": [{"stage": "details", "ok": True, "took_ms": 0.2, **said}]})

    report = connection.test()

    assert report
    assert repr(report).splitlines()[-2:] == [f"Mind details: {said['said']}. Correct it.", "It works."]
    assert "tabel" in report._repr_html_()


def test_a_rotation_says_whether_it_switched_and_forgets_what_was_revealed(
    connection: Connection, platform: StubPlatform
) -> None:
    record = {"id": UUIDS[1], "name": "warehouse", "version": 2}
    platform.on(
        f"{ROOT}/get_by_id", {**record, "details": {"password": "old"}}, {**record, "details": {"password": "new"}}
    )
    platform.on(
        f"{ROOT}/rotate",
        {"switched": False, "report": {"ok": False, "stages": STAGES}, "connection": {**record, "version": 1}},
        {"switched": True, "report": {"ok": True, "stages": STAGES[:1]}, "connection": record},
    )
    assert connection.details() == {"password": "old"}

    failed, switched = connection.rotate({"password": "guess"}), connection.rotate({"password": "new"})

    assert (bool(failed), failed.version) == (False, 1)
    assert repr(failed).startswith("Not switched: version 1 stays in force.\n")
    assert (bool(switched), switched.version, connection.version()) == (True, 2, 2)
    assert repr(switched).endswith("It works.")
    assert connection.details() == {"password": "new"}


def test_versions_uses_and_audit_are_tables(connection: Connection, platform: StubPlatform) -> None:
    changes = {"added": ["port"], "removed": [], "changed": ["password", "tls.key"]}
    version = {"version": 2, "created_by": UUIDS[0], "created_at": CREATED, "current": True, "readable": True}
    read_as = ["'server' is read as 'host'"]
    platform.on(f"{ROOT}/versions", {"versions": [{**version, "changes": changes, "read_as": read_as}]})
    job = {"id": "j-1", "kind": "infer_batch", "state": "running", "workspace_id": 1, "created_at": CREATED}
    uses = {"workspace_names": ["a"], "hidden_workspaces": 2, "jobs": [job], "hidden_jobs": 0, "last_used_at": None}
    platform.on(f"{ROOT}/used_by", uses)
    event = {"at": CREATED, "email": "a@b", "origin": "::1", "action": "connection.read", "detail": "report"}
    platform.on(f"{ROOT}/audit", {"events": [event]})
    platform.on(f"{ROOT}/browse", {"entries": []})

    assert "password, tls.key  port" in repr(connection.versions())
    assert repr(connection.versions()).rstrip().endswith("'server' is read as 'host'")
    assert "a, 2 that you may not see" in repr(connection.used_by())
    assert "infer_batch j-1 (running)" in connection.used_by()._repr_html_()
    assert repr(connection.audit(5)).splitlines()[1].split()[-3:] == ["::1", "read", "report"]
    assert asked(platform, "audit") == {"id": UUIDS[1], "limit": 5}
    assert repr(connection.browse("sales")) == "(nothing there)"
    assert asked(platform, "browse")["path"] == "sales"


def test_changes_go_over_and_the_object_says_what_holds_now(connection: Connection, platform: StubPlatform) -> None:
    record = {"id": UUIDS[1], "name": "warehouse", "type": "POSTGRES", "use_only": True}
    platform.on(f"{ROOT}/update", {**record, "version": 2})
    platform.on(f"{ROOT}/rollback", {**record, "version": 3})
    platform.on(f"{ROOT}/set_use_only", {**record, "version": 3})
    platform.on(f"{ROOT}/purge", {"purged": 2})
    platform.on(f"{ROOT}/masked", {"details": {"password": "*****"}})
    platform.on(f"{ROOT}/delete", Reply(b"", 204))

    assert connection.update({"password": "*****"}, remove=["port"]).version() == 2
    assert connection.rollback(1).version() == 3
    assert connection.set_use_only().use_only()
    assert connection.purge() == 2
    assert connection.masked_details() == {"password": "*****"}
    connection.delete_connection(force=True)

    assert asked(platform, "update") == {
        "id": UUIDS[1],
        "details": {"password": "*****"},
        "remove": ["port"],
        "replace": False,
    }
    assert asked(platform, "set_use_only") == {"id": UUIDS[1], "use_only": True}
    assert asked(platform, "delete") == {"name": "warehouse", "force": True}


def test_a_driver_that_lacks_its_libraries_says_what_to_install(client: Client, platform: StubPlatform) -> None:
    driver = {
        "types": ["KAFKA"],
        "title": "Kafka",
        "capabilities": ["test", "consume"],
        "details_schema": {},
        "secret_fields": ["password"],
        "extra": "kafka",
        "installed": False,
        "rebinding_safe": False,
    }
    platform.on(f"{ROOT}/drivers", {"drivers": [driver]})

    (found,) = client.drivers()

    assert found.secret_fields == ["password"]
    assert 'pip install "bettong[kafka]"' in repr(client.drivers())


# --- progress -------------------------------------------------------------------------------------------------------


def test_a_long_transfer_shows_its_rows_and_a_short_one_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 0.0
    clock = Clock(now_s=lambda: now_s)
    short, long = Progress(Screen(True), "Reading", clock), Progress(Screen(True), "Reading", clock)

    short.has(1000)
    short.is_over()
    assert capsys.readouterr().out == ""
    for moment in (0.5, 1.0, 1.1, 1.3):
        now_s = moment
        long.has(1000)
    long.is_over()

    assert capsys.readouterr().out == "\rReading 2,000 rows\rReading 4,000 rows\rReading 4,000 rows, done.\n"


def test_a_screen_that_nobody_watches_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(Screen(False), "Reading", Clock(now_s=iter((0.0, 9.0, 9.0, 9.0)).__next__))
    progress.has(1)
    progress.is_over()

    assert capsys.readouterr().out == ""
