"""Brokers that die, come back, keep silent, want TLS; members that are slow and alive."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from certificates import NAME, Authority
from contract.drivers.cases import new_calls
from contract.streams.conftest import (
    kafka_as_broker,
    mqtt_as_broker,
    nats_as_broker,
    rabbitmq_as_broker,
    redis_as_broker,
)
from contract.streams.kit import Broker, at_least, numbered, numbers, opened, take, until
from services.kafka import running_kafka
from services.mosquitto import running_mosquitto
from services.nats import running_nats
from services.rabbitmq import running_rabbitmq
from services.redis import running_redis
from services.running import free_port
from services.tls_front import tls_in_front

from bettong.domain.drivers import Egress, Message, Stage
from bettong.drivers.opening import Reach
from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]


@contextmanager
def private(kind: str, folder: Path | None = None, port: int = 0) -> Iterator[Broker]:
    """A broker of the test's own, which it may stop."""
    with ExitStack() as stack:
        if kind == "REDIS":
            yield redis_as_broker(stack.enter_context(running_redis(folder, port)))
        elif kind == "NATS":
            yield nats_as_broker(stack.enter_context(running_nats(folder, port)))
        elif kind == "RABBITMQ":
            yield rabbitmq_as_broker(stack.enter_context(running_rabbitmq(folder, port)))
        elif kind == "MQTT":
            yield mqtt_as_broker(stack.enter_context(running_mosquitto(folder, port)))
        else:
            yield kafka_as_broker(stack.enter_context(running_kafka()))


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "KAFKA", "RABBITMQ", "MQTT"])
def test_a_broker_that_dies_is_told_by_every_call_and_leaving_it_fails_nobody(kind: str) -> None:
    with ExitStack() as running:
        broker = running.enter_context(private(kind))
        topic = broker.topic()
        with broker.open() as source:
            source.produce(topic, numbered(10))
            got = take(source, topic, topic, at_least(5), commit=False, size=5)
            running.close()

            calls: list[Callable[[], object]] = [
                lambda: source.consume(topic, topic, max_messages=5, wait_s=1.0),
                lambda: source.commit(got),
                lambda: source.produce(topic, numbered(1)),
                lambda: source.browse(""),
            ]
            for call in calls:
                until(lambda call=call: told(call))  # type: ignore[misc]


def told(call: Callable[[], object]) -> bool:
    """Whether it raises Unavailable. What was on its way already may come first."""
    try:
        call()
    except Unavailable as away:
        return bool(away.next_step)
    return False


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "RABBITMQ", "MQTT"])
def test_when_a_broker_is_back_what_was_not_committed_comes_again(kind: str, tmp_path: Path) -> None:
    port = free_port()
    with private(kind, tmp_path, port) as broker:
        topic = broker.topic()
        with broker.open() as source:
            source.produce(topic, numbered(10))
            got = take(source, topic, topic, at_least(10), commit=False)
            source.commit(got[:4])

    with private(kind, tmp_path, port) as broker, broker.open() as source:
        again = take(source, topic, topic, at_least(6))

    assert sorted(numbers(again)) == [4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "KAFKA", "RABBITMQ", "MQTT"])
def test_a_server_that_says_nothing_is_given_up(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        details: dict[str, Any] = {"host": "127.0.0.1", "port": port, "user": "somebody"}
        if kind == "KAFKA":
            details = {"servers": f"127.0.0.1:{port}"}

        report = new_calls().test(kind, details, 3.0)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert report.stages[-1].next_step


def test_a_redis_that_is_stopped_did_not_answer_and_has_broken_nothing() -> None:
    with running_redis() as server:
        with server.client() as client:
            process = int(client.info("server")["process_id"])
        os.kill(process, signal.SIGSTOP)
        try:
            report = new_calls().test("REDIS", server.details, 20.0)
        finally:
            os.kill(process, signal.SIGCONT)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert report.stages[-1].said == "Redis did not answer in time."
    assert "not stopped or busy" in report.stages[-1].next_step


def test_a_redis_without_tls_or_without_that_database_is_told_so() -> None:
    with running_redis() as server:
        plain = new_calls().test("REDIS", {**server.details, "ssl": "require"}, 20.0).stages[-1]
        far = new_calls().test("REDIS", {**server.details, "database": 99}, 20.0).stages[-1]
        other = new_calls().test("POSTGRES", {**server.details, "user": "somebody"}, 20.0).stages[-1]

    assert (plain.stage, plain.said) == (Stage.TLS, "'127.0.0.1' did not answer the TLS handshake.")
    assert "ssl=disable" in plain.next_step
    assert (far.stage, far.said) == (Stage.LOGIN, "This Redis has no database of that number.")
    assert (other.stage, other.ok) == (Stage.TLS, False)
    assert "does not look like PostgreSQL" in other.said


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "RABBITMQ"])
def test_a_member_that_works_for_long_keeps_what_it_has(kind: str) -> None:
    with private(kind) as broker:
        topic = broker.topic()
        with broker.open() as slow, broker.open() as eager:
            slow.produce(topic, numbered(3))
            got = take(slow, topic, topic, at_least(3), commit=False)

            assert list(eager.consume(topic, topic, max_messages=10, wait_s=8.0)) == []  # more than twice the time
            slow.commit(got)
            eager.produce(topic, numbered(1, start=3))
            rest: list[Message] = []

            def came() -> bool:  # to whoever the broker gives it
                for source in (eager, slow):
                    rest.extend(source.consume(topic, topic, max_messages=10, wait_s=0.5))
                return bool(rest)

            until(came)
            assert numbers(rest) == [3]


