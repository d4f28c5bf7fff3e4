"""The control plane behind a real socket, served as the server serves it, with a real replica's place behind it."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn
from platform_kit import Platform, open_platform

from bettong.api.app import create_app
from bettong.engine.protocol import guarded
from bettong.settings import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIMITS = Limits(max_body_bytes=2**20, max_upload_bytes=2**20, body_idle_timeout_s=2.0)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A stand-in for a replica: answers with the body's size, in two pieces."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": b"[%d," % size, "more_body": True})
    await send({"type": "http.response.body", "body": b"1]"})


@contextmanager
def served(app: Any, **more: Any) -> Iterator[int]:
    """`app` under uvicorn on a loopback port, in a thread."""
    started = threading.Event()

    class Server(uvicorn.Server):  # type: ignore[misc]  # uvicorn is followed without its types
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, loop="asyncio", access_log=False, log_config=None, **more))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert started.wait(20)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, httpx.Client, str]]:
    home: Path = tmp_path_factory.mktemp("home")
    with open_platform(home, limits=LIMITS) as platform, served(echo, lifespan="off") as replica_port:
        platform.runtime.port = replica_port
        workspace = platform.workspace("bob")
        version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
        row, _ = platform.services.deployments.deploy(
            platform.principal("bob"), "rental", {}, pipeline_version_id=version.id
        )
        app = create_app(platform.services, platform.settings, platform.facts)
        with (
            served(app, lifespan="on", http=guarded(LIMITS)) as port,
            httpx.Client(
                base_url=f"http://127.0.0.1:{port}",
                headers={"Authorization": f"Bearer {platform.tokens['bob']}"},
                timeout=20,
            ) as client,
        ):
            yield platform, client, f"/v1/api/pipelines/infer/{row.label}/rental"


def test_a_body_goes_through_to_the_replica_and_its_answer_comes_back(
    running: tuple[Platform, httpx.Client, str],
) -> None:
    _, client, path = running
    body = b"x" * 700_000

    whole = client.post(path, content=body)
    in_pieces = client.post(path, content=(body[i : i + 100_000] for i in range(0, len(body), 100_000)))

    assert whole.json() == in_pieces.json() == [700_000, 1]
    assert whole.headers["x-request-id"] != in_pieces.headers["x-request-id"]


def test_a_body_over_the_limit_is_413_in_the_engines_shape(running: tuple[Platform, httpx.Client, str]) -> None:
    _, client, path = running

    told = client.post(path, content=b"x" * (2**20 + 1))

    assert (told.status_code, told.json()["source"]) == (413, "engine")
    assert client.post(path, content=b"x").json() == [1, 1]


def whole_answer(client: httpx.Client, head: str) -> bytes:
    """What the server sends to a request of a head alone, up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as raw:
        raw.sendall(head.replace("HTTP/1.1\r\n", "HTTP/1.1\r\nConnection: close\r\n", 1).encode())
        return b"".join(iter(lambda: raw.recv(65536), b""))


def test_an_upload_that_is_declared_too_large_is_refused_before_it_is_sent(
    running: tuple[Platform, httpx.Client, str],
) -> None:
    platform, client, _ = running
    head = (
        "POST /v1/api/models/upload_and_convert HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {platform.tokens['bob']}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 9999999999999999999999\r\n\r\n"
    )
    answer = whole_answer(client, head)

    assert answer.split(b"\r\n", 1)[0].split()[1] in (b"413", b"400")


@pytest.mark.parametrize(
    "hosts", [(), ("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1"), ("localhost",) * 2]
)
def test_not_exactly_one_host_header_is_refused(
    running: tuple[Platform, httpx.Client, str], hosts: tuple[str, ...]
) -> None:
    _, client, _ = running
    head = "GET /v1/api/health HTTP/1.1\r\n" + "".join(f"Host: {host}\r\n" for host in hosts) + "\r\n"
    answer = whole_answer(client, head)

    assert answer.split(b" ")[1] == b"400"
    assert b"%d Host headers" % len(hosts) in answer


def test_a_caller_that_goes_away_in_the_middle_leaves_the_server_answering(
    running: tuple[Platform, httpx.Client, str], caplog: pytest.LogCaptureFixture
) -> None:
    platform, client, path = running
    for target in (path, "/v1/api/connections/list", "/v1/api/models/upload_and_convert"):
        head = (
            f"POST {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {platform.tokens['bob']}\r\n"
            "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n--b"
        )
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=20) as raw:
            raw.sendall(head.encode())

        assert client.get("/v1/api/health").json()["status"] == "ok"
    assert "unexpected_error" not in caplog.text


def test_a_replica_that_is_gone_is_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    with open_platform(tmp_path, limits=LIMITS) as platform, socket.create_server(("127.0.0.1", 0)) as taken:
        platform.runtime.port = taken.getsockname()[1]
        taken.close()
        workspace = platform.workspace("bob")
        version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
        row, _ = platform.services.deployments.deploy(
            platform.principal("bob"), "rental", {}, pipeline_version_id=version.id
        )
        with platform.api() as api:
            told = api.send("bob", "POST", f"/v1/api/pipelines/infer/{row.label}/rental", content=b"[]")

    assert (told.status_code, told.json()["status"]) == (503, "error")
    assert told.headers["retry-after"]
