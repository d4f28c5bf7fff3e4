"""The brokers that the suite runs on, each a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from contract.streams.kit import KINDS, Broker
from services.kafka import KafkaServer, running_kafka
from services.nats import NatsServer, running_nats
from services.redis import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@pytest.fixture(params=[pytest.param(kind, marks=pytest.mark.service) for kind in KINDS])
def broker(request: pytest.FixtureRequest) -> Broker:
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
