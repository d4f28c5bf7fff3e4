"""RABBITMQ: durable queues of AMQP 0-9-1, through pika."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from bettong.domain.drivers import Entry, Message
from bettong.drivers import egress as reach
from bettong.drivers import streams
from bettong.drivers.layers import HANDSHAKE_S
from bettong.drivers.server_details import Host  # noqa: TC001  # pydantic looks it up
from bettong.drivers.server_uri import beside, uri_of
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bettong.domain.drivers import Egress, StageResult
    from bettong.drivers.amqp import AmqpConnection, Channel, Publisher
    from bettong.drivers.rabbitmq_consumer import Consumer

_PORT, _TLS_PORT = 5672, 5671
_AT_ONCE = 100  # messages of a preview, each of which is asked for and answered
_PART_BYTES = 8 * 2**20  # that wait for their confirmation together


class RabbitMqDetails(streams.StreamDetails):
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host", "user")}

    start: Literal["earliest"] = Field(
        "earliest", description="A queue gives the oldest message that nobody has taken: there is no other place."
    )
    queues: str = Field(
        "", description="Queues that browsing shows, with commas or as a list: AMQP has no way to list them."
    )
    host: Host = Field(description="Name or address of the server.")
    port: int = Field(_PORT, ge=1, le=65535, description="With TLS, 5671.")
    vhost: str = Field("/", validation_alias=AliasChoices("vhost", "virtual_host"))
    user: str = Field(validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    ssl_certificate: str = Field("", description="Ours, for servers that ask for one, as PEM text.")
    ssl_key: SecretStr = Field(SecretStr(""), description="Its key, as PEM text without a password.")
    uri: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("uri", "url"),
        description="All of them in one, instead of them, like amqp://user:password@host:5672/vhost; amqps:// is TLS.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_uri(cls, values: Any) -> Any:
        example = "amqp://user:password@host:5672/vhost"
        if (uri := uri_of(values, ("uri", "url"), ("amqp", "amqps"), example)) is not None:
            login = {"user": uri.user, "password": uri.password, "vhost": uri.path}
            tls = "verify" if uri.scheme == "amqps" else ""
            names = {"user": "username", "vhost": "virtual_host"}
            found = {name: value for name, value in login.items() if names.get(name) not in values}
            values = beside({"host": uri.host, "port": uri.port, "ssl": tls, **found}, values)
        return {"port": _PORT if values.get("ssl", "disable") == "disable" else _TLS_PORT, **values}

    @model_validator(mode="after")
    def _certificate_with_key(self) -> RabbitMqDetails:
        if bool(self.ssl_certificate) != bool(self.ssl_key.get_secret_value()):
            raise ValueError("'ssl_certificate' and 'ssl_key' go together")
        if self.ssl_certificate and self.ssl == "disable":
            raise ValueError("'ssl_certificate' needs TLS: set ssl to 'verify'")
        return self

    @field_validator("queues", mode="before")
    @classmethod
    def _queues(cls, value: Any) -> Any:
        return ",".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value

    @property
    def shown(self) -> list[str]:
        named = [name.strip() for name in [*self.queues.split(","), self.topic]]
        return list(dict.fromkeys(name for name in named if name))


class RabbitMqSource(streams.StreamSource):
    """A topic is a queue. All who consume one share its messages, whatever group they name."""

    def __init__(self, connection: AmqpConnection, details: RabbitMqDetails) -> None:
        self._connection, self._details = connection, details
        self._groups = streams.OneGroup()
        self._consumers: dict[str, Consumer] = {}
        self._publisher: Publisher | None = None

    def browse(self, path: str) -> list[Entry]:
        if path:
            ready, consumers = self._run(lambda: self._counted(path), path)
            return [Entry(path, "queue", f"{ready} messages, {consumers} consumers")]
        self._connection.check()
        if not self._details.shown:
            raise BadInput(
                "AMQP has no way to list the queues of RabbitMQ.",
                "Name those to show in `queues` of the details, or ask for one by its name.",
            )
        return [Entry(name, "topic", self._told(name)) for name in self._details.shown]

    def rights(self) -> str:
        topic = self._details.topic
        if not topic:
            return "no topic is named in the details"
        ready, consumers = self._run(lambda: self._tried(topic), topic)
        return f"{ready} messages in '{topic}', {consumers} consumers"

    def stored(self, topic: str, limit: int | None) -> Iterator[streams.Stored]:
        """The oldest ones, unlike elsewhere: what a consumer would get next. They are taken and handed back."""
        channel, left = self._run(lambda: self._opened(topic), topic)
        left = max(left, 1)  # what one may not do with it is only told when one tries
        left = left if limit is None else min(left, limit)
        try:
            while left:
                size = min(left, _AT_ONCE)
                page = self._run(lambda size=size: self._got(channel, topic, size), topic)
                yield from page
                if len(page) < size:
                    return  # others took some in the meantime
                left -= size
        finally:
            with suppress(BettongError):  # a connection that is gone hands them back, too
                self._run(channel.close, topic)

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        if not self._groups.joined(topic, group):
            self._consumers[topic] = self._run(lambda: self._joined(topic, group), topic)
            self._groups.join(topic, group)
        consumer = self._consumers[topic]
        return list(self._run(lambda: consumer.take(max_messages, wait_s), topic, wait_s))

    def commit(self, messages: Iterable[Message]) -> None:
        by_topic: dict[str, dict[str, None]] = {}
        for message in messages:
            topic = next((t for t, each in self._consumers.items() if each.knows(message.position)), None)
            if topic is None:
                raise streams.unknown_position(message.position)
            by_topic.setdefault(topic, {})[message.position] = None
        for topic, positions in by_topic.items():
            consumer = self._consumers[topic]
            self._run(lambda c=consumer, p=list(positions): c.done(p), topic)

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        """To the queue of that name, which has to be there. Raises NotFound, when it is not; Unavailable, when it takes
        no more."""
        from bettong.drivers.rabbitmq_messages import sent

        made = [sent(message) for message in messages]
        for part in _parts(made):
            returned, refused = self._run(lambda part=part: self._published(topic, part), topic)
            if returned:
                raise NotFound(
                    f"RabbitMQ has no queue '{topic}', so {returned} messages could not be routed.",
                    "Make the queue first, or name another one.",
                )
            if refused:
                raise Unavailable(
                    f"The queue '{topic}' did not take {refused} of {len(part)} messages: it is full, or cannot write.",
                    "Have somebody consume it, or look at the log of RabbitMQ.",
                )

    def lag(self, topic: str, group: str) -> int | None:
        """What members of other connections have in hand is not counted: AMQP does not tell."""
        if (consumer := self._consumers.get(topic)) is not None:
            return int(self._run(consumer.waiting, topic))
        return int(self._run(lambda: self._counted(topic), topic)[0])

    def _run(self, work: Any, queue: str, wait_s: float = 0.0) -> Any:
        self._connection.check()
        return self._connection.run(work, queue, wait_s)

    def _told(self, queue: str) -> str:
        try:
            ready, consumers = self._run(lambda: self._counted(queue), queue)
        except NotFound:
            return "is not there"
        except BadInput as refused:
            return refused.problem
        return f"{ready} messages, {consumers} consumers"

    async def _counted(self, queue: str) -> tuple[int, int]:
        channel = await self._connection.channel()
        found = await channel.queue(queue)
        await channel.close()
        return found

    async def _tried(self, queue: str) -> tuple[int, int]:
        """Take a message and hand it back: nothing less says whether one may."""
        channel = await self._connection.channel()
        found = await channel.queue(queue)
        await self._next(channel, queue)
        await channel.close()
        return found

    async def _opened(self, queue: str) -> tuple[Channel, int]:
        channel = await self._connection.channel()
        ready, _ = await channel.queue(queue)
        return channel, ready

    async def _got(self, channel: Channel, queue: str, size: int) -> list[streams.Stored]:
        from bettong.drivers.rabbitmq_messages import at_ms, message

        page: list[streams.Stored] = []
        while len(page) < size and (found := await self._next(channel, queue)):
            method, properties, body = found
            stored = message(queue, properties, body, f"{method.delivery_tag}")
            page.append(streams.Stored(stored, at_ms(properties)))
        return page

    async def _next(self, channel: Channel, queue: str) -> tuple[Any, Any, bytes] | None:
        import pika.spec

        def get(done: Any) -> None:
            channel.raw.add_callback(done, [pika.spec.Basic.GetEmpty])
            channel.raw.basic_get(queue, done)

        answer = await channel.ask(get)
        return answer[1:] if len(answer) > 1 else None

    async def _joined(self, topic: str, group: str) -> Consumer:
        from bettong.drivers.rabbitmq_consumer import Consumer

        channel = await self._connection.channel()
        await channel.queue(topic)
        return Consumer(channel, topic, group)

    async def _published(self, queue: str, part: Sequence[tuple[Any, bytes]]) -> tuple[int, int]:
        from bettong.drivers.amqp import Publisher

        publisher, self._publisher = self._publisher, None  # one that failed is not used again
        if publisher is None:
            publisher = await Publisher.on(await self._connection.channel())
        found = await publisher.publish(queue, part)
        self._publisher = publisher
        return found


class RabbitMqDriver:
    types: ClassVar[tuple[str, ...]] = ("RABBITMQ",)
    title: ClassVar[str] = "RabbitMQ"
    extra: ClassVar[str] = "rabbitmq"
    needs: ClassVar[tuple[str, ...]] = ("pika",)
    rebinding_safe: ClassVar[bool] = True  # it connects to addresses, and never anew
    details: ClassVar[type[RabbitMqDetails]] = RabbitMqDetails
    source: ClassVar[type[RabbitMqSource]] = RabbitMqSource

    @contextmanager
    def open(self, details: RabbitMqDetails, egress: Egress, timeout_s: float) -> Iterator[RabbitMqSource]:
        from bettong.drivers.amqp import AmqpConnection, Login

        target = reach.resolve(details.host, details.port, egress)
        login = Login(details.vhost, details.user, details.password.get_secret_value())
        # A server gives a client up that was silent for twice the time.
        heartbeat_s = max(1, int(details.redeliver_after_s / 2))
        wait_s = min(timeout_s, streams.LONGEST_WAIT_S)
        connection = AmqpConnection(target, login, _tls(details), heartbeat_s, wait_s)
        try:
            yield RabbitMqSource(connection, details)
        finally:
            connection.close()  # and what was not committed goes back to the queue

    def test(self, details: RabbitMqDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        def shake(target: reach.Target) -> str:
            context = _tls(details)
            assert context is not None
            return _shake_hands(target, context, timeout_s)

        yield from streams.tested(
            [(details.host, details.port)],
            details.topic,
            egress,
            timeout_s,
            shake if details.ssl != "disable" else None,
            lambda: self.open(details, egress, timeout_s),
        )


def _parts(made: Sequence[tuple[Any, bytes]]) -> Iterator[list[tuple[Any, bytes]]]:
    part: list[tuple[Any, bytes]] = []
    size = 0
    for each in made:
        part.append(each)
        size += len(each[1])
        if len(part) >= streams.AT_ONCE or size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def _tls(details: RabbitMqDetails) -> ssl.SSLContext | None:
    from bettong.drivers import web
    from bettong.drivers.client_certificate import add_client_certificate

    if details.ssl == "disable":
        return None
    context = web.tls_context_for(details.ssl, details.ssl_ca)
    if details.ssl_certificate:
        add_client_certificate(context, details.ssl_certificate, details.ssl_key.get_secret_value())
    return context


def _shake_hands(target: reach.Target, context: ssl.SSLContext, timeout_s: float) -> str:
    """TLS, up to the first answer: only with that does a server say that it wants another certificate of ours."""
    from bettong.drivers.amqp_errors import tls_ended

    stood = False
    with reach.connect(target, timeout_s) as raw:
        raw.settimeout(min(timeout_s, HANDSHAKE_S))
        try:
            with context.wrap_socket(raw, server_hostname=target.host) as wrapped:
                stood = True
                wrapped.sendall(b"AMQP\0\0\x09\x01")
                wrapped.recv(1)
                return wrapped.version() or "TLS"
        except OSError as failed:  # among them what ssl raises
            raise tls_ended(target.host, failed, stood=stood) from None
