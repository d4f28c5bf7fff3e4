"""The application behind the guarded protocol, on real sockets that somebody else accepted, as in a replica."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

import inference_builders
import orjson
import pytest
import uvloop
from inference_builders import (
    FORECAST,
    FORECAST_IN,
    FORECAST_ROW,
    InProcessRunner,
    MemoryLog,
    PromptRunner,
    access_token,
    deployment_spec,
    forecast,
    inference_app,
    served,
)

from bettong.engine import protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Waiting = InProcessRunner  # never asked to answer at once
BODY = orjson.dumps([{"count": FORECAST_ROW}])
Scenario = "Callable[[], Coroutine[Any, Any, None]]"


@pytest.fixture(autouse=True, params=["in a task", "at once"])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether models that wait for nothing are asked before there is a task for their request."""
    if request.param == "at once":
        for module in (inference_builders, sys.modules[__name__]):
            monkeypatch.setattr(module, "InProcessRunner", PromptRunner)
    return bool(request.param == "at once")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a scenario on the loop that replicas use, and on the one of the standard library."""

    def runner(scenario: Coroutine[Any, Any, None]) -> None:
        factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(scenario, 20))

    return runner


def head(*more: str, path: str = "/infer", length: int | None = len(BODY)) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {access_token()}",
        "Content-Type: application/json",
        *more,
    ]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Client:
    """A raw connection: what is tested here no well-behaved client would send."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    @classmethod
    async def to(cls, address: tuple[str, int]) -> Client:
        return cls(*await asyncio.open_connection(*address))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return int(first.split()[1]), headers, await self._reader.readexactly(int(headers["content-length"]))

    async def line(self) -> bytes:
        return await self._reader.readline()

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        return await self._reader.read()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


