from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from bettong.engine.workers.channel import MAX_BODY_BYTES, Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def frame(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<II", len(text), len(body)) + text + body


class Inbox:
    def __init__(self) -> None:
        self.frames: list[tuple[dict[str, Any], bytes]] = []
        self.faults: list[str] = []
        self.end = asyncio.Event()

    def received(self, header: dict[str, Any], body: memoryview) -> None:
        self.frames.append((header, bytes(body)))

    def broken(self, why: str) -> None:
        self.faults.append(why)

    def ended(self) -> None:
        self.end.set()


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Inbox]], Inbox]:
    return request.param  # type: ignore[no-any-return]


async def after(pieces: list[bytes]) -> Inbox:
    """What arrives of these pieces, each sent by itself, and then the end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    inbox = Inbox()
    channel = await Channel.open(ours, inbox)
    loop = asyncio.get_running_loop()
    with theirs:
        for piece in pieces:
            try:
                await loop.sock_sendall(theirs, piece)
            except (BrokenPipeError, ConnectionResetError):
                break
            await asyncio.sleep(0)
    await inbox.end.wait()
    channel.close()
    return inbox


def test_frames_come_whole_however_the_bytes_are_cut(run: Callable[..., Inbox]) -> None:
    sent = frame({"n": 1}, b"abc") + frame({"n": 2}) + frame({"n": 3}, b"x" * 1000)

    for size in (1, 7, len(sent)):
        inbox = run(after([sent[i : i + size] for i in range(0, len(sent), size)]))
        assert inbox.frames == [({"n": 1}, b"abc"), ({"n": 2}, b""), ({"n": 3}, b"x" * 1000)]


def test_large_frames_come_whole_between_small_ones(run: Callable[..., Inbox]) -> None:
    large = bytes(range(256)) * 8192
    header = {"words": "w" * 600_000}

    inbox = run(after([frame({"n": 1}, b"abc") + frame(header, large) + frame({"n": 2}, large[:300_000])]))

    assert inbox.frames == [({"n": 1}, b"abc"), (header, large), ({"n": 2}, large[:300_000])]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (struct.pack("<II", 2**31, 0), "a frame of"),
        (struct.pack("<II", 2, MAX_BODY_BYTES + 1), "a frame of"),
        (struct.pack("<II", 3, 0) + b"abc", "not JSON"),
        (frame([1, 2]), "not an object"),
    ],
)
def test_what_is_no_frame_ends_the_channel(run: Callable[..., Inbox], sent: bytes, why: str) -> None:
    inbox = run(after([sent, frame({"n": 1})]))

    assert inbox.frames == []
    assert len(inbox.faults) == 1
    assert why in inbox.faults[0]


def test_half_a_frame_and_then_the_end_is_just_the_end(run: Callable[..., Inbox]) -> None:
    inbox = run(after([frame({"n": 1}, b"abc")[:-1]]))

    assert (inbox.frames, inbox.faults) == ([], [])
