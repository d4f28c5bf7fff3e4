"""What the application counts of its answers, whichever way a request takes through it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from exposition_parser import parse
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

from bettong.errors import ModelFailed, StorageFull

if TYPE_CHECKING:
    from exposition_parser import Family

    from bettong.engine.app import InferenceApp

ONE, THREE = (orjson.dumps([{"count": FORECAST_ROW}] * rows) for rows in (1, 3))
LABELS = {"deployment": "rental-forecast-3", "pipeline": "rental-forecast", "replica": "rental-forecast-3-r0"}


def scraped(app: InferenceApp) -> dict[str, Family]:
    reply = ask(app, path="/metrics", method="GET")
    assert reply.status == 200
    assert reply.headers[b"content-type"].startswith(b"text/plain; version=0.0.4")
    return parse(reply.body.decode())


def answers(app: InferenceApp) -> dict[int, int]:
    family = scraped(app).get("bettong_requests_total")
    return {int(dict(labels)["status"]): int(n) for (_, labels), n in family.samples.items()} if family else {}


def counts(app: InferenceApp) -> dict[str, float]:
    """How often each stage and step was gone through."""
    samples = scraped(app)["latency_histogram_ns"].samples.items()
    told = [(dict(labels), n) for (name, labels), n in samples if name.endswith("_count")]
    return {labels.get("step", labels["stage"]): n for labels, n in told}


def in_a_task(app: InferenceApp, body: bytes) -> None:
    ask(app, body)


def at_once(app: InferenceApp, body: bytes) -> None:
    headers = {"host": "127.0.0.1", "content-type": "application/json", "authorization": f"Bearer {access_token()}"}
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert app.now(b"POST", b"/infer", fields, body) is not None


@pytest.mark.parametrize("send", [in_a_task, at_once])
def test_answers_are_counted_with_their_rows_stages_and_log(send: Any) -> None:
    app = inference_app([PromptRunner(forecast)])

    send(app, ONE)
    send(app, THREE)

    families = scraped(app)
    assert answers(app) == {200: 2}
    assert families["tensor_throughput_batch_count"].total() == 4
    rows = families["bettong_request_rows"]
    assert rows.value("bettong_request_rows_bucket", **LABELS, le="1") == 1
    assert rows.value("bettong_request_rows_bucket", **LABELS, le="4") == 2
    assert families["bettong_log_rows_total"].total() == 4
    assert families["bettong_log_bytes_total"].total() > 0
    assert counts(app) == {"parse": 2, "forecast-control-model": 2, "log": 2, "encode": 2}
    duration = families["bettong_request_duration_seconds"]
    assert duration.value("bettong_request_duration_seconds_count", **LABELS) == 2
    stages = families["latency_histogram_ns"]
    parts = sum(n for (name, _), n in stages.samples.items() if name == "latency_histogram_ns_sum")
    assert parts / 1e9 <= duration.value("bettong_request_duration_seconds_sum", **LABELS)


@pytest.mark.parametrize("send", [in_a_task, at_once])
def test_a_model_that_fails_counts_as_a_500_that_reached_no_later_stage(send: Any) -> None:
    async def broken(rows: object) -> Any:
        raise ModelFailed("It is too cold.")

    app = inference_app([PromptRunner(broken)])

    send(app, ONE)

    assert answers(app) == {500: 1}
    assert counts(app) == {"parse": 1, "forecast-control-model": 0, "log": 0, "encode": 0}
    assert scraped(app)["bettong_log_rows_total"].total() == 1, "its row is in the failures log"
    assert scraped(app)["tensor_throughput_batch_count"].total() == 0


@pytest.mark.parametrize("send", [in_a_task, at_once])
def test_a_full_log_counts_as_507_and_as_no_rows(send: Any) -> None:
    app = inference_app([PromptRunner(forecast)], log=MemoryLog(refusal=StorageFull("full")))

    send(app, ONE)

    assert answers(app) == {507: 1}
    assert scraped(app)["bettong_log_rows_total"].total() == 0


def test_refusals_count_by_their_status_and_questions_do_not() -> None:
    app = inference_app(spec=deployment_spec(max_body_bytes=100))

    ask(app, b"[")
    ask(app, b"x" * 101)
    ask(app, ONE, headers={"authorization": None})
    ask(app, ONE, headers={"host": "evil.example.com"})
    ask(app, ONE, path="/elsewhere")
    ask(app, method="GET")
    for path in ("/healthz", "/pipelines", "/models", "/metrics"):
        assert ask(app, path=path, method="GET").status == 200

    assert answers(app) == {400: 1, 413: 1, 401: 1, 421: 1, 404: 1, 405: 1}


def test_what_comes_to_a_replica_at_its_limit_is_rejected_and_counted_as_that() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(rows: Any) -> Any:
        entered.set()
        await leave.wait()
        return await forecast(rows)

    async def go() -> InferenceApp:
        app = inference_app([InProcessRunner(slow)], spec=deployment_spec(max_queued_requests=1))
        first = asyncio.create_task(call(app, ONE))
        await entered.wait()
        assert (await call(app, ONE)).status == 503
        leave.set()
        await first
        return app

    app = asyncio.run(go())

    assert answers(app) == {200: 1, 503: 1}
    assert scraped(app)["bettong_requests_rejected_total"].total() == 1


@pytest.mark.parametrize("token", [None, "Bearer x", f"Bearer {'a.b.c'}"])
def test_metrics_are_for_members_of_the_workspace(token: str | None) -> None:
    app = inference_app()

    assert ask(app, path="/metrics", method="GET", headers={"authorization": token}).status == 401
    stranger = f"Bearer {access_token(ws=[99])}"
    assert ask(app, path="/metrics", method="GET", headers={"authorization": stranger}).status == 404
    assert ask(app, path="/metrics", method="POST").status == 405


@pytest.mark.parametrize("send", [in_a_task, at_once])
def test_a_model_that_two_steps_name_counts_once_with_the_time_of_both(send: Any) -> None:
    async def same(rows: Any) -> Any:
        return rows

    model = model_spec("smooth")
    step = {"ModelInference": {"models": [{"name": "smooth", "version": model.version, "sha": model.sha}]}}
    spec = deployment_spec(models=(model,), steps=(step, step))
    log = MemoryLog()
    app = inference_app([PromptRunner(same, FORECAST_IN, FORECAST_IN)], spec=spec, log=log)

    send(app, ONE)

    assert counts(app) == {"parse": 1, "smooth": 1, "log": 1, "encode": 1}
    latency = scraped(app)["latency_histogram_ns"]
    ran_ns = latency.value("latency_histogram_ns_sum", **LABELS, stage="step", step="smooth")
    _, *steps_ns = log.answered[0]["metadata.elapsed"][0].as_py()
    assert len(steps_ns) == 2
    assert ran_ns == sum(steps_ns)
