"""What the suite has to know of each broker, and how its tests read from one: with a deadline, never by sleeping."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.domain.drivers import Capability, Message
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

LOGS = ("REDIS", "NATS", "KAFKA")  # which keep what was read, for each group that asks
KEEPING = (*LOGS, "RABBITMQ")  # which keep messages for whoever comes later
KINDS = (*KEEPING, "MQTT")
TIMEOUT_S = 10.0
PATIENCE_S = 90.0


@dataclass(frozen=True)
class Broker:
    """One broker, reached as a job reaches it.

    Attributes:
        make: a new, empty topic of that name; with as many partitions as told, where it has such.
        wrong_login, nowhere: changes to the details that lead to a refused login, and to a host that is not there.
        shows: changes to the details for browsing to show a topic.
        join: have a group begin now. Where topics keep nothing, it has what comes from then on.
        member: changes to the details that make the n-th of several members, where they have to say which they are.
    """

    kind: str
    details: Mapping[str, Any]
    make: Callable[[str, int], None]
    wrong_login: Mapping[str, Any] = field(default_factory=lambda: {"password": "wrong but secret"})
    nowhere: Mapping[str, Any] = field(default_factory=lambda: {"host": "nowhere.invalid"})
    shows: Callable[[str], Mapping[str, Any]] = lambda _: {}
    join: Callable[[str, str], None] = lambda topic, group: None
    member: Callable[[int], Mapping[str, Any]] = lambda n: {}

    @contextmanager
    def open(self, **changes: Any) -> Iterator[Any]:
        """A source in this process; what it can do is known to whoever calls it."""
        with opened(self.kind, {**self.details, **changes}) as source:
            yield source

    def topic(self, partitions: int = 1, *, groups: Sequence[str] = ()) -> str:
        """A new one, with a group of its own name, and these."""
        name = f"t_{uuid4().hex[:12]}"
        self.make(name, partitions)
        for group in (name, *groups):
            self.join(name, group)
        return name


@contextmanager
def opened(kind: str, details: Mapping[str, Any], reach: Reach | None = None) -> Iterator[Any]:
    opening = Opening(kind, Registry().driver(kind), details, reach or Reach(), TIMEOUT_S)
    with opening.source(Capability.CONSUME) as source:
        yield source


def numbered(count: int, start: int = 0, key: bytes | None = None) -> list[Message]:
    return [Message(str(n).encode(), key) for n in range(start, start + count)]


def numbers(messages: list[Message]) -> list[int]:
    return [int(message.value) for message in messages]


def take(
    source: Any,
    topic: str,
    group: str,
    enough: Callable[[list[Message]], bool],
    *,
    commit: bool = True,
    size: int = 100,
) -> list[Message]:
    """Consume, and commit unless told not to, until there is enough."""
    got: list[Message] = []

    def came() -> bool:
        if enough(got):
            return True
        found = source.consume(topic, group, max_messages=size, wait_s=1.0)
        assert len(found) <= size
        got.extend(found)
        if commit:
            source.commit(found)
        return enough(got)

    until(came)
    return got


def until(done: Callable[[], bool]) -> None:
    """Ask again, as long as one can wait in a test."""
    end = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < end, "it did not come about in time"


def at_least(count: int) -> Callable[[list[Message]], bool]:
    return lambda got: len(got) >= count


def all_below(end: int, start: int = 0) -> Callable[[list[Message]], bool]:
    """Each number of a range has come, however often."""
    return lambda got: set(range(start, end)) <= set(numbers(got))
