"""KAFKA: topics and consumer groups, through confluent-kafka."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from bettong.domain.drivers import Entry, Message
from bettong.drivers import egress as reach
from bettong.drivers import sql_errors, streams
from bettong.drivers.kafka_errors import KIND, Watch, in_our_words, translated
from bettong.errors import BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from bettong.domain.drivers import Egress, StageResult
    from bettong.drivers.kafka_group import Member

MOST_COUNTED = 500  # partitions whose messages are counted for browsing
_PORT = 9092
_PROBE_S = 3.0  # for any sign of a broker, when none was there a moment ago
_LOOK_S = 0.5  # after which it is seen whether a login was refused
_LONGEST_WORK_S = 3600  # between two calls of consume; then the group takes a member for dead
_TLS = {"SSL": "verify", "SASL_SSL": "verify", "PLAINTEXT": "disable", "SASL_PLAINTEXT": "disable"}


class KafkaDetails(streams.StreamDetails):
    also_known: ClassVar[frozenset[str]] = frozenset({"security.protocol", "security_protocol"})

    redeliver_after_s: float = Field(
        10.0, ge=6, le=1800, description="How long after the death of a consumer another one gets what it had."
    )
    servers: str = Field(
        validation_alias=AliasChoices("servers", "bootstrap_servers", "bootstrap.servers", "brokers"),
        description="One or more brokers as host:port, with commas or as a list.",
    )
    user: str = Field("", validation_alias=AliasChoices("user", "username", "sasl_username", "sasl.username"))
    password: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("password", "sasl_password", "sasl.password")
    )
    sasl: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "PLAIN",
        validation_alias=AliasChoices("sasl", "sasl_mechanism", "sasl.mechanism", "sasl.mechanisms"),
        description="How user and password are proved.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_protocol(cls, values: Any) -> Any:
        """`security.protocol`, as Kafka's own clients have it, says whether there is TLS."""
        protocol = next((v for name in ("security.protocol", "security_protocol") if (v := values.get(name))), None)
        if isinstance(protocol, str) and protocol.upper() in _TLS:
            return {"ssl": _TLS[protocol.upper()], **values}
        return values

    @field_validator("servers", mode="before")
    @classmethod
    def _servers(cls, value: Any) -> Any:
        listed = ",".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value
        if isinstance(listed, str):
            return ",".join(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                for host, port in (streams.host_and_port(part, _PORT) for part in listed.split(","))
            )
        return listed

    @property
    def brokers(self) -> list[tuple[str, int]]:
        return [streams.host_and_port(part, _PORT) for part in self.servers.split(",")]


