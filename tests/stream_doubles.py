"""A broker in memory that keeps the promises of real ones, and a job's work over it: streams without a process."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from bettong.domain.batch_requests import Columns
from bettong.domain.drivers import Egress, Message
from bettong.domain.stream_requests import parse
from bettong.drivers.sqlite import SqliteDriver
from bettong.engine.codec import Format, decode
from bettong.errors import BadInput, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bettong.domain.drivers import Capability

NUMBERS = pa.schema({"x": pa.float32()})
_ANSWERED: dict[str, pa.DataType] = {
    "time": pa.timestamp("ms"),
    "in.x": pa.float32(),
    "out.y": pa.float32(),
    "anomaly.count": pa.uint32(),
}
DOUBLES = pa.schema(_ANSWERED)
JOB, VERSION = "a1b2c3d4-job", "9f8e-version"
TITLES = {"source": "BROKER 'one'", "sink": "BROKER 'two'", "dead_letter": "BROKER 'three'"}


class Killed(BaseException):
    """What stands for `kill -9`: nothing catches it, and nobody cleans up."""


@dataclass
class Clock:
    """Time that passes when somebody waits."""

    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@dataclass
class Broker:
    """Topics and groups. `before` is called with the name of each call and may raise; `at_once` bounds what one consume
    gives."""

    clock: Clock = field(default_factory=Clock)
    topics: dict[str, list[Message]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    in_hand: dict[tuple[str, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    before: Callable[[str], None] = lambda call: None
    at_once: int = 10_000
    most_bytes: int = 2**20
    no_headers: frozenset[str] = frozenset()  # which names it refuses
    partial: bool = False  # whether it keeps what stands before the message that it refuses
    opened: int = 0

    def send(self, topic: str, *values: Any, **more: Any) -> None:
        """Messages of these values, as JSON unless they are bytes."""
        for value in values:
            raw = value if isinstance(value, bytes) else orjson.dumps(value)
            self.topics[topic].append(Message(raw, position=f"{topic}/0@{len(self.topics[topic])}", **more))

    def values(self, topic: str) -> list[Any]:
        return [orjson.loads(message.value) for message in self.topics[topic]]

    def left(self, topic: str, group: str) -> int:
        return len(self.topics[topic]) - len(self.committed[topic, group])

    @contextmanager
    def open(self) -> Iterator[BrokerSource]:
        self.before("open")
        self.opened += 1
        source = BrokerSource(self)
        try:
            yield source
        except Killed:  # nobody closes anything: `forget` stands for what the broker does then
            raise
        except BaseException:
            source.close()
            raise
        source.close()

    def forget(self) -> None:
        """Members that died are noticed."""
        self.in_hand.clear()


class BrokerSource:
    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._given: dict[str, tuple[str, str]] = {}

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        broker = self._broker
        broker.before("consume")
        if topic not in broker.topics:
            raise NotFound(f"There is no topic '{topic}'.", "Make it.")
        at, taken = (topic, group), broker.committed[topic, group] | broker.in_hand[topic, group]
        free = [message for message in broker.topics[topic] if message.position not in taken]
        found = free[: min(max_messages, broker.at_once)]
        for message in found:
            broker.in_hand[at].add(message.position)
            self._given[message.position] = at
        if not found:
            broker.clock.sleep(wait_s)
        return found

    def commit(self, messages: Iterable[Message]) -> None:
        self._broker.before("commit")
        for message in messages:
            at = self._given.pop(message.position)
            self._broker.committed[at].add(message.position)
            self._broker.in_hand[at].discard(message.position)

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        self._broker.before(f"produce {topic}")
        fits = [
            len(each.value) <= self._broker.most_bytes and not self._broker.no_headers & set(each.headers)
            for each in messages
        ]
        taken = len(messages) if all(fits) else fits.index(False) if self._broker.partial else 0
        for message in messages[:taken]:
            position = f"{topic}/0@{len(self._broker.topics[topic])}"
            self._broker.topics[topic].append(Message(message.value, message.key, position, message.headers))
        if not all(fits):
            raise BadInput("A message is larger than the broker takes.", "Send smaller ones.")
        self._broker.before(f"produced {topic}")

    def lag(self, topic: str, group: str) -> int | None:
        self._broker.before("lag")
        return self._broker.left(topic, group)

    def close(self) -> None:
        for position, at in self._given.items():
            self._broker.in_hand[at].discard(position)


def doubled(rows: list[float]) -> list[float]:
    return [2 * x for x in rows]


@dataclass
class StreamWork:
    """One attempt at a stream job. `model` gets the values of `x`; `infer` reads rows as a replica does.

    It is cancelled when nothing is left in the topic, or when `until` says so.
    """

    broker: Broker
    folder: Path
    request: Mapping[str, Any]
    model: Callable[[list[float]], list[float]] = doubled
    until: Callable[[], bool] | None = None
    database: Path | None = None
    attempt: int = 1
    lanes: int = 1
    most_bytes: int = 0
    position: str | None = None
    job_id: str = JOB
    lineage: Mapping[str, str] = field(default_factory=lambda: {"job_id": JOB, "pipeline_version": VERSION})
    titles: Mapping[str, str] = field(default_factory=lambda: dict(TITLES))
    renewed: int = 0  # how often the details were read again
    asked: list[pa.Table] = field(default_factory=list)
    progress: list[Mapping[str, Any]] = field(default_factory=list)
    positions: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def cancelled(self) -> bool:
        assert self.broker.clock.now_s < 100_000, "it waits forever"
        if self.until is not None:
            return self.until()
        return not self.broker.left(self.request["source"]["topic"], self.request["source"]["group"])

    @contextmanager
    def source(self, role: str, needed: Capability) -> Iterator[Any]:
        if role == "sink" and self.database is not None:
            driver, details = SqliteDriver(), SqliteDriver.details.model_validate({"path": str(self.database)})
            with driver.open(details, Egress(folders=(str(self.database.parent),)), 10) as database:
                yield database
            return
        with self.broker.open() as source:
            yield source

    def renew(self) -> None:
        self.renewed += 1

    def infer(self, rows: pa.Table) -> pa.Table:
        self.asked.append(rows)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as writer:
            writer.write_table(rows)
        keys = [rows.schema.field(name) for name in rows.column_names if name not in NUMBERS.names]
        takes = pa.schema([*NUMBERS, *keys])
        rows = decode(Format.ARROW_STREAM, sink.getvalue().to_pybytes(), takes, max_unpacked_bytes=2**20)
        values: list[Any] = rows["x"].to_pylist()
        answers = self.model(values)
        found = [[1_700_000_000_000] * len(answers), values, answers, [0] * len(answers)]
        columns = [pa.array(each, field.type) for each, field in zip(found, DOUBLES, strict=True)]
        return pa.Table.from_arrays(columns, schema=DOUBLES)

    def logs(self) -> Any:
        raise AssertionError("a stream reads no logs")

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        self.progress.append(progress)
        if position is not None:
            self.positions.append(position)

    def say(self, line: str) -> None:
        self.lines.append(line)


def stream_request(**changes: Any) -> dict[str, Any]:
    """What a job keeps of a request from `orders` to `predictions`, unless `changes` say otherwise."""
    columns = changes.pop("columns", Columns(NUMBERS, (), DOUBLES))
    asked = {
        "pipeline_id": 3,
        "pipeline_version": VERSION,
        "source": {"connection_id": "c1", "topic": "orders", "group": "g"},
        "sink": {"connection_id": "c1", "topic": "predictions"},
        **changes,
    }
    return parse(asked, columns).to_document()


def fails_at(call: str, at: int, error: BaseException) -> Callable[[str], None]:
    """For `Broker.before`: raise at the `at`-th time of this call, from 0."""
    numbers = count()

    def before(which: str) -> None:
        if which == call and next(numbers) == at:
            raise error

    return before


def away() -> Unavailable:
    return Unavailable("The broker does not answer.", "See whether it runs.")
