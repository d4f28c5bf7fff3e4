"""The brokers that the suite runs on, each a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from contract.streams.kit import KEEPING, KINDS, LOGS, Broker, opened
from services.kafka import KafkaServer, running_kafka
from services.mosquitto import Mosquitto, running_mosquitto
from services.nats import NatsServer, running_nats
from services.rabbitmq import RabbitMqServer, running_rabbitmq
from services.redis import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service) for kind in KINDS])
def broker(request: pytest.FixtureRequest) -> Broker:
    return cast("Broker", request.getfixturevalue(f"{request.param.lower()}_broker"))


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service) for kind in LOGS])
def log(request: pytest.FixtureRequest) -> Broker:
    """One that keeps what was read: groups have places of their own in it."""
    return cast("Broker", request.getfixturevalue(f"{request.param.lower()}_broker"))


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service) for kind in KEEPING])
def keeping(request: pytest.FixtureRequest) -> Broker:
    """One that knows its topics, and what is in them, without anybody who consumes."""
    return cast("Broker", request.getfixturevalue(f"{request.param.lower()}_broker"))


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_broker(redis_server: RedisServer) -> Broker:
    return redis_as_broker(redis_server)


def redis_as_broker(server: RedisServer) -> Broker:
    return Broker("REDIS", {**server.details, "redeliver_after_s": 3}, lambda name, _: server.make(name))


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    with running_nats() as server:
        yield server


@pytest.fixture
def nats_broker(nats_server: NatsServer) -> Broker:
    return nats_as_broker(nats_server)


def nats_as_broker(server: NatsServer) -> Broker:
    return Broker("NATS", {**server.details, "redeliver_after_s": 3}, lambda name, _: server.make(name))


@pytest.fixture(scope="session")
def kafka_server() -> Iterator[KafkaServer]:
    with running_kafka() as server:
        yield server


@pytest.fixture(scope="session")
def strict_kafka_server() -> Iterator[KafkaServer]:
    """One that lets nobody in."""
    with running_kafka("--authentication") as server:
        yield server


@pytest.fixture
def kafka_broker(kafka_server: KafkaServer, strict_kafka_server: KafkaServer) -> Broker:
    login = {"user": "somebody", "password": "wrong but secret", "sasl": "SCRAM-SHA-256"}
    return kafka_as_broker(kafka_server, wrong_login={**strict_kafka_server.details, **login})


def kafka_as_broker(server: KafkaServer, wrong_login: Mapping[str, object] | None = None) -> Broker:
    details = {**server.details, "redeliver_after_s": 6}
    return Broker("KAFKA", details, server.make, wrong_login or {}, {"servers": "nowhere.invalid:9092"})


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMqServer]:
    with running_rabbitmq() as server:
        yield server


@pytest.fixture
def rabbitmq_broker(rabbitmq_server: RabbitMqServer) -> Broker:
    return rabbitmq_as_broker(rabbitmq_server)


def rabbitmq_as_broker(server: RabbitMqServer) -> Broker:
    details = {**server.details, "redeliver_after_s": 3}
    return Broker("RABBITMQ", details, lambda name, _: server.make(name), shows=lambda topic: {"queues": topic})


@pytest.fixture(scope="session")
def mosquitto() -> Iterator[Mosquitto]:
    with running_mosquitto() as server:
        yield server


@pytest.fixture
def mqtt_broker(mosquitto: Mosquitto) -> Broker:
    return mqtt_as_broker(mosquitto)


def mqtt_as_broker(server: Mosquitto) -> Broker:
    details = {**server.details, "redeliver_after_s": 3, "prefetch": 5_000, "listen_s": 0.5}

    def join(topic: str, group: str) -> None:
        with opened("MQTT", details) as source:
            source.consume(topic, group, max_messages=1, wait_s=0)

    def member(n: int) -> Mapping[str, object]:
        return {"shared": True, "client_id_prefix": f"member{n}-"}

    return Broker("MQTT", details, lambda name, partitions: None, join=join, member=member)
