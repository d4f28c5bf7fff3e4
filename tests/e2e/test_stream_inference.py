"""A topic answered by the platform, from a notebook: over a real broker, into a topic and into a table."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import time
import zipfile
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import psutil
import pyarrow as pa
import pytest
from pages import ROOT
from platforms import bettong
from services.rabbitmq import running_rabbitmq
from services.redis import RedisServer, running_redis

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import JobError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wallaroo.connection import Connection
    from wallaroo.job import Job
    from wallaroo.pipeline import Pipeline

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]

T = TypeVar("T")
PAGE = ROOT / "docs" / "howto" / "streams.md"
BLOCK = re.compile(r"^```python broker\n(.*?)^```", re.MULTILINE | re.DOTALL)
PATIENCE_S = 120.0
STEP = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    if (input_data["x"] == 13).any():
        raise ValueError("thirteen is not for me")
    return {"y": input_data["x"] * 2}
"""


def eventually(look: Callable[[], T | None], what: str) -> T:
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def wl(reach: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(reach))
    return wallaroo.Client()


@pytest.fixture
def pipeline(wl: wallaroo.Client, folder: Path) -> Pipeline:
    """A version that doubles `x`, and fails on 13; deployed nowhere."""
    with zipfile.ZipFile(folder / "doubles.zip", "w") as archive:
        archive.writestr("doubles.py", STEP)
    model = wl.upload_model(
        "doubles",
        folder / "doubles.zip",
        Framework.PYTHON,
        input_schema=pa.schema([pa.field("x", pa.float64())]),
        output_schema=pa.schema([pa.field("y", pa.float64())]),
    )
    built = wl.build_pipeline(f"doubles-{uuid4().hex[:8]}").add_model_step(model)
    built.create_version()
    return built


@pytest.fixture
def broker(wl: wallaroo.Client, redis: RedisServer) -> Connection:
    details = {**redis.details, "redeliver_after_s": 3}
    return wl.create_connection(f"broker-{uuid4().hex[:8]}", "REDIS", details)


def topics(redis: RedisServer, *names: str) -> list[str]:
    made = [f"{name}-{uuid4().hex[:8]}" for name in names]
    for name in made:
        redis.make(name)
    return made


def send(broker: Connection, topic: str, values: list[float]) -> None:
    broker.write(topic, pa.table({"x": values, "id": [int(value) for value in values]}))


def made_in(broker: Connection, topic: str) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Each message's value and headers."""
    rows = broker.read(topic, as_="arrow").to_pylist()
    return [(json.loads(row["value"]), json.loads(row["headers"])) for row in rows]


def counts(job: Job, name: str, least: int) -> bool:
    assert job.state() in ("pending", "running"), (job, job.logs())
    return int(job.progress().get(name) or 0) >= least


def child_of(home: Path) -> psutil.Process:
    """The process of the one job that runs."""
    server = psutil.Process(json.loads((home / "server.json").read_text())["pid"])
    (found,) = [p for p in server.children(recursive=True) if "bettong.jobs._child" in " ".join(p.cmdline())]
    return found


def test_a_topic_is_answered_over_a_kill_and_until_it_is_cancelled(
    wl: wallaroo.Client, pipeline: Pipeline, broker: Connection, redis: RedisServer, reach: Path
) -> None:
    orders, predictions, failed = topics(redis, "orders", "predictions", "failed")
    send(broker, orders, [float(n) for n in range(300)])
    broker.write(orders, pa.table({"y": ["no column of the model's"]}))
    job = pipeline.infer_stream(broker, orders, broker, predictions, dead_letter=failed, keep=["id"], max_messages=100)
    assert job.guarantee().startswith("at least once")
    assert job.request()["source"]["group"].endswith(pipeline.name())
    eventually(lambda: counts(job, "messages_in", 301), "the first messages are answered")

    os.kill(child_of(reach).pid, signal.SIGKILL)
    send(broker, orders, [float(n) for n in range(300, 1_000)])
    eventually(lambda: counts(job, "messages_in", 1_001), "the rest is answered after the kill")
    job.cancel().wait()

    made = made_in(broker, predictions)
    dead = made_in(broker, failed)
    assert job.state() == "cancelled"
    assert job.attempts() == 2
    assert {value["id"] for value, _ in made} == set(range(1_000)) - {13}
    assert all(value["out"] == {"y": value["id"] * 2.0} for value, _ in made)
    assert len({headers["bettong-source"] for _, headers in made}) == 999
    assert {headers["bettong-job"] for _, headers in made} == {job.id()}
    assert {headers["bettong-pipeline-version"] for _, headers in made} == {pipeline.versions()[0].name()}
    assert [value for value, _ in dead if "x" not in value or value["x"] != 13] == [{"y": "no column of the model's"}]
    reasons = {headers["bettong-error"] for _, headers in dead}
    assert any("lacks the column 'x'" in reason for reason in reasons)
    assert any("The model failed on this message" in reason for reason in reasons)
    assert "thirteen" not in repr(dead)
    result = job.result()
    assert result is not None
    assert len(made) - 999 <= result["repeated"]
    assert result["dead_lettered"] == len(dead) == 2
    shown = repr(job) + "\n".join(job.logs()) + json.dumps(job.request())
    assert str(redis.details["password"]) not in shown