# --- TLS ------------------------------------------------------------------------------------------------------------


@contextmanager
def encrypted(kind: str, authority: Authority, folder: Path) -> Iterator[dict[str, Any]]:
    """The details of a broker that speaks TLS alone."""
    cert, key = map(str, authority.sign().write(folder))
    if kind == "REDIS":
        port = free_port()
        tls = ("--tls-port", str(port), "--tls-cert-file", cert, "--tls-key-file", key, "--tls-auth-clients", "no")
        with running_redis(None, 0, *tls) as redis:
            yield {**redis.details, "host": NAME, "port": port}
    elif kind == "NATS":
        with running_nats(tls={"cert_file": cert, "key_file": key}) as nats:
            yield {**nats.details, "host": NAME}
    elif kind == "RABBITMQ":
        port, more = free_port(), {"ssl_options.certfile": cert, "ssl_options.keyfile": key}
        with running_rabbitmq(tls_port=port, more=more) as rabbitmq:
            yield {**rabbitmq.details, "host": NAME, "port": port}
    elif kind == "MQTT":
        with running_mosquitto(None, 0, f"certfile {cert}", f"keyfile {key}") as mqtt:
            yield {**mqtt.details, "host": NAME}
    else:
        port = free_port()
        with (
            running_kafka(advertised=NAME, front=port) as kafka,
            tls_in_front(port, kafka.port, authority.sign().context(folder)),
        ):
            yield {"servers": f"{NAME}:{port}"}


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "KAFKA", "RABBITMQ", "MQTT"])
def test_tls_is_checked_and_the_layer_that_fails_is_named(kind: str, tmp_path: Path) -> None:
    authority = Authority()
    with encrypted(kind, authority, tmp_path) as details:
        trusted = new_calls().test(kind, {**details, "ssl": "verify", "ssl_ca": authority.pem}, 20.0)
        required = new_calls().test(kind, {**details, "ssl": "require"}, 20.0)
        unknown = new_calls().test(kind, {**details, "ssl": "verify"}, 20.0)
        with pytest.raises(BettongError), opened(kind, {**details, "ssl": "disable"}):
            pass
        with pytest.raises(Unavailable), opened(kind, {**details, "ssl": "verify"}):
            pass

    for report in (trusted, required):
        assert report.ok, report
        assert next(result for result in report.stages if result.stage is Stage.TLS).ok is True
    assert (unknown.stages[-1].stage, unknown.stages[-1].ok) == (Stage.TLS, False)
    assert "cannot be trusted" in unknown.stages[-1].said


@pytest.mark.parametrize("kind", ["REDIS", "NATS", "KAFKA", "RABBITMQ", "MQTT"])
def test_no_password_goes_out_where_tls_is_demanded_and_not_there(kind: str) -> None:
    with private(kind) as broker, pytest.raises(Unavailable), opened(kind, {**broker.details, "ssl": "require"}):
        pass


# --- where brokers lead ---------------------------------------------------------------------------------------------


def test_an_address_that_a_broker_of_kafka_gives_of_itself_is_held_against_egress() -> None:
    with (
        running_kafka(advertised="127.0.0.2") as server,
        pytest.raises(BadInput, match="egress policy"),
        opened("KAFKA", server.details, Reach(Egress(deny=("127.0.0.2/32",)))),
    ):
        pass
