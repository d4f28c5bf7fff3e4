"""What the drivers of streams share: messages as rows and rows as messages, details of consuming, a layered test."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import pyarrow as pa
from pydantic import Field

from bettong.domain.drivers import Message, ReadRequest, Stage, StageResult, WriteMode, WriteResult
from bettong.drivers import egress as reach
from bettong.drivers.details import Details
from bettong.drivers.layers import climb
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from bettong.domain.drivers import Egress, WriteRequest

AT_ONCE = 1_000  # messages that are asked for or sent in one go
LONGEST_WAIT_S = 10.0  # for one answer of a broker
_LAST_MS = 253_402_300_799_999  # the year 9999: what comes after is a number that somebody made up


class StreamDetails(Details):
    """How messages are consumed and shown. Where the broker is and who we are is each driver's own."""

    topic: str = Field("", description="What is read when nothing else is asked for.")
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a consumer group begins that nobody has used before."
    )
    redeliver_after_s: float = Field(
        10.0, ge=1, le=3600, description="How long after the death of a consumer another one gets what it had."
    )
    values: Literal["text", "bytes"] = Field(
        "text", description="How values are read: as text, in which what is no UTF-8 is escaped, or as they are."
    )
    ssl: Literal["disable", "require", "verify"] = Field(
        "disable", description="Whether TLS is used and the server's certificate checked."
    )
    ssl_ca: str = Field("", description="The authority of the server's certificate, as PEM text.")


@dataclass(frozen=True, slots=True)
class Stored:
    """A message that is read without a consumer group, and when the broker took it."""

    message: Message
    at_ms: int | None = None


class StreamSource:
    """Rows in and out of topics, over what a driver does with messages."""

    modes: ClassVar[frozenset[WriteMode]] = frozenset({WriteMode.APPEND})
    _details: Any

    def stored(self, topic: str, limit: int | None) -> Iterator[Stored]:
        """The last `limit` messages of the topic, or all that it has by now, oldest first. Raises NotFound."""
        raise NotImplementedError

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        raise NotImplementedError

    def lag(self, topic: str, group: str) -> int | None:
        """For brokers that cannot tell; see `domain.drivers.Measurable`."""
        return None

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """The messages of a topic: position, time, key, value, headers. With a limit, its last ones."""
        topic = request.query or self._details.topic
        if not topic:
            raise BadInput("Nothing says what to read.", "Send the name of a topic, or name one in the details.")
        if request.parameters:
            raise BadInput("A topic takes no parameters.", "Send its name alone.")
        as_text = self._details.values == "text"
        rows = _grouped(self.stored(topic, request.limit), min(request.batch_rows, AT_ONCE))
        first = next(rows, [])  # a topic that is not there is told now

        def batches() -> Iterator[pa.RecordBatch]:
            yield _batch(first, as_text)
            for group in rows:
                yield _batch(group, as_text)

        return pa.RecordBatchReader.from_batches(_schema(as_text), batches())

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> WriteResult:
        """One message of JSON per row. `keys` are the columns whose values become the message's key."""
        if request.mode is not WriteMode.APPEND:
            raise BadInput("Messages are only ever added to a topic.", "Write with mode='append'.")
        if missing := [name for name in request.keys if name not in rows.schema.names]:
            raise BadInput(
                f"The rows have no key column '{missing[0]}'.", f"They have: {', '.join(rows.schema.names)}."
            )
        count = 0
        for batch in rows:
            for start in range(0, batch.num_rows, AT_ONCE):
                part = batch.slice(start, AT_ONCE)
                self.produce(request.table, _messages(part, request.keys))
                count += part.num_rows
        return WriteResult(count)


class OneGroup:
    """Which group an open source reads each topic for: positions say nothing of the group, so it is one."""

    def __init__(self) -> None:
        self._groups: dict[str, str] = {}

    def joined(self, topic: str, group: str) -> bool:
        """Whether the topic is read for that group already. Raises BadInput when it is for another one."""
        found = self._groups.get(topic)
        if found not in (None, group):
            raise BadInput(
                f"This source reads '{topic}' for the group '{found}' already.", "Open another one for another group."
            )
        return found is not None

    def join(self, topic: str, group: str) -> None:
        self._groups[topic] = group

    def group(self, topic: str) -> str:
        return self._groups[topic]

    def items(self) -> list[tuple[str, str]]:
        return list(self._groups.items())


class Testable(Protocol):
    def rights(self) -> str:
        """What this login may do with the topic of the details. Raises a BettongError when that is nothing."""

    def read(self, request: ReadRequest) -> pa.RecordBatchReader: ...


