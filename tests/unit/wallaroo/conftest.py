from __future__ import annotations

import socket
from typing import TYPE_CHECKING, cast

import pytest
from unit.wallaroo.stub import UUIDS, WORKSPACE, FakeClock, StubPlatform, deployment, pipeline_entry

import wallaroo
from wallaroo.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wallaroo._wait import Clock
    from wallaroo.pipeline import Pipeline


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WALLAROO_URL", "WALLAROO_SDK_AUTH_TYPE", "WALLAROO_SDK_CREDENTIALS", "WALLAROO_REQUEST_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("DEPLOYMENT_CONFIG", raising=False)


@pytest.fixture
def platform() -> Iterator[StubPlatform]:
    stub = StubPlatform()
    stub.on("/v1/api/workspaces/default", WORKSPACE)
    stub.on("/v1/api/config", {"default_arch": "x86"})
    yield stub
    stub.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def client(platform: StubPlatform, clock: FakeClock) -> Iterator[wallaroo.Client]:
    with wallaroo.Client(platform.url, auth_type="none", interactive=True) as made:
        made._clock = cast("Clock", clock)
        yield made


@pytest.fixture
def pipeline(client: wallaroo.Client, platform: StubPlatform) -> Pipeline:
    """A deployed pipeline whose replica is the stub's /replica."""
    record = deployment(platform.url, f"{platform.url}/replica")
    platform.on("/v1/api/pipelines/get_pipeline_by_name", pipeline_entry(deployed=True, deployment=record))
    return client.get_pipeline("rental")


@pytest.fixture
def warehouse(client: wallaroo.Client) -> Connection:
    return Connection(client, {"id": UUIDS[2], "name": "warehouse", "type": "POSTGRES"})


@pytest.fixture
def unused_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
