"""NATS: the streams of JetStream and their durable consumers, through nats-py."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pydantic import AliasChoices, Field, SecretStr, model_validator

from bettong.domain.drivers import Entry, Message
from bettong.drivers import egress as reach
from bettong.drivers import streams
from bettong.drivers.server_details import Host  # noqa: TC001  # pydantic looks it up
from bettong.drivers.server_uri import beside, uri_of
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bettong.domain.drivers import Egress, StageResult
    from bettong.drivers.nats_loop import NatsConnection

KIND = "NATS"
KEY_HEADER = "Bettong-Key"
MOST_IN_FLIGHT = 100_000
_SLICE_S = 2.0  # of a wait, after each of which it is seen whether the server is still there
_REST_S = 0.2  # for what follows the first message
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_PATTERN = re.compile(r"[^\s.]+(\.[^\s.]+)*")


class NatsDetails(streams.StreamDetails):
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host",)}

    host: Host = Field(description="Name or address of a server that has JetStream.")
    port: int = Field(4222, ge=1, le=65535)
    user: str = Field("", validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    token: SecretStr = Field(SecretStr(""), description="Instead of user and password.")
    uri: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("uri", "url", "servers"),
        description="All of them in one, instead of them, like nats://user:password@host:4222; tls:// means TLS.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_uri(cls, values: Any) -> Any:
        example = "nats://user:password@host:4222"
        if (uri := uri_of(values, ("uri", "url", "servers"), ("nats", "tls"), example)) is None:
            return values
        login = {"user": uri.user, "password": uri.password} if uri.password else {"token": uri.user}
        tls = "verify" if uri.scheme == "tls" else ""
        return beside({"host": uri.host, "port": uri.port, "ssl": tls, **login}, values)


class NatsSource(streams.StreamSource):
    """A topic is a subject that a stream keeps, wildcards included where messages are read, or a stream by its name.

    A group is a durable consumer of the stream. What this member has in hand stays its own as long as it lives: the
    server is told so again and again.
    """

    def __init__(self, connection: NatsConnection, details: NatsDetails) -> None:
        self._connection, self._details = connection, details
        self._jetstream = connection.client.jetstream(timeout=connection.timeout_s)
        self._groups = streams.OneGroup()
        self._pulls: dict[str, Any] = {}
        self._given: dict[str, Any] = {}  # position -> nats-py's message
        self._patience_s: float = details.redeliver_after_s  # of the least patient consumer

    def browse(self, path: str) -> list[Entry]:
        return list(self._run(lambda: self._groups_of(path) if path else self._streams()))

    def rights(self) -> str:
        async def look() -> str:
            if not topic:
                account = await self._jetstream.account_info()
                return f"{account.streams} streams are seen; no topic is named in the details"
            stream, _ = await self._place(topic)
            return f"stream '{stream}' keeps '{topic}'"

        topic = self._details.topic
        return str(self._run(look))

    def stored(self, topic: str, limit: int | None) -> Iterator[streams.Stored]:
        stream, subject = self._run(lambda: self._place(topic))
        start, count = self._run(lambda: self._part(stream, subject, limit))
        if not count:
            return
        pull = self._run(lambda: self._reader(stream, subject, start))
        try:
            while count:
                size = min(count, streams.AT_ONCE)
                page = self._run(lambda size=size: self._pulled(pull, size, _SLICE_S), 2 * _SLICE_S)
                if not page and not self._run(lambda: self._left(pull)):
                    return  # some were deleted in the meantime
                for message in page:
                    yield streams.Stored(_message(message), int(message.metadata.timestamp.timestamp() * 1000))
                count -= len(page)
        finally:
            with suppress(BettongError):  # the server forgets it by itself
                self._run(lambda: self._forget(pull))

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        if not self._groups.joined(topic, group):
            self._pulls[topic] = self._run(lambda: self._joined(topic, group))
            self._groups.join(topic, group)
        until = time.monotonic() + wait_s
        while True:
            left = max(0.0, until - time.monotonic())
            wait = min(left, _SLICE_S)
            found = self._run(lambda wait=wait: self._pulled(self._pulls[topic], max_messages, wait), wait + _SLICE_S)
            # One that is in hand comes again only when the server heard nothing of us for too long.
            fresh = {position: message for message in found if (position := _position(message)) not in self._given}
            if fresh or left <= _SLICE_S:
                break
        self._given.update(fresh)
        return [_message(message) for message in fresh.values()]

    def commit(self, messages: Iterable[Message]) -> None:
        positions = list(dict.fromkeys(message.position for message in messages))
        for position in positions:
            if position not in self._given:
                raise streams.unknown_position(position)
        for start in range(0, len(positions), streams.AT_ONCE):
            part = positions[start : start + streams.AT_ONCE]
            self._run(lambda part=part: self._acknowledged(part))

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        if not messages:
            return
        subject = self._run(lambda: self._target(topic))
        headers = [_headers(message) for message in messages]
        for start in range(0, len(messages), streams.AT_ONCE):
            part = list(zip(messages, headers, strict=True))[start : start + streams.AT_ONCE]
            self._run(lambda part=part: self._published(subject, part))

    def lag(self, topic: str, group: str) -> int | None:
        return int(self._run(lambda: self._not_acknowledged(topic, group)))

    def close(self) -> None:
        """Hand back what was not committed, for another member to get it at once, if the server can be told."""
        with suppress(BettongError):  # else it gives it to others later, by itself
            self._run(self._handed_back)

    def stay_alive(self) -> None:
        self._connection.start(self._beat)

    def _run(self, work: Any, wait_s: float = 0.0) -> Any:
        self._connection.check()
        return self._connection.run(work, wait_s)

    async def _streams(self) -> list[Entry]:
        found: list[Any] = []
        while page := await self._jetstream.streams_info(offset=len(found)):
            found += page
        return [
            Entry(
                info.config.name, "topic", f"{info.state.messages} messages of {', '.join(info.config.subjects or ())}"
            )
            for info in found
        ]

    async def _groups_of(self, topic: str) -> list[Entry]:
        stream, _ = await self._place(topic)
        found: list[Any] = []
        while page := await self._jetstream.consumers_info(stream, offset=len(found)):
            found += page
        return [
            Entry(info.name, "group", f"{info.num_pending} to come, {info.num_ack_pending} not committed")
            for info in found
            if info.config.durable_name
        ]

    async def _place(self, topic: str) -> tuple[str, str]:
        """The stream that keeps a subject, and the subject; for a stream's own name, all its subjects. Raises
        NotFound."""
        from nats.js.errors import NotFoundError

        if _PATTERN.fullmatch(topic):
            with suppress(NotFoundError):
                return await self._jetstream.find_stream_name_by_subject(topic), topic
        if _NAME.fullmatch(topic):
            with suppress(NotFoundError):
                await self._jetstream.stream_info(topic)
                return topic, ""
        raise streams.no_topic(KIND, topic, "stream or subject")

    async def _target(self, topic: str) -> str:
        stream, subject = await self._place(topic)
        if not subject:
            subjects = list((await self._jetstream.stream_info(stream)).config.subjects or [])
            subject = subjects[0] if len(subjects) == 1 else ">"
        if not _SUBJECT.fullmatch(subject):
            raise BadInput(f"'{topic}' stands for many subjects.", "Name the one to produce to.")
        return subject

    async def _joined(self, topic: str, group: str) -> Any:
        from nats.js.api import ConsumerConfig, DeliverPolicy
        from nats.js.errors import NotFoundError

        if not _NAME.fullmatch(group):
            raise BadInput(f"'{group}' is no name of a consumer in NATS.", "Take letters, digits, '_' and '-'.")
        stream, subject = await self._place(topic)
        try:
            known = await self._jetstream.consumer_info(stream, group)
        except NotFoundError:
            policy = DeliverPolicy.ALL if self._details.start == "earliest" else DeliverPolicy.NEW
            known = await self._jetstream.add_consumer(
                stream,
                ConsumerConfig(
                    durable_name=group,
                    deliver_policy=policy,
                    ack_wait=self._details.redeliver_after_s,
                    max_ack_pending=MOST_IN_FLIGHT,
                    filter_subject=subject or None,
                ),
            )
        if known.config.deliver_subject or (known.config.filter_subject or "") != subject:
            raise BadInput(
                f"The consumer '{group}' of stream '{stream}' is there already, for something else.",
                "Take another name for the group.",
            )
        self._patience_s = min(self._patience_s, float(known.config.ack_wait or self._patience_s))
        return await self._jetstream.pull_subscribe_bind(consumer=group, stream=stream)

    async def _not_acknowledged(self, topic: str, group: str) -> int:
        from nats.js.errors import NotFoundError

        stream, subject = await self._place(topic)
        try:
            known = await self._jetstream.consumer_info(stream, group)
        except NotFoundError:
            return await self._from(stream, subject, 1) if self._details.start == "earliest" else 0
        return (known.num_pending or 0) + (known.num_ack_pending or 0)

    async def _pulled(self, pull: Any, size: int, wait_s: float) -> list[Any]:
        """What there is, at most `size`; waits for the first alone."""
        found: list[Any] = []
        with suppress(TimeoutError):
            found += await pull.fetch(1, max(wait_s, _REST_S))
            first = found[0].metadata
            # Messages that come again are not counted: ask for as many as one may.
            again = first.num_delivered > 1
            more = size - 1 if again else min(size - 1, first.num_pending)
            if more:
                found += await pull.fetch(more, _REST_S if again else _SLICE_S)
        return found

    async def _acknowledged(self, positions: Sequence[str]) -> None:
        timeout_s = self._connection.timeout_s
        await asyncio.gather(*(self._given[position].ack_sync(timeout_s) for position in positions))
        for position in positions:
            del self._given[position]

    async def _published(self, subject: str, part: Sequence[tuple[Message, Any]]) -> None:
        from nats.js.errors import NoStreamResponseError

        acks = []
        for message, headers in part:
            acks.append(await self._jetstream.publish_async(subject, message.value, headers=headers))
        try:
            async with asyncio.timeout(self._connection.timeout_s):
                await asyncio.gather(*acks)
        except NoStreamResponseError:
            raise streams.no_topic(KIND, subject, "stream or subject") from None

    async def _handed_back(self) -> None:
        for message in self._given.values():
            await message.nak()
        await self._connection.client.flush(int(self._connection.timeout_s))
        self._given.clear()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._patience_s / 3)
            for message in list(self._given.values()):
                with suppress(Exception):  # whoever consumes or commits next is told what is wrong
                    await message.in_progress()

    async def _part(self, stream: str, subject: str, limit: int | None) -> tuple[int, int]:
        """From which number on to read, and how many messages that is."""
        state = (await self._jetstream.stream_info(stream)).state
        first, last = state.first_seq, state.last_seq
        count = await self._from(stream, subject, first)
        if limit is None or count <= limit:
            return first, count
        # Where none is missing, this is it at once; else the place is looked for by halves.
        at, low, high = max(first, last - limit + 1), first, last + 1
        while high - low > 1:
            found = await self._from(stream, subject, at)
            if found == limit:
                return at, limit
            low, high = (at, high) if found > limit else (low, at)
            at = (low + high) // 2
        return high, limit

    async def _from(self, stream: str, subject: str, start: int) -> int:
        pull = await self._reader(stream, subject, start)
        count = await self._left(pull)
        await self._forget(pull)
        return count

    async def _reader(self, stream: str, subject: str, start: int) -> Any:
        """A consumer that nobody shares and that the server forgets when it is not used."""
        from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

        made = await self._jetstream.add_consumer(
            stream,
            ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                opt_start_seq=max(1, start),
                ack_policy=AckPolicy.NONE,
                filter_subject=subject or None,
                inactive_threshold=60.0,
                mem_storage=True,
            ),
        )
        return await self._jetstream.pull_subscribe_bind(consumer=made.name, stream=stream)

    async def _left(self, pull: Any) -> int:
        return int((await pull.consumer_info()).num_pending or 0)

    async def _forget(self, pull: Any) -> None:
        await self._jetstream.delete_consumer(pull._stream, pull._consumer)
        await pull.unsubscribe()


class NatsDriver:
    types: ClassVar[tuple[str, ...]] = ("NATS",)
    title: ClassVar[str] = "NATS JetStream"
    extra: ClassVar[str] = "nats"
    needs: ClassVar[tuple[str, ...]] = ("nats",)
    rebinding_safe: ClassVar[bool] = True  # it connects to addresses, and never anew
    details: ClassVar[type[NatsDetails]] = NatsDetails
    source: ClassVar[type[NatsSource]] = NatsSource

    @contextmanager
    def open(self, details: NatsDetails, egress: Egress, timeout_s: float) -> Iterator[NatsSource]:
        from bettong.drivers import web
        from bettong.drivers.nats_loop import NatsConnection

        target = reach.resolve(details.host, details.port, egress)
        token, password = details.token.get_secret_value(), details.password.get_secret_value()
        login = {"user": details.user, "password": password} if details.user else {"token": token} if token else {}
        if password and not details.user:
            raise BadInput("The details have a password and no user.", "Add the user, or give it as `token`.")
        connection = NatsConnection(
            [(address, details.port) for address in target.addresses],
            details.host,
            login,
            web.tls_context_for(details.ssl, details.ssl_ca) if details.ssl != "disable" else None,
            min(timeout_s, streams.LONGEST_WAIT_S),
        )
        try:
            source = NatsSource(connection, details)
            source.stay_alive()
            try:
                yield source
            finally:
                source.close()
        finally:
            connection.close()

    def test(self, details: NatsDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import nats_loop

        yield from streams.tested(
            [(details.host, details.port)],
            details.topic,
            egress,
            timeout_s,
            (lambda target: nats_loop.shake_hands(target, details, timeout_s)) if details.ssl != "disable" else None,
            lambda: self.open(details, egress, timeout_s),
        )


def _position(message: Any) -> str:
    return f"{message.subject}@{message.metadata.sequence.stream}"


def _message(message: Any) -> Message:
    headers = dict(message.headers or {})
    key = headers.pop(KEY_HEADER, None)
    return Message(message.data, None if key is None else unquote_to_bytes(key), _position(message), headers)


def _headers(message: Message) -> dict[str, str] | None:
    """The key as a header, with what a header cannot hold escaped as in URLs."""
    if any(c in text for text in message.headers.values() for c in "\r\n"):
        raise BadInput("A header of a message holds a line break, which NATS does not allow.", "Take it out.")
    key = {} if message.key is None else {KEY_HEADER: quote_from_bytes(message.key)}
    return {**message.headers, **key} or None
