"""Stream inference over every broker: killed, restarted, with dead letters, and over a broker that was away."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from contract.streams.conftest import mqtt_as_broker, rabbitmq_as_broker, redis_as_broker
from contract.streams.kit import KEEPING, until
from services.mosquitto import running_mosquitto
from services.rabbitmq import RabbitMqServer, running_rabbitmq
from services.redis import running_redis
from stream_doubles import stream_request
from stream_process import program, work_of

from bettong.domain.drivers import Message
from bettong.jobs.infer_stream import infer_stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from contract.streams.kit import Broker
    from services.mosquitto import Mosquitto
    from services.redis import RedisServer

pytestmark = pytest.mark.timeout(180)


def sent(broker: Broker, topic: str, count: int, start: int = 0) -> None:
    rows = [Message(orjson.dumps({"x": n, "id": n}), str(n % 5).encode()) for n in range(start, start + count)]
    with broker.open() as source:
        source.produce(topic, rows)


def all_of(broker: Broker, topic: str, least: int) -> list[Message]:
    """Everything that a topic has, which is so many messages at least. Whoever consumes it has no part in that."""
    got: list[Message] = []
    with broker.open() as source:

        def came() -> bool:
            if broker.kind in KEEPING:
                got[:] = [stored.message for stored in source.stored(topic, None)]
                return len(got) >= least
            # What the topic's own group has not committed: it comes again to whoever asks next.
            found = source.consume(topic, topic, max_messages=1_000, wait_s=1.0)
            got.extend(found)
            return len(got) >= least and not found

        until(came)
    return got


def document(message: Message) -> Any:
    return orjson.loads(message.value)


def ids(messages: list[Message]) -> list[int]:
    return [document(message)["id"] for message in messages]


def an_attempt(broker: Broker, folder: Path, source: str, sink: Any, **more: Any) -> dict[str, Any]:
    """What `stream_process` wants to be told."""
    request = {
        "source": {"connection_id": "c1", "topic": source, "group": "g"},
        "sink": {"connection_id": "c1", "topic": sink} if isinstance(sink, str) else sink,
        "keep": ["id"],
        "max_messages": 40,
        **more.pop("request", {}),
    }
    asked = {"kind": broker.kind, "details": dict(broker.details), "folder": str(folder)}
    return {**asked, "request": stream_request(**request), **more}


def killed_after(asked: dict[str, Any], count: int) -> None:
    """Run an attempt until it has answered so many messages."""
    with program(asked) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["predictions_out"] >= count:
                return
    raise AssertionError("it ended by itself")


def test_over_kills_none_of_1000_messages_is_lost_and_doubles_are_counted(broker: Broker, tmp_path: Path) -> None:
    source, sink = broker.topic(groups=("g",)), broker.topic()
    sent(broker, source, 1_000)
    asked = an_attempt(broker, tmp_path, source, sink)
    killed_after(asked, 200)
    killed_after(asked, 500)
    work = work_of({**asked, "enough": 1_000})
    work.answered |= {made.headers["bettong-source"] for made in all_of(broker, sink, 500)}
    totals = infer_stream(work)

    made = all_of(broker, sink, 1_000)
    assert set(ids(made)) == set(range(1_000))
    assert len({each.headers["bettong-source"] for each in made}) == 1_000
    assert all(document(each)["out"]["y"] == 2.0 * document(each)["id"] for each in made)
    assert all(each.key == str(document(each)["id"] % 5).encode() for each in made)
    assert len(made) - 1_000 <= totals["repeated"] <= 80


def test_over_kills_a_table_has_each_message_once(broker: Broker, tmp_path: Path) -> None:
    source, database = broker.topic(groups=("g",)), tmp_path / "sink.db"
    sent(broker, source, 400)
    table = {"connection_id": "c2", "table": "predictions"}
    asked = an_attempt(broker, tmp_path / "job", source, table, database=str(database))
    killed_after(asked, 100)
    killed_after(asked, 200)

    def kept() -> list[int]:
        with sqlite3.connect(database) as opened:
            found = [row[0] for row in opened.execute("select id from predictions order by id")]
        opened.close()
        return found

    with program(asked) as process:
        assert process.stdout is not None
        for _ in process.stdout:
            if len(kept()) >= 400:
                break

    assert kept() == list(range(400))


def test_what_cannot_be_answered_is_dead_lettered_unchanged(broker: Broker, tmp_path: Path) -> None:
    source, sink, dead = broker.topic(groups=("g",)), broker.topic(), broker.topic()
    sent(broker, source, 30)
    with broker.open() as opened:
        opened.produce(source, [Message(b'{"x": "seven"}', b"k", headers={"trace": "t-1"}), Message(b"{")])
    sent(broker, source, 30, start=30)
    asked = an_attempt(
        broker, tmp_path, source, sink, request={"dead_letter": {"connection_id": "c1", "topic": dead}}, enough=60
    )

    infer_stream(work_of(asked))

    letters = {each.value: each for each in all_of(broker, dead, 2)}
    assert set(letters) == {b'{"x": "seven"}', b"{"}
    first = letters[b'{"x": "seven"}']
    assert (first.key, first.headers["trace"]) == (b"k", "t-1")
    assert "Column 'x', row 0: found a text" in first.headers["bettong-error"]
    assert "neither JSON nor Arrow" in letters[b"{"].headers["bettong-error"]
    assert sorted(ids(all_of(broker, sink, 60))) == list(range(60))


def test_a_second_job_of_the_group_takes_over_where_the_first_ended(broker: Broker, tmp_path: Path) -> None:
    source, sink = broker.topic(groups=("g",)), broker.topic()
    sent(broker, source, 100)
    first = work_of(an_attempt(broker, tmp_path / "one", source, sink, enough=60))
    infer_stream(first)

    second = work_of(an_attempt(broker, tmp_path / "two", source, sink, enough=100))
    second.answered |= first.answered
    infer_stream(second)

    assert len(first.answered) == 80  # what was in flight is finished
    assert sorted(ids(all_of(broker, sink, 100))) == list(range(100))


@pytest.mark.service
@pytest.mark.parametrize("kind", ["REDIS", "RABBITMQ", "MQTT"])
def test_a_broker_that_is_restarted_under_a_job_costs_no_message(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "broker"
    folder.mkdir()
    with ThreadPoolExecutor(1) as pool, ExitStack() as ending:
        with started(kind, folder) as (server, broker):
            source, sink = broker.topic(groups=("g",)), broker.topic()
            sent(broker, source, 200)
            work = work_of(an_attempt(broker, tmp_path / "job", source, sink, enough=300))
            ending.callback(setattr, work, "enough", 1)  # whatever fails here, it does not wait for more
            running = pool.submit(infer_stream, work)
            until(lambda: len(work.answered) >= 200)
            if isinstance(server, RabbitMqServer):
                server.kill()
        until(lambda: any(line.startswith("Waiting, up to 10 min: ") for line in work.lines))
        with started(kind, folder, server.port):
            sent(broker, source, 100, start=200)
            totals = running.result(120)
            made = all_of(broker, sink, 300)

    assert set(ids(made)) == set(range(300))
    assert len(made) - 300 <= totals["repeated"]
    assert any(line.startswith("Going on after ") for line in work.lines)


@pytest.mark.service
def test_a_password_that_is_changed_at_the_broker_costs_no_message(tmp_path: Path) -> None:
    with running_redis() as server, ThreadPoolExecutor(1) as pool, ExitStack() as ending:
        broker = redis_as_broker(server)
        source, sink = broker.topic(groups=("g",)), broker.topic()
        sent(broker, source, 100)
        work = work_of(an_attempt(broker, tmp_path, source, sink, enough=200))
        ending.callback(setattr, work, "enough", 1)  # whatever fails here, it does not wait for more
        running = pool.submit(infer_stream, work)
        until(lambda: len(work.answered) >= 100)
        with server.client() as client:
            client.config_set("requirepass", "another one")
            client.client_kill_filter(_type="normal", skipme=True)
        until(lambda: any("Redis refused the login. Rotate the Connection" in line for line in work.lines))
        told = work.progress[-1]
        rotated = replace(broker, details={**broker.details, "password": "another one"})
        sent(rotated, source, 100, start=100)
        work.details = rotated.details
        totals = running.result(120)
        made = all_of(rotated, sink, 200)

    assert (told["waiting_for"]["login_refused"], told["lag"]) == (True, None)
    assert set(ids(made)) == set(range(200))
    assert len(made) - 200 <= totals["repeated"]
    assert work.renewed > 0


@contextmanager
def started(
    kind: str, folder: Path, port: int = 0
) -> Iterator[tuple[RedisServer | RabbitMqServer | Mosquitto, Broker]]:
    if kind == "REDIS":
        with running_redis(folder, port) as redis:
            yield redis, redis_as_broker(redis)
    elif kind == "MQTT":
        with running_mosquitto(folder, port) as mosquitto:
            yield mosquitto, mqtt_as_broker(mosquitto)
    else:
        with running_rabbitmq(folder, port) as rabbitmq:
            yield rabbitmq, rabbitmq_as_broker(rabbitmq)


@pytest.mark.service
def test_messages_without_an_id_may_be_answered_twice_after_a_kill_and_are_counted(
    rabbitmq_broker: Broker, rabbitmq_server: RabbitMqServer, tmp_path: Path
) -> None:
    source, sink = rabbitmq_broker.topic(), rabbitmq_broker.topic()
    with rabbitmq_server.channel() as channel:
        channel.confirm_delivery()
        for n in range(200):
            channel.basic_publish("", source, orjson.dumps({"x": n, "id": n}))
    asked = an_attempt(rabbitmq_broker, tmp_path, source, sink)
    killed_after(asked, 80)
    arrived = len(all_of(rabbitmq_broker, sink, 80))
    work = work_of({**asked, "request": {**asked["request"], "stop_when_idle_s": 1.0}})
    totals = infer_stream(work)

    made = all_of(rabbitmq_broker, sink, 200)
    assert set(ids(made)) == set(range(200))
    assert arrived >= 80
    assert len(made) - 200 <= totals["repeated"] <= 80
    assert sum("bettong-repeated" in each.headers for each in made) == totals["repeated"]