def test_a_table_of_a_database_takes_the_answers_and_the_job_what_has_none(
    wl: wallaroo.Client, pipeline: Pipeline, broker: Connection, redis: RedisServer, folder: Path
) -> None:
    (orders,) = topics(redis, "orders")
    database = folder / f"{uuid4().hex}.db"
    with sqlite3.connect(database) as opened:
        opened.execute("create table answers (id integer, y real, time text, bettong_source text)")
    opened.close()
    warehouse = wl.create_connection(f"warehouse-{uuid4().hex[:8]}", "SQLITE", {"path": str(database)})
    send(broker, orders, [1.0, 2.0, 13.0, 4.0])

    job = pipeline.infer_stream(broker, orders, warehouse, "answers", keep=["id"], stop_when_idle_s=0.5).wait(120)

    assert job.guarantee().startswith("exactly once")
    with sqlite3.connect(database) as opened:
        rows = opened.execute("select id, y from answers order by id").fetchall()
    opened.close()
    assert rows == [(1, 2.0), (2, 4.0), (4, 8.0)]
    rejects = job.rejects()
    assert rejects["value"].tolist() == [b'{"x":13.0,"id":13}']
    assert rejects["error"].str.startswith("The model failed on this message").all()
    assert job.state() == "succeeded"


def test_the_page_about_streams_leads_to_predictions(
    wl: wallaroo.Client, redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = BLOCK.findall(PAGE.read_text())
    assert len(examples) == 2
    (tmp_path / "redis.json").write_text(json.dumps(redis.details))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "docs"}
    for text in examples:
        exec(compile(text, str(PAGE), "exec"), names)
    assert not (tmp_path / "redis.json").exists()


def test_what_cannot_work_is_told_at_once_or_as_the_jobs_error(
    wl: wallaroo.Client, pipeline: Pipeline, broker: Connection, redis: RedisServer, folder: Path
) -> None:
    (orders,) = topics(redis, "orders")
    files = wl.create_connection(f"files-{uuid4().hex[:8]}", "FILE", {"path": str(folder)})

    with pytest.raises(WallarooAPIError, match="source is a connection of type FILE, which cannot consume"):
        pipeline.infer_stream(files, "x", broker, "y")
    with pytest.raises(WallarooAPIError, match="sink is a connection of type FILE, which takes no messages"):
        pipeline.infer_stream(broker, orders, files, "y")
    with pytest.raises(WallarooAPIError, match="sink is the source's own topic"):
        pipeline.infer_stream(broker, orders, broker, orders)
    with pytest.raises(WallarooAPIError, match="sink is a topic, which has no mode"):
        pipeline.infer_stream(broker, orders, broker, "y", mode="upsert")
    with pytest.raises(JobError, match=rf"REDIS '{broker.name()}' \(source\): Redis has no stream 'not-there'"):
        pipeline.infer_stream(broker, "not-there", broker, "y").wait(120)


