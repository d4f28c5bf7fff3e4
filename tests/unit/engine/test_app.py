"""The application's doors: who gets in, what is refused and how, and that the log comes before the answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_builders import (
    FORECAST_IN,
    FORECAST_ROW,
    InProcessRunner,
    MemoryLog,
    PromptRunner,
    access_token,
    ask,
    call,
    deployment_spec,
    forecast,
    inference_app,
    model_spec,
)

from bettong.errors import ModelFailed, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

BODY = orjson.dumps([{"count": FORECAST_ROW}])
Rows = list[dict[str, Any]]


def error_of(reply: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(reply.body)
    assert body.keys() == {"code", "status", "error", "source"}
    assert (body["code"], body["status"]) == (reply.status, "error")
    return body


def test_health_needs_no_token() -> None:
    reply = ask(inference_app(), path="/healthz", method="GET", headers={"authorization": None})

    assert (reply.status, json.loads(reply.body)) == (200, {"status": "ok", "name": "rental-forecast-3-r0"})


def test_what_is_served_is_told_to_members() -> None:
    app = inference_app()

    assert json.loads(ask(app, path="/pipelines", method="GET").body) == {
        "pipelines": [{"id": "rental-forecast", "version": "b5c7-pipeline-version", "status": "Running"}]
    }
    assert json.loads(ask(app, path="/models", method="GET").body) == {
        "models": [
            {
                "sha": "80b5sha",
                "name": "forecast-control-model",
                "version": "6f7d0a3e-version",
                "status": "Running",
                "model_version_id": 7,
            }
        ]
    }


@pytest.mark.parametrize("path", ["/infer", "/pipelines/rental-forecast"])
def test_both_paths_infer(path: str) -> None:
    assert ask(inference_app(), BODY, path=path).status == 200


@pytest.mark.parametrize("path", ["/infer", "/pipelines", "/models", "/elsewhere"])
@pytest.mark.parametrize(
    ("authorization", "text"), [(None, b"Jwt is missing"), ("Bearer nonsense", b"Jwt verification fails")]
)
def test_nobody_unknown_learns_anything(path: str, authorization: str | None, text: bytes) -> None:
    reply = ask(inference_app(), BODY, path=path, headers={"authorization": authorization})

    assert (reply.status, reply.body) == (401, text)
    assert reply.headers[b"content-type"].startswith(b"text/plain")


def test_to_members_of_other_workspaces_the_pipeline_does_not_exist() -> None:
    log = MemoryLog()
    app = inference_app(log=log)
    foreign = {"authorization": f"Bearer {access_token(ws=[6, 7])}"}

    here = ask(app, BODY, headers=foreign)
    nowhere = ask(app, BODY, path="/pipelines/other")

    assert (here.status, nowhere.status) == (404, 404)
    assert here.body == nowhere.body
    assert not log.answered
    assert not log.failed


def test_an_administrator_is_let_in() -> None:
    headers = {"authorization": f"Bearer {access_token(ws=[], adm=True)}"}

    assert ask(inference_app(), BODY, headers=headers).status == 200


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example.com", 421), (None, 400), ("localhost:99", 200), ("models.local", 200)]
)
def test_only_known_hosts_are_answered(host: str | None, status: int) -> None:
    app = inference_app(spec=deployment_spec(hosts=("models.local",)))

    assert ask(app, BODY, headers={"host": host}).status == status


@pytest.mark.parametrize(
    ("path", "method", "allow"), [("/infer", "GET", b"POST"), ("/models", "PUT", b"GET"), ("/healthz", "POST", b"GET")]
)
def test_another_method_is_told_which_one_is_taken(path: str, method: str, allow: bytes) -> None:
    reply = ask(inference_app(), BODY, path=path, method=method)

    assert (reply.status, reply.headers[b"allow"]) == (405, allow)
    error_of(reply)


@pytest.mark.parametrize(
    ("headers", "body", "query", "status", "words"),
    [
        ({"content-type": None}, BODY, "", 415, "Content-Type is missing"),
        ({"content-type": "text/csv"}, BODY, "", 415, "format=pandas-records"),
        ({"content-encoding": "br"}, BODY, "", 415, "Send it as it is, or as one of: gzip, zstd."),
        ({"content-encoding": "gzip, zstd"}, BODY, "", 415, "Content-Encoding"),
        ({"content-encoding": "gzip"}, BODY, "", 400, "not whole gzip data"),
        ({"content-encoding": "zstd"}, BODY, "", 400, "not whole zstd data"),
        ({"content-length": "99999999999"}, BODY, "", 413, "max_body_bytes"),
        ({"content-length": "abc"}, BODY, "", 413, "max_body_bytes"),
        ({}, [b"x" * 600, b"x" * 600], "", 413, "larger than 1000 bytes"),
        ({}, b"x" * 1001, "", 413, "larger than 1000 bytes"),
        ({}, b"", "", 400, "not JSON"),
        ({}, b"[]", "", 400, "no row"),
        ({}, b'[{"count": [1, null]}]', "", 400, "row 0, item 1: tensor values may not be null"),
        ({}, b'[{"coumt": [1]}]', "", 400, "The expected columns are: count"),
        ({}, b'[{"count": [1.5]}]', "", 400, "expected an integer"),
        ({}, BODY, "dataset[]=nonsense", 400, "dataset[]"),
        ({"content-type": "application/vnd.apache.arrow.file"}, BODY, "", 400, "Arrow"),
    ],
)
def test_bad_input_is_told_what_was_found_and_expected(
    headers: dict[str, str | None], body: Any, query: str, status: int, words: str
) -> None:
    log = MemoryLog()
    app = inference_app(spec=deployment_spec(max_body_bytes=1000), log=log)

    reply = ask(app, body, headers=headers, query=query)

    error = error_of(reply)
    assert (reply.status, error["source"]) == (status, "engine")
    assert words in error["error"]
    assert (b"connection", b"close") in reply.headers.items() or status != 413
    assert app.in_flight == 0
    assert not log.answered
    assert [batch.column("error").to_pylist() for batch in log.failed] == [[error["error"]]]


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("gzip", gzip.compress), ("X-GZIP ", gzip.compress), ("zstd", zstandard.compress), ("identity", bytes)],
)
def test_packed_bodies_are_unpacked(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    log = MemoryLog()

    reply = ask(inference_app(log=log), pack(BODY), headers={"content-encoding": encoding})

    assert reply.status == 200
    assert log.answered[0].column("in.count").to_pylist() == [FORECAST_ROW]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("zstd", zstandard.compress)])
def test_a_body_that_unpacks_to_too_much_is_refused(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    log = MemoryLog()
    app = inference_app(spec=deployment_spec(max_body_bytes=2**20), log=log)

    whole = ask(app, pack(BODY + b" " * (2**20 - len(BODY))), headers={"content-encoding": encoding})
    beyond = ask(app, pack(BODY + b" " * (2**20 - len(BODY) + 1)), headers={"content-encoding": encoding})

    assert (whole.status, beyond.status) == (200, 413)
    assert "unpacks to more than 1048576 bytes (max_body_bytes)" in error_of(beyond)["error"]
    assert len(log.failed) == 1


def test_a_failed_inference_is_in_the_failures_log_with_what_could_be_read() -> None:
    async def fail(rows: Rows) -> Rows:
        raise ModelFailed("ValueError: too cold")

    log = MemoryLog()
    app = inference_app([InProcessRunner(fail)], log=log)

    failed = ask(app, BODY, headers={"x-request-id": "r-1"})
    unreadable = ask(app, b"rubbish", headers={"x-request-id": "r-2"})

    assert error_of(failed) == {
        "code": 500,
        "status": "error",
        "error": "Step 1 of pipeline 'rental-forecast', model 'forecast-control-model': ValueError: too cold",
        "source": "sidekick",
    }
    assert unreadable.status == 400
    assert not log.answered
    first, second = log.failed
    assert first.column("in.count").to_pylist() == [FORECAST_ROW]
    assert "too cold" in first.column("error")[0].as_py()
    assert first.column("metadata.request_id").to_pylist() == ["r-1"]
    assert "in.count" not in second.schema.names
    assert second.num_rows == 1
    assert "not JSON" in second.column("error")[0].as_py()


@pytest.mark.parametrize("refusal", [StorageFull("The disk is full."), OSError(28, "No space left on device")])
def test_what_the_log_cannot_take_is_not_answered(refusal: Exception) -> None:
    reply = ask(inference_app(log=MemoryLog(refusal=refusal)), BODY)

    assert reply.status == 507
    assert b"forecast" not in reply.body


def test_a_failure_that_cannot_be_logged_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "bettong.engine"):
        reply = ask(
            inference_app(log=MemoryLog(refusal=StorageFull("full"))), b"rubbish", headers={"x-request-id": "r-1"}
        )

    assert reply.status == 400, "the caller hears of its own mistake"
    assert "failed inference is not in the failures log" in caplog.text
    assert "request_id=r-1" in caplog.text


def test_the_log_has_a_request_before_its_answer_leaves() -> None:
    events: list[str] = []

    class Watched(MemoryLog):
        def append_request(self, *request: Any) -> int:
            events.append("logged")
            return 0

    app = inference_app(log=Watched())

    async def send(message: Any) -> None:
        events.append(message["type"])

    async def receive() -> Any:
        return {"type": "http.request", "body": BODY}

    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {access_token()}".encode()),
        (b"content-type", b"application/json"),
    ]
    scope = {"type": "http", "method": "POST", "path": "/infer", "query_string": b"", "headers": headers}
    asyncio.run(app(scope, receive, send))

    assert events == ["logged", "http.response.start", "http.response.body"]


def test_an_unexpected_fault_is_logged_and_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(rows: Rows) -> Rows:
        raise KeyError("inner detail")

    log = MemoryLog()
    reply = ask(inference_app([InProcessRunner(broken)], log=log), BODY, headers={"x-request-id": "r-9"})

    assert reply.status == 500
    assert "r-9" in error_of(reply)["error"]
    assert b"inner detail" not in reply.body
    assert "inner detail" in caplog.text
    assert log.failed[0].column("error").to_pylist() == ["KeyError inside the engine"]


@pytest.mark.parametrize("sent", ["a-b_c", "x" * 128])
def test_a_request_id_is_echoed(sent: str) -> None:
    assert ask(inference_app(), BODY, headers={"x-request-id": sent}).headers[b"x-request-id"] == sent.encode()


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "with space", "tab\t", "ünïcode"])
def test_an_unfit_request_id_is_replaced_by_a_new_one(sent: str | None) -> None:
    replies = [ask(inference_app(), BODY, headers={"x-request-id": sent}) for _ in range(2)]

    ids = {reply.headers[b"x-request-id"] for reply in replies}
    assert len(ids) == 2
    assert all(len(made) == 36 for made in ids)


def test_too_slow_a_model_is_given_up_and_cancelled() -> None:
    cancelled = []

    async def hang(rows: Rows) -> Rows:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        return rows

    log = MemoryLog()
    reply = ask(inference_app([InProcessRunner(hang)], spec=deployment_spec(request_timeout_s=0.01), log=log), BODY)

    assert reply.status == 504
    assert "within 0.01 s (request_timeout_s)" in error_of(reply)["error"]
    assert cancelled == [True]
    assert log.failed[0].column("in.count").to_pylist() == [FORECAST_ROW]


def test_a_full_replica_says_so_and_takes_requests_again_afterwards() -> None:
    async def scenario() -> None:
        go = asyncio.Event()
        entered = asyncio.Event()

        async def wait(rows: Rows) -> Rows:
            entered.set()
            await go.wait()
            return await forecast(rows)

        app = inference_app([InProcessRunner(wait)], spec=deployment_spec(max_queued_requests=1))
        first = asyncio.create_task(call(app, BODY))
        await entered.wait()
        assert app.in_flight == 1

        second = await call(app, BODY)
        assert second.status == 503
        assert second.headers[b"retry-after"] == b"1"
        assert "1 requests in hand, its limit (max_queued_requests)" in error_of(second)["error"]

        go.set()
        assert (await first).status == 200
        assert (await call(app, BODY)).status == 200

    asyncio.run(scenario())


def test_an_absent_worker_is_worth_another_try() -> None:
    async def away(rows: Rows) -> Rows:
        raise Unavailable("Its worker is being started.", "Try again in a second.")

    reply = ask(inference_app([InProcessRunner(away)]), BODY)

    assert (reply.status, reply.headers[b"retry-after"]) == (503, b"1")


def test_a_draining_replica_closes_connections_and_waits_for_what_is_in_flight() -> None:
    async def scenario() -> None:
        go, entered = asyncio.Event(), asyncio.Event()

        async def wait(rows: Rows) -> Rows:
            entered.set()
            await go.wait()
            return await forecast(rows)

        app = inference_app([InProcessRunner(wait)])
        await app.drained()  # nothing is in flight yet
        request = asyncio.create_task(call(app, BODY))
        await entered.wait()
        app.draining = True
        drained = asyncio.create_task(app.drained())
        await asyncio.sleep(0)
        assert not drained.done()

        go.set()
        reply = await request
        await drained
        assert (reply.status, reply.headers[b"connection"]) == (200, b"close")
        health = await call(app, path="/healthz", method="GET")
        assert health.headers[b"connection"] == b"close"

    asyncio.run(scenario())


def test_a_client_that_leaves_in_the_middle_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        log = MemoryLog()
        app = inference_app(log=log)
        events = [{"type": "http.request", "body": b"[{", "more_body": True}, {"type": "http.disconnect"}]
        sent: list[Any] = []

        async def receive() -> Any:
            return events.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [
            (b"host", b"localhost"),
            (b"authorization", f"Bearer {access_token()}".encode()),
            (b"content-type", b"application/json"),
        ]
        scope = {"type": "http", "method": "POST", "path": "/infer", "query_string": b"", "headers": headers}
        await app(scope, receive, send)
        assert sent == []
        assert (log.answered, log.failed, app.in_flight) == ([], [], 0)

    asyncio.run(scenario())
    assert caplog.text == ""


def test_large_bodies_give_the_same_answers_as_small_ones() -> None:
    rows = [{"count": list(range(i % 7, 60 + i % 7))} for i in range(8000)]
    body = orjson.dumps(rows)
    assert len(body) > 2**20

    answers = json.loads(ask(inference_app(), body, query="dataset[]=in").body)

    assert answers == [{"in": row} for row in rows]


@settings(max_examples=200, deadline=None)
@given(
    body=st.binary(max_size=60) | st.from_regex(rb'\A\[\{"count": ?\[[0-9,.eE+-]{0,20}\]?\}?\]?\Z'),
    content_type=st.sampled_from(
        ["application/json", "application/json; format=wallaroo", "application/vnd.apache.arrow.file", "text/plain"]
    ),
    query=st.sampled_from(["", "dataset[]=*", "dataset[]=x", "dataset.separator=.", "%%%", "dataset[]=%ff"]),
)
def test_no_request_of_a_caller_is_a_fault_of_ours(body: bytes, content_type: str, query: str) -> None:
    reply = ask(inference_app(), body, headers={"content-type": content_type}, query=query)

    assert reply.status == 200 or 400 <= reply.status < 500


# --- at once ----------------------------------------------------------------------------------------------------------


async def picky(rows: Rows) -> Rows:
    """A model of many moods, by the first number of a request."""
    match rows[0]["count"][:1]:
        case [1]:
            raise ModelFailed("It is too cold.", "Warm it up.")
        case [2]:
            raise Unavailable("It is away.")
        case [3]:
            raise KeyError("inner detail")
        case [4]:
            return rows[1:]
        case [5]:
            await asyncio.sleep(0)
    return [{"count": row["count"]} for row in rows]


def plain_headers() -> dict[str, str | None]:
    """With a token of this moment: one made at import has expired when a slow suite comes to its test."""
    return {
        "host": "127.0.0.1:8080",
        "content-type": "application/json",
        "x-request-id": "r-1",
        "authorization": f"Bearer {access_token(life_s=60)}",
    }


def as_fields(headers: dict[str, str | None]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items() if value is not None]


ODD_HEADERS: list[dict[str, str | None]] = [
    {}, {"host": None}, {"host": "evil.example.com"}, {"authorization": None}, {"authorization": "Bearer x"},
    {"content-type": "text/plain"}, {"content-type": "application/vnd.apache.arrow.file"}, {"accept": "*/*"},
    {"accept": "application/vnd.apache.arrow.stream"}, {"accept": "application/json; format=wallaroo"},
    {"content-encoding": "gzip"}, {"content-encoding": "identity"},
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    body=st.lists(st.integers(0, 6), max_size=3).map(lambda n: orjson.dumps([{"count": n}, {"count": [9]}]))
    | st.sampled_from([b"", b"[", b"[]", b'[{"count":[null]}]', b'[{"count":[1.5]}]', b" " * 1000]),
    changes=st.sampled_from(ODD_HEADERS),
    query=st.sampled_from(["", "dataset[]=out", "dataset[]=nonsense", "dataset.separator=_", "dataset[]=out#x"]),
    path=st.sampled_from(["/infer", "/pipelines/rental-forecast", "/healthz", "/pipelines", "/elsewhere", "/%69nfer"]),
    method=st.sampled_from(["POST", "POST", "POST", "GET", "HEAD"]),
    refusal=st.sampled_from([None, None, None, StorageFull("full"), OSError(28, "full")]),
)
def test_what_is_answered_at_once_is_what_a_task_would_answer(
    body: bytes, changes: dict[str, str | None], query: str, path: str, method: str, refusal: Exception | None
) -> None:
    headers = plain_headers() | changes
    spec = deployment_spec(max_body_bytes=900)
    task_log, now_log = MemoryLog(refusal=refusal), MemoryLog(refusal=refusal)
    in_a_task, at_once = (
        inference_app([kind(picky, FORECAST_IN, FORECAST_IN)], spec=spec, log=log)
        for kind, log in ((InProcessRunner, task_log), (PromptRunner, now_log))
    )

    target = f"{path}?{query}" if query else path
    now = at_once.now(method.encode(), target.encode(), as_fields(headers), body)

    if now is None:
        assert (now_log.answered, now_log.failed) == ([], [])
        return
    plain = ask(in_a_task, body, path=path, method=method, query=query, headers=headers)
    assert (now.status, dict(now.headers)) == (plain.status, plain.headers | {b"content-length": b"%d" % len(now.body)})
    assert without_elapsed(bytes(now.body)) == without_elapsed(plain.body)
    for ours, theirs in ((now_log.answered, task_log.answered), (now_log.failed, task_log.failed)):
        assert [told(rows) for rows in ours] == [told(rows) for rows in theirs]


def without_elapsed(body: bytes) -> Any:
    try:
        document = json.loads(body)
    except ValueError:
        table = pa.ipc.open_stream(body).read_all()
        return table.select([name for name in table.column_names if not name.endswith("elapsed")])
    for row in document if isinstance(document, list) else []:
        row.pop("elapsed", None)
        row.get("metadata", {}).pop("elapsed", None)
        row.pop("metadata_elapsed", None)
    return document


def told(rows: Any) -> Any:
    return rows.drop_columns(["metadata.elapsed"]).to_pylist()


def test_a_plain_inference_is_answered_at_once() -> None:
    headers = as_fields(plain_headers())
    app = inference_app([PromptRunner(forecast)])

    reply = app.now(b"POST", b"/infer?dataset[]=out", headers, BODY)

    assert reply is not None
    assert (reply.status, json.loads(bytes(reply.body))) == (
        200,
        [{"out": {"forecast": [1764, 1749, 1743, 1741, 1740, 1740, 1740], "weekly_average": 1745.2858}}],
    )
    assert inference_app().now(b"POST", b"/infer", headers, BODY) is None, "this runner has to be awaited"
    assert app.now(b"POST", b"/infer", headers, orjson.dumps([{"count": [1] * 2_200_000}])) is None, "it is too large"


def test_a_later_step_that_takes_long_is_not_tried_at_once_again() -> None:
    calls = []

    async def quick(rows: Rows) -> Rows:
        calls.append("quick")
        return rows

    async def slow(rows: Rows) -> Rows:
        await asyncio.sleep(0)
        return rows

    spec = deployment_spec(models=(model_spec("a"), model_spec("b")))
    runners = [PromptRunner(function, FORECAST_IN, FORECAST_IN) for function in (quick, slow)]
    app = inference_app(runners, spec=spec)
    headers = as_fields(plain_headers())

    assert [app.now(b"POST", b"/infer", headers, BODY) for _ in range(5)] == [None] * 5
    assert calls == ["quick"]
    assert ask(app, BODY).status == 200
