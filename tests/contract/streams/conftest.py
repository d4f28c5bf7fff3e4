"""The brokers that the suite runs on, each a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from contract.streams.kit import KINDS, Broker
from services.nats import NatsServer, running_nats
from services.redis import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator


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