def test_a_stream_survives_that_the_password_of_its_broker_is_changed_before_its_connection(
    wl: wallaroo.Client, pipeline: Pipeline, reach: Path
) -> None:
    with running_redis() as server:
        details = {**server.details, "redeliver_after_s": 3}
        broker = wl.create_connection(f"rotated-{uuid4().hex[:8]}", "REDIS", details)
        server.make("orders")
        send(broker, "orders", [1.0, 2.0])
        broker.write("orders", pa.table({"z": ["no column of the model's"]}))
        job = pipeline.infer_stream(broker, "orders", broker, "predictions", dead_letter="failed", keep=["id", "idd"])
        eventually(lambda: counts(job, "messages_in", 3), "the first messages are answered")

        with server.client() as client:
            client.config_set("requirepass", "another one")
            client.client_kill_filter(_type="normal", skipme=True)
        eventually(lambda: "which refuses the login" in repr(job), "the stream says what it waits for")
        shown, told = repr(job), bettong("jobs", "show", job.id(), home=reach).stdout
        listed = bettong("jobs", "list", home=reach).stdout
        broker.rotate({**details, "password": "another one"})
        send(broker, "orders", [3.0])
        eventually(lambda: counts(job, "messages_in", 4), "the stream goes on by itself")
        job.cancel().wait()
        made = made_in(broker, "predictions")

    waits = rf"waiting for REDIS '{broker.name()}' \((source|sink)\), which refuses the login, since [\d:]{{8}} UTC"
    assert re.search(waits, shown)
    assert re.search(waits.replace("waiting for", "waiting +for"), told)
    assert re.search(rf"2 answered, 1 dead-lettered to 'failed', 0 rejected, {waits}", listed)
    assert re.search(r"messages +2 answered, 1 dead-lettered to 'failed', 0 rejected\n", told)
    assert re.search(r"last fault +Row 0 of the message lacks the column 'x'", told)
    assert "go to topic 'failed', 1 so far" in bettong("jobs", "rejects", job.id(), home=reach).stdout
    assert " waiting" not in shown.replace(" waiting for", "")
    assert (job.state(), job.attempts()) == ("cancelled", 1)
    assert [value["id"] for value, _ in made] == [1, 2, 3]
    said = "\n".join(job.logs())
    assert "Rotate the Connection" in said
    assert "keep names 'idd', which no message so far has" in said
    assert "another one" not in said


def test_a_server_that_is_killed_goes_on_with_its_streams_when_it_is_back(
    wl: wallaroo.Client, pipeline: Pipeline, broker: Connection, redis: RedisServer, reach: Path
) -> None:
    (orders,) = topics(redis, "orders")
    predictions = f"predictions-{uuid4().hex[:8]}"
    send(broker, orders, [float(n) for n in range(100, 200)])
    job = pipeline.infer_stream(broker, orders, broker, predictions, keep=["id"])
    eventually(lambda: counts(job, "messages_in", 100), "the first messages are answered")

    os.kill(json.loads((reach / "server.json").read_text())["pid"], signal.SIGKILL)
    again = wallaroo.Client()
    send(again.get_connection(broker.name()), orders, [float(n) for n in range(200, 300)])
    job = again.get_job(job.id())
    eventually(lambda: counts(job, "messages_in", 200), "the rest is answered by the next server")
    job.cancel().wait()

    made = made_in(again.get_connection(broker.name()), predictions)
    result = job.result()
    assert result is not None
    assert {value["id"] for value, _ in made} == set(range(100, 300))
    assert len(made) - 200 <= result["repeated"]
    assert any("is not there yet" in line for line in job.logs())


def test_a_queue_of_rabbitmq_is_answered_into_another_over_a_kill(
    wl: wallaroo.Client, pipeline: Pipeline, reach: Path
) -> None:
    with running_rabbitmq() as server:
        for queue in ("orders", "predictions", "failed"):
            server.make(queue, **{"x-queue-type": "quorum"})
        queues = wl.create_connection(f"queues-{uuid4().hex[:8]}", "RABBITMQ", {**server.details, "topic": "orders"})
        send(queues, "orders", [float(n) for n in range(300)])
        queues.write("orders", pa.table({"y": ["no column of the model's"]}))
        assert queues.test().ok
        assert "301 messages" in repr(queues.browse())
        assert json.loads(queues.preview("orders", rows=1)["value"][0]) == {"x": 0.0, "id": 0}

        job = pipeline.infer_stream(
            queues, "orders", queues, "predictions", dead_letter="failed", keep=["id"], max_messages=100
        )
        eventually(lambda: counts(job, "messages_in", 301), "the first messages are answered")
        os.kill(child_of(reach).pid, signal.SIGKILL)
        send(queues, "orders", [float(n) for n in range(300, 1_000)])
        eventually(lambda: counts(job, "messages_in", 1_001), "the rest is answered after the kill")
        job.cancel().wait()
        made, dead = made_in(queues, "predictions"), made_in(queues, "failed")
        left = queues.preview("orders", rows=10)

    assert job.state() == "cancelled"
    assert {value["id"] for value, _ in made} == set(range(1_000)) - {13}
    assert len({headers["bettong-source"] for _, headers in made}) == 999
    assert sorted("x" in value for value, _ in dead) == [False, True]
    assert all(headers["bettong-error"] for _, headers in dead)
    assert len(left) == 0
    result = job.result()
    assert result is not None
    assert len(made) - 999 <= result["repeated"]
    assert str(server.details["password"]) not in repr(job) + "\n".join(job.logs()) + json.dumps(job.request())
