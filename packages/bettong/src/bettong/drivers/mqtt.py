"""MQTT: topics of a broker that speaks MQTT 5, and the places that it keeps for clients, through paho-mqtt."""

from __future__ import annotations

import hashlib
import time
import unicodedata
from collections import Counter
from contextlib import closing, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import quote_from_bytes, unquote_to_bytes
from uuid import uuid4

from pydantic import AliasChoices, Field, SecretStr, model_validator

from bettong.domain.drivers import Entry, Message
from bettong.drivers import egress as reach
from bettong.drivers import streams
from bettong.drivers.server_details import Host  # noqa: TC001  # pydantic looks it up
from bettong.drivers.server_uri import beside, uri_of
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bettong.domain.drivers import Egress, StageResult
    from bettong.drivers.mqtt_connection import Arrived, MqttConnection, Way

KIND = "MQTT"
KEY_HEADER = "Bettong-Key"
MOST_BROWSED = 10_000
_ALL = 2**31
_PORT, _TLS_PORT = 1883, 8883
_LONGEST_TEXT = 65_535  # bytes of a topic, or of a header's name or value
_MOST_BYTES = 268_435_455  # of a packet, whatever the broker
_ENVELOPE = 64  # bytes that a packet has beside topic, value and headers, at most


class MqttDetails(streams.StreamDetails):
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host",)}

    topic: str = Field("", description="What is looked at when nothing else is asked for; + and # are wildcards.")
    start: Literal["earliest", "latest"] = Field(
        "earliest",
        description="Whether a consumer group that nobody has used before gets what its topics retain, too.",
    )
    redeliver_after_s: float = Field(
        10.0, ge=1, le=3600, description="After how long the broker counts a consumer as gone that died without a word."
    )
    host: Host = Field(description="Name or address of a broker that speaks MQTT 5.")
    port: int = Field(_PORT, ge=1, le=65535)
    user: str = Field("", validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    ssl_certificate: str = Field("", description="Ours, for brokers that ask for one, as PEM text.")
    ssl_key: SecretStr = Field(SecretStr(""), description="Its key, as PEM text without a password.")
    client_id_prefix: str = Field(
        "bettong",
        min_length=1,
        max_length=200,
        description="What the names begin with that clients have at the broker.",
    )
    shared: bool = Field(
        False, description="Whether a group has several consumers, each with a client_id_prefix of its own."
    )
    session_expiry_s: int = Field(
        604_800,
        ge=1,
        le=2**32 - 2,
        description="How long the broker keeps what comes for a group that nobody consumes.",
    )
    prefetch: int = Field(
        500,
        ge=1,
        le=65_535,
        description="How many messages a consumer has that are not committed: fewer for large ones.",
    )
    retain: bool = Field(False, description="Whether the broker keeps the last message of each topic produced to.")
    unheard: Literal["pass", "refuse"] = Field(
        "pass", description="Whether a message is refused that the broker says it gave to nobody."
    )
    listen_s: float = Field(2.0, gt=0, le=15, description="For how long reading and browsing listen.")
    uri: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("uri", "url"),
        description="All of them in one, instead of them, like mqtt://user:password@host:1883; mqtts:// means TLS.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_uri(cls, values: Any) -> Any:
        example = "mqtt://user:password@host:1883"
        if (uri := uri_of(values, ("uri", "url"), ("mqtt", "mqtts"), example)) is None:
            return values
        tls = {"ssl": "verify", "port": uri.port or _TLS_PORT} if uri.scheme == "mqtts" else {"port": uri.port}
        return beside({"host": uri.host, "user": uri.user, "password": uri.password, **tls}, values)

    @model_validator(mode="after")
    def _certificate_with_key(self) -> MqttDetails:
        if bool(self.ssl_certificate) != bool(self.ssl_key.get_secret_value()):
            raise ValueError("'ssl_certificate' and 'ssl_key' go together")
        if self.ssl_certificate and self.ssl == "disable":
            raise ValueError("'ssl_certificate' needs TLS: set ssl to 'verify'")
        return self


class MqttSource(streams.StreamSource):
    """A topic is one to produce to, and a filter of topics to consume, read and browse.

    A group is a client whose place the broker keeps: what comes while nobody consumes waits there. So a group gets what
    comes after its first consumer, and has one consumer at a time, unless they share.
    """

    def __init__(self, way: Way, details: MqttDetails) -> None:
        self._way, self._details = way, details
        self._connection = self._connected()
        self._groups = streams.OneGroup()
        self._members: dict[str, _Member] = {}
        self._produced_to: set[str] = set()

    def browse(self, path: str) -> list[Entry]:
        """Topics that retain a message or have one while we listen; below a topic, those that retain one."""
        listening = not path or "+" in path or "#" in path
        topics = _filter(path if listening and path else f"{path}/#" if path else "#")
        retained, counts = set[str](), Counter[str]()
        for each in self._heard(topics, self._details.listen_s if listening else 0.0):
            if each.retained:
                retained.add(each.topic)
            else:
                counts[each.topic] += 1
            if len(retained | counts.keys()) >= MOST_BROWSED:
                break
        return [
            Entry(name, "topic", _seen(name in retained, counts[name])) for name in sorted(retained | counts.keys())
        ]

    def rights(self) -> str:
        topic = self._details.topic
        if not topic:
            self._connection.settle()
            return "no topic is named in the details"
        with closing(self._connected()) as connection:
            connection.subscribe(_filter(topic), acknowledged=True, retained=False)
        return f"may subscribe to '{topic}'"

    def stored(self, topic: str, limit: int | None) -> Iterator[streams.Stored]:
        """What the topics retain and what comes while we listen: a broker of MQTT keeps nothing else to be read."""
        if limit is None:
            raise BadInput(
                "A broker of MQTT keeps no messages that could be read back.",
                "Preview it, or give a limit, to see what comes; consume it in a group to have all.",
            )
        topics = _filter(topic)
        if limit > 0:
            for each in islice(self._heard(topics, self._details.listen_s), limit):
                yield streams.Stored(_message(each, each.topic), None if each.retained else each.at_ms)

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        if not self._groups.joined(topic, group):
            self._members[topic] = self._joined(topic, group)
            self._groups.join(topic, group)
        with self._place_kept():
            return self._members[topic].take(max_messages, wait_s)

    def commit(self, messages: Iterable[Message]) -> None:
        positions = list(dict.fromkeys(message.position for message in messages))
        owners = {position: self._owner(position) for position in positions}
        for member in self._members.values():
            if mine := [position for position in positions if owners[position] is member]:
                with self._place_kept():
                    member.commit(mine)

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        from bettong.drivers.mqtt_connection import NOBODY_LISTENS, refusal_of

        name, most = _name(topic), self._connection.most_bytes
        pairs = [(message.value, _headers(message)) for message in messages]
        if any(_size(name, *pair) > (most or _MOST_BYTES) for pair in pairs):
            raise BadInput("A message is longer than this broker of MQTT takes.", "Send less, or raise its limit.")
        while pairs:
            # Some brokers hang up on whoever they refuse something, before their answer is read: the first goes alone.
            size = streams.AT_ONCE if name in self._produced_to else 1
            codes = self._published(name, pairs[:size])
            if (refused := refusal_of(codes)) is not None:
                raise refused
            if self._details.unheard == "refuse" and not self._details.retain and NOBODY_LISTENS in codes:
                raise BadInput(
                    f"Nobody is subscribed to '{topic}', and a broker of MQTT keeps nothing for those who come later.",
                    "Start its consumers first, or set unheard to 'pass'.",
                )
            self._produced_to.add(name)
            pairs = pairs[size:]

    def close(self) -> None:
        """Leave. What was not committed comes again to the next consumer of its group."""
        for member in self._members.values():
            member.close()
        self._connection.close()

    def _connected(self, client_id: str = "", **more: int) -> MqttConnection:
        from bettong.drivers.mqtt_connection import MqttConnection

        return MqttConnection(self._way, client_id or f"{self._details.client_id_prefix}{uuid4().hex[:16]}", **more)

    def _heard(self, topics: str, listen_s: float) -> Iterator[Arrived]:
        """What is retained, then what comes within the time."""
        until = time.monotonic() + listen_s
        with closing(self._connected()) as connection:
            connection.subscribe(topics, acknowledged=False, retained=True)
            connection.settle()  # what is retained comes before the answer
            yield from connection.take(_ALL, 0.0)
            while (left_s := until - time.monotonic()) > 0:
                yield from connection.take(streams.AT_ONCE, left_s)

    def _joined(self, topic: str, group: str) -> _Member:
        details, filtered = self._details, _filter(topic)
        place = _digest(group, filtered, str(details.shared))
        connection = self._connected(
            f"{details.client_id_prefix}{place}", kept_s=details.session_expiry_s, window=details.prefetch
        )
        try:
            if connection.kept_s == 0:
                raise BadInput("This broker of MQTT keeps nothing for clients that are away.", "Let it keep sessions.")
            connection.subscribe(
                f"$share/{_digest(group)}/{filtered}" if details.shared else filtered,
                acknowledged=True,
                retained=details.start == "earliest" and not details.shared,
            )
        except BaseException:
            connection.close()
            raise
        return _Member(connection, _digest(details.client_id_prefix, place)[:4])

    @contextmanager
    def _place_kept(self) -> Iterator[None]:
        """Not every broker says why it ends a connection. Where it ended this one alone, say what may be why."""
        try:
            yield
            return
        except Unavailable:
            self._connection.settle()  # raises when the broker is gone
        raise Unavailable(
            "The broker of MQTT ended this consumer's connection and no other: perhaps another one has its place.",
            "Stop one of them, name another group, or let several share one: docs/drivers.md, MQTT.",
        )

    def _owner(self, position: str) -> _Member:
        for member in self._members.values():
            if position in member.given:
                return member
        raise streams.unknown_position(position)

    def _published(self, topic: str, pairs: Sequence[tuple[bytes, Sequence[tuple[str, str]]]]) -> list[int]:
        from bettong.drivers.mqtt_connection import properties_of

        made = [(value, properties_of(headers)) for value, headers in pairs]
        return self._connection.publish(topic, made, retain=self._details.retain)


class _Member:
    """A consumer of a group: what it was given and has not committed."""

    def __init__(self, connection: MqttConnection, mark: str) -> None:
        self._connection, self._mark = connection, mark
        self.given: dict[str, int | None] = {}  # position -> packet

    def take(self, most: int, wait_s: float) -> list[Message]:
        messages = []
        for each in self._connection.take(most, wait_s):
            # Packets are numbered anew, sooner or later: what was in them belongs to their name.
            seal = _digest(each.topic, repr(each.properties), each.value)[:8]
            place = f"{self._mark}.{each.packet}.{seal}" if each.packet is not None else uuid4().hex
            message = _message(each, f"{each.topic}@{place}")
            self.given[message.position] = each.packet
            messages.append(message)
        return messages

    def commit(self, positions: Sequence[str]) -> None:
        packets = [packet for position in positions if (packet := self.given[position]) is not None]
        if packets:
            self._connection.acknowledge(packets)
        for position in positions:
            del self.given[position]

    def close(self) -> None:
        self._connection.close()


class MqttDriver:
    types: ClassVar[tuple[str, ...]] = ("MQTT",)
    title: ClassVar[str] = "MQTT 5"
    extra: ClassVar[str] = "mqtt"
    needs: ClassVar[tuple[str, ...]] = ("paho.mqtt",)
    rebinding_safe: ClassVar[bool] = True  # the socket is ours
    details: ClassVar[type[MqttDetails]] = MqttDetails
    source: ClassVar[type[MqttSource]] = MqttSource

    @contextmanager
    def open(self, details: MqttDetails, egress: Egress, timeout_s: float) -> Iterator[MqttSource]:
        from bettong.drivers.mqtt_connection import Way

        way = Way(
            reach.resolve(details.host, details.port, egress),
            _tls(details) if details.ssl != "disable" else None,
            details.user,
            details.password.get_secret_value(),
            max(1, int(details.redeliver_after_s / 1.5)),  # brokers wait half as long again
            min(timeout_s, streams.LONGEST_WAIT_S),
        )
        source = MqttSource(way, details)
        try:
            yield source
        finally:
            source.close()

    def test(self, details: MqttDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        yield from streams.tested(
            [(details.host, details.port)],
            details.topic,
            egress,
            timeout_s,
            (lambda target: web.shake_hands(target, _tls(details), timeout_s)) if details.ssl != "disable" else None,
            lambda: self.open(details, egress, timeout_s),
        )


def _tls(details: MqttDetails) -> Any:
    from bettong.drivers import web
    from bettong.drivers.client_certificate import add_client_certificate

    context = web.tls_context_for(details.ssl, details.ssl_ca)
    if details.ssl_certificate:
        add_client_certificate(context, details.ssl_certificate, details.ssl_key.get_secret_value())
    return context


def _digest(*parts: str | bytes) -> str:
    """16 hexadecimal digits: with the usual prefix a name that every broker takes, of 23 letters and digits."""
    made = hashlib.blake2b(digest_size=8)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        made.update(len(data).to_bytes(8, "big") + data)
    return made.hexdigest()


def _seen(retained: bool, count: int) -> str:
    came = f"{count} messages came" if count else ""
    return ", ".join(filter(None, ["retained" if retained else "", came]))


def _filter(topics: str) -> str:
    """Raises BadInput for what is no filter of topics."""
    levels = topics.split("/")
    wrong = any("+" in level and level != "+" for level in levels) or any("#" in level for level in levels[:-1])
    if wrong or ("#" in levels[-1] and levels[-1] != "#") or not _sendable(topics):
        raise BadInput(
            f"'{topics}' is no topic or filter of topics in MQTT.",
            "Write it like sensors/hall/temperature, sensors/+/temperature or sensors/#.",
        )
    return topics


def _name(topic: str) -> str:
    """Raises BadInput for what is no name of one topic."""
    if not _sendable(topic) or "+" in topic or "#" in topic:
        raise BadInput(f"'{topic}' is no name of a topic in MQTT.", "Name one topic, without + and #.")
    return topic


def _sendable(text: str) -> bool:
    """Brokers may hang up on whoever sends control characters, or what Unicode has set aside."""
    if any(unicodedata.category(c) in ("Cc", "Cs") or _set_aside(ord(c)) for c in text):
        return False
    return 0 < len(text.encode()) <= _LONGEST_TEXT


def _set_aside(point: int) -> bool:
    return 0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE


def _message(arrived: Arrived, position: str) -> Message:
    """Of a header that stands there twice the last one counts."""
    headers = dict(arrived.properties)
    key = headers.pop(KEY_HEADER, None)
    made = None if key is None else unquote_to_bytes(key)
    return Message(arrived.value, made, position, headers, new=not arrived.again)


def _headers(message: Message) -> list[tuple[str, str]]:
    """The key as a header, with what a text cannot hold escaped as in URLs."""
    key = [] if message.key is None else [(KEY_HEADER, quote_from_bytes(message.key))]
    made = [*message.headers.items(), *key]
    if any(text and not _sendable(text) for pair in made for text in pair):
        raise BadInput(
            f"A header of a message is longer than {_LONGEST_TEXT} bytes, or holds what MQTT does not allow.",
            "Shorten it, or take line breaks and other control characters out.",
        )
    return made


def _size(topic: str, value: bytes, headers: Sequence[tuple[str, str]]) -> int:
    texts = sum(5 + len(name.encode()) + len(text.encode()) for name, text in headers)
    return _ENVELOPE + len(topic.encode()) + len(value) + texts
