"""The line between host and replica."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from bettong.engine.channel import Channel
from bettong.engine.forking import open_descriptors

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(sock) for sock in socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    for n in range(100):
        here.send({"n": n})

    assert [message["n"] for message, _ in there.receive()] == list(range(100))
    assert there.receive() == []


def test_each_descriptor_arrives_with_its_message_and_does_not_outlive_an_exec(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    pipes = [os.pipe() for _ in range(3)]
    for n, (reading, _) in enumerate(pipes):
        os.write(pipes[n][1], str(n).encode())
        here.send({"n": n}, reading)
        here.send({"n": "between"})

    received = [(message["n"], fd) for message, fd in there.receive() if fd is not None]

    assert [os.read(fd, 8).decode() for _, fd in received] == [str(n) for n, _ in received] == ["0", "1", "2"]
    assert not any(os.get_inheritable(fd) for _, fd in received)
    for fd in [fd for _, fd in received] + [fd for pipe in pipes for fd in pipe]:
        os.close(fd)


def test_a_descriptor_that_there_is_no_room_for_is_missed_in_its_own_message_alone(
    ends: tuple[Channel, Channel],
) -> None:
    here, there = ends
    pipes = [os.pipe() for _ in range(3)]
    os.write(pipes[2][1], b"2")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    here.send({"n": 0}, pipes[0][0])
    here.send({"n": "between"})
    here.send({"n": 1}, pipes[1][0])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(open_descriptors()) + 1, before[1]))
    try:
        with contextlib.ExitStack() as holes:
            while (gap := _lowest_free()) is not None:
                holes.callback(os.close, gap)
            missed = there.receive()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    here.send({"n": 2}, pipes[2][0])
    ((number, fd),) = [(message["n"], fd) for message, fd in there.receive()]

    assert [(message["n"], fd) for message, fd in missed] == [(0, None), ("between", None), (1, None)]
    assert number == 2
    assert fd is not None
    assert os.read(fd, 8) == b"2"
    for descriptor in (fd, *(end for pipe in pipes for end in pipe)):
        os.close(descriptor)


def _lowest_free() -> int | None:
    """Take the lowest free descriptor; None when the limit leaves none."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:
        return None


def test_what_the_other_side_does_not_read_yet_is_kept_and_nobody_waits(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    text = "x" * 10_000
    sent = 0
    while not here.wants_write:
        here.send({"n": sent, "text": text})
        sent += 1
    here.send({"n": sent, "text": text})

    numbers: list[int] = []
    while len(numbers) <= sent:
        numbers += [message["n"] for message, _ in there.receive()]
        here.flush()

    assert numbers == list(range(sent + 1))
    assert not here.wants_write


def test_the_death_of_the_other_side_is_read_once_everything_it_said_was(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    here.send({"last": "words"})
    here.close()

    assert there.receive() == [({"last": "words"}, None)]
    assert there.closed
    there.send({"into": "the void"})
    assert not there.wants_write


def test_descriptors_nobody_asked_for_are_closed_with_the_channel(ends: tuple[Channel, Channel]) -> None:
    here, there = ends
    reading, writing = os.pipe()
    half = b'{"fd": true'  # the message never becomes whole
    with socket.socket(fileno=os.dup(here.fileno())) as raw:
        socket.send_fds(raw, [half], [writing])
    os.close(writing)
    there.receive()

    there.close()

    assert os.read(reading, 1) == b""  # the end: no writer is left
    os.close(reading)