def tested(
    servers: Sequence[tuple[str, int]],
    topic: str,
    egress: Egress,
    timeout_s: float,
    shake: Callable[[reach.Target], str] | None,
    opened: Callable[[], AbstractContextManager[Testable]],
) -> Iterator[StageResult]:
    """The layers from DNS on. `shake` tries TLS with the server that took a connection."""
    known: dict[str, Any] = {}
    with ExitStack() as stack:

        def look_up() -> str:
            known["targets"] = [reach.resolve(host, port, egress) for host, port in servers]
            return reach.counted(*known["targets"])

        def connect() -> str:
            known["target"] = first_open(known["targets"], timeout_s)
            return f"port {known['target'].port} is open"

        def log_in() -> str:
            known["source"] = stack.enter_context(opened())
            return "logged in"

        yield from climb(
            [
                (Stage.DNS, look_up),
                (Stage.TCP, connect),
                (Stage.TLS, (lambda: shake(known["target"])) if shake else None),
                (Stage.LOGIN, log_in),
                (Stage.PERMISSION, lambda: known["source"].rights()),
                (Stage.SAMPLE, lambda: _sampled(known["source"], topic)),
            ]
        )


def first_open(targets: Sequence[reach.Target], timeout_s: float) -> reach.Target:
    """The first server that takes a connection; one is enough. Raises Unavailable with the last one's reason."""
    refused: BettongError | None = None
    for target in targets:
        try:
            reach.connect(target, timeout_s / len(targets)).close()
            return target
        except Unavailable as failed:
            refused = failed
    assert refused is not None
    raise refused


def host_and_port(text: str, port: int) -> tuple[str, int]:
    """`host`, `host:port` or `[address]:port`. Raises ValueError, for a validator, that repeats nothing."""
    host, colon, digits = text.strip().rpartition(":")
    if not colon or (host.count(":") and not host.endswith("]")):
        host, digits = text.strip(), str(port)
    if not host or not digits.isdecimal() or not 0 < int(digits) < 65536:
        raise ValueError("holds something that is not like host:port")
    return host.strip("[]"), int(digits)


def no_topic(kind: str, topic: str, what: str = "topic") -> NotFound:
    return NotFound(f"{kind} has no {what} '{topic}'.", f"Browse the connection to see its {what}s, or make it first.")


def unknown_position(position: str) -> BadInput:
    return BadInput(
        f"The message at '{position}' was not given out by this source, or is committed already.",
        "Commit messages once, through the source that they came from.",
    )


def text_of(value: bytes) -> str:
    """As UTF-8, in which everything else is escaped."""
    return value.decode(errors="backslashreplace")


def _sampled(source: Testable, topic: str) -> str:
    if not topic:
        return "no topic is named in the details"
    rows = sum(batch.num_rows for batch in source.read(ReadRequest(topic, limit=1)))
    return f"{rows} message from '{topic}'"


def _schema(as_text: bool) -> pa.Schema:
    return pa.schema(
        {
            "position": pa.string(),
            "time": pa.timestamp("ms", "UTC"),
            "key": pa.string(),
            "value": pa.string() if as_text else pa.binary(),
            "headers": pa.string(),
        }
    )


def _grouped(stored: Iterable[Stored], size: int) -> Iterator[list[Stored]]:
    group: list[Stored] = []
    for one in stored:
        group.append(one)
        if len(group) >= size:
            yield group
            group = []
    if group:
        yield group


def _batch(group: Sequence[Stored], as_text: bool) -> pa.RecordBatch:
    import orjson

    columns: dict[str, Any] = {
        "position": [one.message.position for one in group],
        "time": [at if (at := one.at_ms) is not None and 0 <= at <= _LAST_MS else None for one in group],
        "key": [None if one.message.key is None else text_of(one.message.key) for one in group],
        "value": [text_of(one.message.value) if as_text else one.message.value for one in group],
        "headers": [orjson.dumps(dict(h)).decode() if (h := one.message.headers) else None for one in group],
    }
    schema = _schema(as_text)
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _messages(batch: pa.RecordBatch, keys: Sequence[str]) -> list[Message]:
    from bettong.drivers.sql_forms import json_texts

    texts = json_texts(batch.to_struct_array()).to_pylist()
    if not keys:
        return [Message(text.encode()) for text in texts]
    columns = [batch.column(name) for name in keys]
    if len(keys) == 1:
        made = [None if value is None else str(value) for value in columns[0].to_pylist()]
    else:
        made = json_texts(pa.StructArray.from_arrays(columns, names=list(keys))).to_pylist()
    return [
        Message(text.encode(), None if key is None else key.encode()) for text, key in zip(texts, made, strict=True)
    ]