class KafkaSource(streams.StreamSource):
    """One producer, and a consumer for each topic that is consumed. Places are committed per partition."""

    def __init__(
        self, producer: Any, watch: Watch, configuration: Mapping[str, Any], details: KafkaDetails, timeout_s: float
    ) -> None:
        self._producer, self._watch, self._configuration = producer, watch, configuration
        self._details, self._timeout_s = details, timeout_s
        self._groups = streams.OneGroup()
        self._members: dict[str, Member] = {}

    def browse(self, path: str) -> list[Entry]:
        with self._reader() as reader:
            if path:
                spans = self._spans(reader, path)
                return [Entry(str(p), "partition", f"{high - low} messages") for p, (low, high) in spans.items()]
            topics = {name: len(t.partitions) for name, t in self._topics().items() if not name.startswith("__")}
            entries, left = [], MOST_COUNTED
            for name, partitions in sorted(topics.items()):
                left -= partitions
                said = f"{partitions} partitions"
                if left >= 0:
                    said = f"{sum(h - low for low, h in self._spans(reader, name).values())} messages in {said}"
                entries.append(Entry(name, "topic", said))
            return entries

    def rights(self) -> str:
        topic = self._details.topic
        if not topic:
            return f"{len(self._topics())} topics are seen; no topic is named in the details"
        with self._reader() as reader:
            spans = self._spans(reader, topic)
        return f"{sum(high - low for low, high in spans.values())} messages in '{topic}'"

    def stored(self, topic: str, limit: int | None) -> Iterator[streams.Stored]:
        with self._reader() as reader:
            spans = {p: span for p, span in self._spans(reader, topic).items() if span[0] < span[1]}
            if limit is None:
                yield from self._read(reader, topic, spans)
                return
            last: dict[str, deque[streams.Stored]] = defaultdict(lambda: deque(maxlen=limit))
            if limit:
                ends = {p: (max(low, high - limit), high) for p, (low, high) in spans.items()}
                for one in self._read(reader, topic, ends):
                    last[one.message.position.rpartition("@")[0]].append(one)
            # The sort keeps the order within a partition.
            found = sorted((one for part in last.values() for one in part), key=lambda one: one.at_ms or 0)
            yield from found[max(0, len(found) - limit) :]

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        from bettong.drivers.kafka_group import Member

        if not self._groups.joined(topic, group):
            self._known(topic)
            timeout_ms = int(self._details.redeliver_after_s * 1000)
            more = {
                "session.timeout.ms": timeout_ms,
                "heartbeat.interval.ms": timeout_ms // 4,
                "max.poll.interval.ms": _LONGEST_WORK_S * 1000,
                "auto.offset.reset": self._details.start,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
            }
            configuration = {**self._configuration, **more}
            self._members[topic] = Member(
                configuration, topic, group, self._watch, lambda: self._topics(_PROBE_S), self._timeout_s
            )
            self._groups.join(topic, group)
        return [_message(message) for message in self._members[topic].consume(max_messages, wait_s)]

    def commit(self, messages: Iterable[Message]) -> None:
        by_topic: dict[str, list[tuple[int, int]]] = {}
        for message in messages:
            topic, partition, offset = _place(message.position)
            if topic not in self._members:
                raise streams.unknown_position(message.position)
            by_topic.setdefault(topic, []).append((partition, offset))
        for topic, places in by_topic.items():
            self._members[topic].commit(places)

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        if not messages:
            return
        self._known(topic)
        refused: list[Any] = []

        def answered(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(error)

        until = time.monotonic() + self._timeout_s + 1.0  # the library gives up before we do
        with in_our_words():
            for message in messages:
                self._hand_over(topic, message, answered, until)
            left = self._producer.flush(max(0.1, until - time.monotonic()))
        if refused:
            raise translated(refused[0])
        if left:
            self._producer.purge()
            raise sql_errors.broken(KIND)

    def lag(self, topic: str, group: str) -> int | None:
        """Of all partitions, whoever reads them. Offsets without a message, as of transactions, count as one."""
        import confluent_kafka

        with self._reader(group) as reader:
            spans = self._spans(reader, topic)
            places = [confluent_kafka.TopicPartition(topic, partition) for partition in spans]
            with in_our_words():
                places = reader.committed(places, self._timeout_s)
        if refused := next((place.error for place in places if place.error is not None), None):
            raise translated(refused)
        kept = {place.partition: place.offset for place in places}
        waits = 0
        for partition, (low, high) in spans.items():
            begins = low if self._details.start == "earliest" else high
            at = kept[partition] if kept[partition] >= 0 else begins
            waits += max(0, high - max(at, low))  # what the broker has deleted comes to nobody
        return waits

    def close(self) -> None:
        for member in self._members.values():
            with suppress(BettongError):  # the group takes it for dead, later
                member.close()
        self._producer.purge()

    def _hand_over(self, topic: str, message: Message, answered: Any, until: float) -> None:
        headers = [(name, text.encode()) for name, text in message.headers.items()]
        while True:
            try:
                self._producer.produce(
                    topic, value=message.value, key=message.key, headers=headers, on_delivery=answered
                )
                return
            except BufferError:  # too much is on its way
                if time.monotonic() > until:
                    raise sql_errors.broken(KIND) from None
                self._producer.poll(0.1)

    def _topics(self, timeout_s: float | None = None) -> Mapping[str, Any]:
        """What there is, as told without asking for a name: that would make the topic in some clusters."""
        with in_our_words():
            topics: Mapping[str, Any] = self._producer.list_topics(timeout=timeout_s or self._timeout_s).topics
        return topics

    def _known(self, topic: str) -> Any:
        found = self._topics().get(topic)
        if found is None:
            raise streams.no_topic(KIND, topic)
        if found.error is not None:
            raise translated(found.error)
        return found

    @contextmanager
    def _reader(self, group: str = "bettong") -> Iterator[Any]:
        """A consumer that joins no group; it may ask for the places of `group`."""
        import confluent_kafka

        from bettong.drivers.kafka_group import within

        more = {"group.id": group, "enable.auto.commit": False, "enable.partition.eof": True}
        with in_our_words():
            reader = confluent_kafka.Consumer({**self._configuration, **more, "auto.offset.reset": "earliest"})
        try:
            yield reader
        finally:
            with suppress(Unavailable):
                within(self._timeout_s, reader.close)

    def _spans(self, reader: Any, topic: str) -> dict[int, tuple[int, int]]:
        """Of each partition the offset of its first message and the one after its last."""
        import confluent_kafka

        partitions = sorted(self._known(topic).partitions)
        with in_our_words():
            return {
                p: reader.get_watermark_offsets(confluent_kafka.TopicPartition(topic, p), timeout=self._timeout_s)
                for p in partitions
            }

    def _read(self, reader: Any, topic: str, spans: Mapping[int, tuple[int, int]]) -> Iterator[streams.Stored]:
        import confluent_kafka

        left = set(spans)
        ends: dict[int, int] = {}
        with in_our_words():
            reader.assign([confluent_kafka.TopicPartition(topic, p, start) for p, (start, _) in spans.items()])
        heard = time.monotonic()
        while left:
            with in_our_words():
                first = reader.poll(_LOOK_S)
                found = [first, *reader.consume(streams.AT_ONCE, 0.0)] if first is not None else []
            if not found and time.monotonic() - heard > self._timeout_s:
                raise sql_errors.broken(KIND)
            for message in found:
                heard = time.monotonic()
                partition, error = message.partition(), message.error()
                if error is not None and error.name() != "_PARTITION_EOF":
                    raise translated(error)
                if partition not in left:
                    continue
                if partition not in ends:  # told anew with the first messages
                    place = confluent_kafka.TopicPartition(topic, partition)
                    ends[partition] = max(spans[partition][1], reader.get_watermark_offsets(place, cached=True)[1])
                if error is None and message.offset() < ends[partition]:
                    kind, at = message.timestamp()
                    yield streams.Stored(_message(message), at if kind else None)
                if error is not None or message.offset() >= ends[partition] - 1:
                    left.discard(partition)


class KafkaDriver:
    types: ClassVar[tuple[str, ...]] = ("KAFKA",)
    title: ClassVar[str] = "Kafka"
    extra: ClassVar[str] = "kafka"
    needs: ClassVar[tuple[str, ...]] = ("confluent_kafka",)
    rebinding_safe: ClassVar[bool] = False  # the library resolves names, and brokers name each other
    details: ClassVar[type[KafkaDetails]] = KafkaDetails
    source: ClassVar[type[KafkaSource]] = KafkaSource

    @contextmanager
    def open(self, details: KafkaDetails, egress: Egress, timeout_s: float) -> Iterator[KafkaSource]:
        for host, port in details.brokers:
            reach.resolve(host, port, egress)
        wait_s = min(timeout_s, streams.LONGEST_WAIT_S)
        watch = Watch()
        configuration = _configuration(details, watch, wait_s)
        producer = _logged_in(configuration, watch, egress, wait_s)
        source = KafkaSource(producer, watch, configuration, details, wait_s)
        try:
            yield source
        finally:
            source.close()

    def test(self, details: KafkaDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        def shake(target: reach.Target) -> str:
            return web.shake_hands(target, web.tls_context_for(details.ssl, details.ssl_ca), timeout_s)

        yield from streams.tested(
            details.brokers,
            details.topic,
            egress,
            timeout_s,
            shake if details.ssl != "disable" else None,
            lambda: self.open(details, egress, timeout_s),
        )


def _configuration(details: KafkaDetails, watch: Watch, wait_s: float) -> dict[str, Any]:
    """What producers and consumers share. The library's log is nobody's to see."""
    quiet = logging.Logger("bettong.kafka")
    quiet.addHandler(logging.NullHandler())
    found: dict[str, Any] = {
        "bootstrap.servers": details.servers,
        "client.id": "bettong",
        "socket.timeout.ms": int(wait_s * 1000),
        "socket.connection.setup.timeout.ms": max(1000, int(wait_s * 1000)),
        "error_cb": watch,
        "logger": quiet,
        "log_level": 0,  # what is said when a client ends has no logger any more
    }
    secure, login = details.ssl != "disable", bool(details.user)
    found["security.protocol"] = f"{'sasl_' if login else ''}{'ssl' if secure else 'plaintext'}"
    if login:
        found |= {
            "sasl.mechanism": details.sasl,
            "sasl.username": details.user,
            "sasl.password": details.password.get_secret_value(),
        }
    if secure:
        import certifi

        verify = details.ssl == "verify"
        found["enable.ssl.certificate.verification"] = verify
        found["ssl.endpoint.identification.algorithm"] = "https" if verify else "none"
        found |= {"ssl.ca.pem": details.ssl_ca} if details.ssl_ca else {"ssl.ca.location": certifi.where()}
    return found


def _logged_in(configuration: Mapping[str, Any], watch: Watch, egress: Egress, wait_s: float) -> Any:
    """A producer that has seen the cluster. The addresses that brokers give of themselves are checked, too."""
    import confluent_kafka

    more = {
        "acks": "all",
        "enable.idempotence": True,  # what is sent twice is kept once, in its order
        "message.timeout.ms": int(wait_s * 1000),
        "linger.ms": 5,
    }
    with in_our_words():
        producer = confluent_kafka.Producer({**configuration, **more})
    until = time.monotonic() + wait_s
    while True:
        try:
            brokers = producer.list_topics(timeout=_LOOK_S).brokers
            break
        except confluent_kafka.KafkaException:
            producer.poll(0)  # which is when the watch is told
            if watch.refused is not None:
                raise watch.refused from None
            if time.monotonic() > until:
                raise Unavailable(
                    "No broker of Kafka answers.", "Check servers, ssl and sasl in the details, and that it runs."
                ) from None
    watch.down = False
    for broker in brokers.values():
        reach.resolve(broker.host, broker.port, egress)
    return producer


def _place(position: str) -> tuple[str, int, int]:
    """Topic, partition and offset."""
    path, _, offset = position.rpartition("@")
    topic, _, partition = path.rpartition("/")
    if not (partition.isdecimal() and offset.isdecimal()):
        raise streams.unknown_position(position)
    return topic, int(partition), int(offset)


def _message(message: Any) -> Message:
    headers = {name: streams.text_of(value or b"") for name, value in message.headers() or ()}
    position = f"{message.topic()}/{message.partition()}@{message.offset()}"
    return Message(message.value() or b"", message.key(), position, headers)