def test_a_socket_that_was_accepted_elsewhere_is_served_request_after_request(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        log = MemoryLog()
        async with served(inference_app(spec=spec, log=log), spec) as address:
            client = await Client.to(address)
            for _ in range(3):
                await client.send(head() + BODY)
                status, headers, body = await client.answer()
                assert status == 200
                assert json.loads(body)[0]["out"]["forecast"] == FORECAST
                assert "connection" not in headers
            await client.close()
        assert len(log.answered) == 3

    run(scenario())


def test_requests_sent_at_once_are_answered_in_their_order(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(b"".join(head(f"X-Request-Id: r{i}") + BODY for i in range(20)))
            ids = [(await client.answer())[1]["x-request-id"] for _ in range(20)]
            assert ids == [f"r{i}" for i in range(20)]
            await client.close()

    run(scenario())


def test_a_body_in_pieces_and_in_chunks_is_one_body(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            whole = head() + BODY
            for at in range(0, len(whole), 7):
                await client.send(whole[at : at + 7])
            assert (await client.answer())[0] == 200
            await client.send(head("Transfer-Encoding: chunked", length=None))
            for at in range(0, len(BODY), 10):
                piece = BODY[at : at + 10]
                await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await client.send(b"0\r\n\r\n")
            assert (await client.answer())[0] == 200
            await client.close()

    run(scenario())


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
@pytest.mark.parametrize("piece", [10**6, 50, 1], ids=["whole", "in pieces", "byte by byte"])
def test_a_request_to_upgrade_is_answered_as_if_it_had_not_asked(run: Any, protocol: str, piece: int) -> None:
    """Java's HTTP client asks for h2c with every request. Its body is a body, never a second request."""

    async def scenario() -> None:
        spec = deployment_spec()
        log = MemoryLog()
        hidden = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        upgrade = ("Connection: Upgrade, HTTP2-Settings", f"Upgrade: {protocol}", "HTTP2-Settings: AAMAAABkAAQAAP__")
        whole = head(*upgrade) + BODY + head(*upgrade, length=len(hidden)) + hidden + head("X-Request-Id: last") + BODY
        async with served(inference_app(spec=spec, log=log), spec) as address:
            client = await Client.to(address)
            for at in range(0, len(whole), piece):
                await client.send(whole[at : at + piece])
            status, _, body = await client.answer()
            assert (status, json.loads(body)[0]["out"]["forecast"]) == (200, FORECAST)
            assert (await client.answer())[0] == 400
            status, headers, _ = await client.answer()
            assert (status, headers["x-request-id"]) == (200, "last")
            await client.close()
        assert len(log.answered) == 2

    run(scenario())


def test_a_client_that_has_said_all_it_has_to_say_gets_its_answers(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        app = inference_app(spec=spec)
        async with served(app, spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY + head("X-Request-Id: last") + BODY)
            client.writer.write_eof()
            assert (await client.answer())[0] == 200
            status, headers, _ = await client.answer()
            assert (status, headers["x-request-id"]) == (200, "last")
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_a_client_that_stops_in_the_middle_of_a_body_is_let_go_and_nothing_is_logged(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        log = MemoryLog()
        app = inference_app(spec=spec, log=log)
        async with served(app, spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY[:-1])
            client.writer.write_eof()
            assert await client.rest() == b""
            await client.close()
            await app.drained()
        assert log.answered == []

    run(scenario())


LARGE = BODY + b" " * 300_000  # more than is mostly read at once


@pytest.mark.parametrize("first", [0, 1, 1000, 200_000, len(LARGE) - 1], ids="{} bytes with the head".format)
def test_a_large_body_is_one_body_and_what_comes_behind_it_the_next_request(run: Any, first: int) -> None:
    async def scenario() -> None:
        spec, log, begun = deployment_spec(), MemoryLog(), asyncio.Event()
        async with served(inference_app(spec=spec, log=log), spec, read=begun.set) as address:
            client = await Client.to(address)
            for _ in range(2):
                begun.clear()
                await client.send(head(length=len(LARGE)) + LARGE[:first])
                await begun.wait()  # so that the rest is read apart
                await client.send(LARGE[first:] + head() + BODY)
                for _ in range(2):
                    status, _, body = await client.answer()
                    assert (status, json.loads(body)[0]["out"]["forecast"]) == (200, FORECAST)
            await client.close()
        assert len(log.answered) == 4

    run(scenario())


def test_who_is_refused_before_a_large_body_is_here_may_send_it_and_ask_again(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            stranger = head(length=len(LARGE)).replace(b"Bearer ", b"Bearer x")
            await client.send(stranger + LARGE[:1000])
            assert (await client.answer())[0] == 401
            await client.send(LARGE[1000:] + head(length=len(LARGE)) + LARGE)
            assert (await client.answer())[0] == 200
            await client.close()

    run(scenario())


@pytest.mark.parametrize("leaves", [True, False], ids=["and leaves", "and waits"])
def test_who_stops_in_the_middle_of_a_large_body_is_let_go_and_nothing_is_logged(run: Any, leaves: bool) -> None:
    async def scenario() -> None:
        spec, log, lost = deployment_spec(body_idle_timeout_s=0.2), MemoryLog(), asyncio.Event()
        app = inference_app(spec=spec, log=log)
        async with served(app, spec, lost=lost.set) as address:
            client = await Client.to(address)
            await client.send(head(length=len(LARGE)) + LARGE[:1000])
            if not leaves:
                assert (await client.rest()).startswith(b"HTTP/1.1 408 ")
            await client.close()
            await lost.wait()
            await app.drained()
        assert not log.answered

    run(scenario())


@pytest.mark.parametrize("first", [0, 1000], ids="{} bytes with the head".format)
def test_a_large_body_on_its_way_when_idle_connections_are_closed_is_answered_for_the_last_time(
    run: Any, first: int
) -> None:
    async def scenario() -> None:
        spec, log, begun, protocols = deployment_spec(), MemoryLog(), asyncio.Event(), list[Any]()
        app = inference_app(spec=spec, log=log)
        async with served(app, spec, read=begun.set, made=protocols.append) as address:
            client = await Client.to(address)
            await client.send(head(length=len(LARGE)) + LARGE[:first])
            await begun.wait()
            app.draining = True
            protocols[0].shutdown()
            await client.send(LARGE[first:])
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.rest() == b""
            await client.close()
            await app.drained()
        assert len(log.answered) == 1

    run(scenario())


def test_after_the_answer_to_a_large_body_others_have_their_turn(run: Any) -> None:
    async def scenario() -> None:
        protocols, reading, begun = list[Any](), list[bool](), asyncio.Event()

        class Watched(MemoryLog):
            def append(self, rows: Any, *, failed: bool = False) -> int:
                asyncio.get_running_loop().call_soon(lambda: reading.append(protocols[0].transport.is_reading()))
                return super().append(rows, failed=failed)

        spec = deployment_spec()
        app = inference_app([PromptRunner(forecast)], spec=spec, log=Watched())
        async with served(app, spec, read=begun.set, made=protocols.append) as address:
            client = await Client.to(address)
            for _ in range(2):
                begun.clear()
                await client.send(head(length=len(LARGE)))
                await begun.wait()  # so that its body is received in place
                await client.send(LARGE)
                assert (await client.answer())[0] == 200
            await client.close()
        assert reading == [False, False]

    run(scenario())


def test_a_body_whose_answer_turns_out_to_take_long_is_read_once(run: Any) -> None:
    async def scenario() -> None:
        class Slow(PromptRunner):
            def predict_now(self, rows: Any) -> None:
                return None

        spec, log, read = deployment_spec(), MemoryLog(), list[int]()
        app = inference_app([Slow(forecast)], spec=spec, log=log)
        decoded = app._decoded

        def watched(form: Any, body: bytes) -> Any:
            read.append(len(body))
            return decoded(form, body)

        app._decoded = watched  # type: ignore[method-assign]
        async with served(app, spec) as address:
            client = await Client.to(address)
            for body in (BODY, LARGE):
                await client.send(head(length=len(body)) + body)
                assert (await client.answer())[0] == 200
            await client.close()
        assert read == [len(BODY), len(LARGE)]

    run(scenario())


@pytest.mark.parametrize("target", ["http://x", "http://x?y", "http://[::1"])
@pytest.mark.parametrize("length", [len(BODY), 1000, len(LARGE)])
def test_a_target_without_a_path_is_no_request_however_long_its_body_will_be(
    run: Any, target: str, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head(path=target, length=length) + BODY)
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
            await client.close()

    run(scenario())
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_client_that_leaves_frees_its_place_and_its_model(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(max_queued_requests=1)
        log = MemoryLog()
        begun, cancelled = asyncio.Event(), asyncio.Event()

        async def hang_once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if begun.is_set():
                return await forecast(rows)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()
            return rows

        app = inference_app([Waiting(hang_once)], spec=spec, log=log)
        async with served(app, spec) as address:
            leaving = await Client.to(address)
            await leaving.send(head() + BODY)
            await begun.wait()
            await leaving.close()
            await cancelled.wait()
            await app.drained()

            client = await Client.to(address)
            await client.send(head() + BODY)
            assert (await client.answer())[0] == 200
            await client.close()
        assert len(log.answered) == 1
        assert log.failed[0].column("error").to_pylist() == ["The client left before its answer was there."]

    run(scenario())


def test_a_client_that_only_closed_its_side_is_waited_for(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "ASK_S", 0.01)

    async def scenario() -> None:
        spec = deployment_spec()
        asked = asyncio.Event()

        async def slow(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            await asked.wait()
            return await forecast(rows)

        async with served(inference_app([Waiting(slow)], spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            client.writer.write_eof()
            for _ in range(3):
                assert await client.line() == b"HTTP/1.1 100 Continue\r\n"
                assert await client.line() == b"\r\n"
            asked.set()
            assert (await client.rest()).rpartition(b"100 Continue\r\n\r\n")[2].startswith(b"HTTP/1.1 200 OK\r\n")
            await client.close()

    run(scenario())


def test_a_slow_head_is_cut_off(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(head_timeout_s=0.1)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(b"POST /infer HT")
            assert (await client.rest()).startswith(b"HTTP/1.1 408 Request Timeout\r\n")
            await client.close()

    run(scenario())


def test_dripping_a_head_does_not_extend_its_time(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(head_timeout_s=0.2)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            answer = asyncio.create_task(client.rest())
            started = time.monotonic()
            await client.send(b"POST /infer HTTP/1.1\r\n")
            while not answer.done() and time.monotonic() - started < 10:
                client.writer.write(b"X-A: b\r\n")
                await asyncio.wait([answer], timeout=0.02)
            # a line may cross the answer on its way: the client's system throws the answer away then
            with contextlib.suppress(ConnectionResetError):
                assert b" 408 " in await answer
            client.writer.close()

    run(scenario())


@pytest.mark.parametrize("sent", [b"", b"\r\n"])
def test_a_connection_that_asks_nothing_is_closed_in_silence(run: Any, sent: bytes) -> None:
    async def scenario() -> None:
        spec = deployment_spec(head_timeout_s=0.1)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(sent)
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_blank_lines_do_not_keep_an_idle_connection_open(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(head_timeout_s=0.1, keep_alive_timeout_s=60.0)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            assert (await client.answer())[0] == 200
            await client.send(b"\r\n")
            await client.rest()
            await client.close()

    run(scenario())


def test_an_idle_connection_is_closed_after_its_keep_alive(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(keep_alive_timeout_s=0.1)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            await client.answer()
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_an_answer_that_takes_longer_than_the_keep_alive_time_arrives(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(keep_alive_timeout_s=0.05)
        waited = asyncio.Event()

        async def second_waits(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            if len(rows) == 2:
                await waited.wait()
            return await forecast(rows)

        app = inference_app([inference_builders.InProcessRunner(second_waits)], spec=spec)
        async with served(app, spec) as address:
            client, twice = await Client.to(address), orjson.dumps(json.loads(BODY) * 2)
            await client.send(head() + BODY)
            assert (await client.answer())[0] == 200
            await client.send(head(length=len(twice)) + twice)
            asyncio.get_running_loop().call_later(0.2, waited.set)  # four times as long as an idle connection stays
            assert (await client.answer())[0] == 200
            assert await client.rest() == b""
            await client.close()

    run(scenario())


@pytest.mark.parametrize("begun", [b"", b"[{"])
def test_a_body_that_stops_coming_is_cut_off(run: Any, begun: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        spec = deployment_spec(body_idle_timeout_s=0.1)
        app = inference_app(spec=spec)
        async with served(app, spec) as address:
            client = await Client.to(address)
            await client.send(head() + begun)
            answer = await client.rest()
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"No byte of the body came for 0.1 s" in answer
            await client.close()
        assert app.in_flight == 0

    run(scenario())
    assert caplog.text == ""


def test_a_slow_body_that_keeps_coming_is_taken(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(body_idle_timeout_s=0.4, head_timeout_s=0.4)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head())
            silent = asyncio.create_task(client.answer())
            started = time.monotonic()
            for at in range(len(BODY) - 1):
                client.writer.write(BODY[at : at + 1])
                await asyncio.wait([silent], timeout=0.6 / len(BODY))
            assert time.monotonic() - started > 0.5
            await client.send(BODY[-1:])
            assert (await silent)[0] == 200
            await client.close()

    run(scenario())


def test_a_model_may_take_longer_than_a_client_may_pause(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(body_idle_timeout_s=0.05, head_timeout_s=0.05)

        async def slow(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.2)
            return await forecast(rows)

        async with served(inference_app([InProcessRunner(slow)], spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            assert (await client.answer())[0] == 200
            await client.close()

    run(scenario())


@pytest.mark.parametrize(
    "request_head",
    [
        pytest.param(b"POST /infer HTTP/1.1\r\nX-Long: " + b"a" * 20_000, id="one endless header"),
        pytest.param(b"POST /infer HTTP/1.1\r\n" + b"X-Many: a\r\n" * 2_000, id="endless headers"),
        pytest.param(b"POST /" + b"a" * 20_000, id="an endless path"),
        pytest.param(b"POST /infer HTTP/1.1\r\nX-Long: " + b"a" * 20_000 + b"\r\n\r\n", id="a whole one, too long"),
    ],
)
def test_an_oversized_head_is_refused(run: Any, request_head: bytes) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec, max_head_bytes=8192) as address:
            client = await Client.to(address)
            await client.send(request_head)
            assert (await client.rest()).startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            await client.close()

    run(scenario())


def test_who_goes_on_sending_an_oversized_head_reads_why(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec, max_head_bytes=8192) as address:
            client = await Client.to(address)
            await client.send(b"POST /infer HTTP/1.1\r\nX-Long: " + b"a" * 2**22)
            assert (await client.answer())[0] == 431
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_endless_trailers_are_refused_too(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec, max_head_bytes=8192) as address:
            client = await Client.to(address)
            await client.send(head("Transfer-Encoding: chunked", length=None) + b"2\r\n[]\r\n0\r\n")
            answer = asyncio.create_task(client.rest())
            client.writer.write(b"X-Trailer: ")
            while not answer.done():
                client.writer.write(b"a" * 5_000)
                await asyncio.wait([answer], timeout=0.02)
            assert b" 431 " in await answer
            await client.close()

    run(scenario())


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"\x00" * 100,
        b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_what_is_not_http_is_refused(run: Any, rubbish: bytes) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(rubbish)
            assert (await client.rest()).startswith(b"HTTP/1.1 400 Bad Request\r\n")
            await client.close()

    run(scenario())


def test_a_body_too_large_is_refused_before_it_is_sent(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(max_body_bytes=1000)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head("Expect: 100-continue", length=200 * 2**20))
            status, headers, body = await client.answer()
            assert (status, headers["connection"]) == (413, "close")
            assert "max_body_bytes" in json.loads(body)["error"]
            await client.close()

    run(scenario())


def test_who_sends_a_body_too_large_all_the_same_reads_why(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec(max_body_bytes=1000)
        async with served(inference_app(spec=spec), spec) as address:
            client = await Client.to(address)
            await client.send(head("Transfer-Encoding: chunked", length=None))
            for _ in range(64):
                await client.send(b"10000\r\n" + b"x" * 2**16 + b"\r\n")
            await client.send(b"0\r\n\r\n")
            status, _, body = await client.answer()
            assert (status, json.loads(body)["code"]) == (413, 413)
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_draining_closes_after_the_answer(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        app = inference_app(spec=spec)
        async with served(app, spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            assert (await client.answer())[0] == 200
            app.draining = True
            await client.send(head() + BODY)
            status, headers, _ = await client.answer()
            assert (status, headers["connection"]) == (200, "close")
            assert await client.rest() == b""
            await client.close()

    run(scenario())


def test_a_client_that_leaves_while_its_model_runs_costs_an_answer_and_no_error(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        entered, go = asyncio.Event(), asyncio.Event()

        async def wait(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            entered.set()
            await go.wait()
            return await forecast(rows)

        spec = deployment_spec()
        app = inference_app([InProcessRunner(wait)], spec=spec)
        async with served(app, spec) as address:
            client = await Client.to(address)
            await client.send(head() + BODY)
            await entered.wait()
            await client.close()
            go.set()
            await app.drained()

    with caplog.at_level(logging.WARNING):
        run(scenario())
    assert caplog.text == ""


def test_a_client_that_does_not_read_its_answer_is_cut_off(run: Any) -> None:
    async def scenario() -> None:
        rows = [{"count": list(range(1000))} for _ in range(5000)]
        body = orjson.dumps(rows)
        spec = deployment_spec(body_idle_timeout_s=0.2)
        lost = asyncio.Event()
        async with served(inference_app(spec=spec), spec, lost=lost.set) as address:
            client = await Client.to(address)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(head(length=len(body)) + body)
            await lost.wait()
            client.writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await client.close()

    run(scenario())


def test_requests_sent_in_one_go_are_answered_in_their_order(run: Any, at_once: bool) -> None:
    async def scenario() -> None:
        answered_at_once = []

        class Watched(PromptRunner if at_once else InProcessRunner):  # type: ignore[misc]
            def predict_now(self, rows: Any) -> Any:
                answered_at_once.append(rows.column("count").to_pylist()[0][0])
                return super().predict_now(rows)

        async def first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{"count": row["count"][:1]} for row in rows]

        spec, log = deployment_spec(), MemoryLog()
        runner = (
            Watched(first, FORECAST_IN, FORECAST_IN) if at_once else InProcessRunner(first, FORECAST_IN, FORECAST_IN)
        )
        async with served(inference_app([runner], spec=spec, log=log), spec) as address:
            client = await Client.to(address)
            bodies = [orjson.dumps([{"count": [n, 7]}]) for n in range(5)]
            await client.send(b"".join(head(length=len(body)) + body for body in bodies))
            found = [json.loads((await client.answer())[2])[0]["out"]["count"][0] for _ in bodies]
            assert found == [0, 1, 2, 3, 4]
            await client.send(head(length=len(bodies[0])) + bodies[0])
            assert (await client.answer())[0] == 200
            client.writer.close()
        logged: list[Any] = [batch.column("in.count").to_pylist() for batch in log.answered]
        assert logged == [[[n, 7]] for n in (0, 1, 2, 3, 4, 0)]
        if at_once:  # the first of those that came together, so that other connections have their turn
            assert answered_at_once == [0, 0]

    run(scenario())


def test_an_answer_at_once_closes_the_connection_when_it_should(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        app = inference_app(spec=spec)
        async with served(app, spec) as address:
            for close in ("Connection: close", "Connection: Close"):
                client = await Client.to(address)
                await client.send(head(close) + BODY)
                status, headers, _ = await client.answer()
                assert (status, headers["connection"]) == (200, "close")
                assert await client.rest() == b""
                client.writer.close()
            client = await Client.to(address)
            app.draining = True
            await client.send(head() + BODY)
            assert (await client.answer())[1]["connection"] == "close"
            assert await client.rest() == b""
            client.writer.close()

    run(scenario())


def test_who_sends_the_same_head_again_gets_the_answer_to_its_own_body(run: Any, at_once: bool) -> None:
    async def scenario() -> None:
        async def first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{"count": row["count"][:1]} for row in rows]

        spec, log = deployment_spec(), MemoryLog()
        app = inference_app([InProcessRunner(first, FORECAST_IN, FORECAST_IN)], spec=spec, log=log)
        read: list[bytes] = []
        read_head = app.read_head

        def watched(method: bytes, target: bytes, headers: list[tuple[bytes, bytes]]) -> Any:
            read.append(target)
            return read_head(method, target, headers)

        app.read_head = watched  # type: ignore[method-assign]
        bodies = [orjson.dumps([{"count": [n, 7]}]) for n in range(8)]
        same = head(length=len(bodies[0]))
        async with served(app, spec) as address:
            one, other = await Client.to(address), await Client.to(address)
            found, ids = [], set()

            async def take(client: Client) -> None:
                status, headers, body = await client.answer()
                assert status == 200
                assert "connection" not in headers
                ids.add(headers["x-request-id"])
                found.append(json.loads(body)[0]["out"]["count"][0])

            for client, body in zip((one, one, other, one), bodies, strict=False):
                await client.send(same + body)
                await take(client)
            assert len(read) == (1 if at_once else 4), "of a head that is known nothing is read again"
            await one.send(same)  # its body comes behind it
            await one.send(bodies[4])
            await take(one)
            await one.send(b"\r\n" + same + bodies[5] + same + bodies[6] + same[:9])
            for _ in range(2):
                await take(one)
            await one.send(same[9:] + bodies[7])
            await take(one)
            await one.close()
            await other.close()
        assert found == [0, 1, 2, 3, 4, 5, 6, 7]
        assert len(ids) == 8
        logged: list[Any] = [batch.column("in.count").to_pylist() for batch in log.answered]
        assert logged == [[[n, 7]] for n in found]

    run(scenario())


def test_a_head_that_is_known_is_refused_once_its_token_has_expired(run: Any) -> None:
    async def scenario() -> None:
        spec, now_s = deployment_spec(), [time.time()]
        app = inference_app(spec=spec, clock=lambda: now_s[0])
        same = head()
        async with served(app, spec) as address:
            client = await Client.to(address)
            for _ in range(2):
                await client.send(same + BODY)
                assert (await client.answer())[0] == 200
            now_s[0] += 61
            await client.send(same + BODY)
            assert (await client.answer())[0] == 401
            await client.close()

    run(scenario())


def test_a_head_that_is_known_is_answered_for_the_last_time_while_draining(run: Any) -> None:
    async def scenario() -> None:
        spec = deployment_spec()
        app = inference_app(spec=spec)
        same = head()
        async with served(app, spec) as address:
            client = await Client.to(address)
            for closes in (False, False, True):
                app.draining = closes
                await client.send(same + BODY)
                status, headers, _ = await client.answer()
                assert (status, headers.get("connection") == "close") == (200, closes)
            assert await client.rest() == b""
            client.writer.close()

    run(scenario())
