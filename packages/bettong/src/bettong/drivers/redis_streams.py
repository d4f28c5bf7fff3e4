"""REDIS: streams and their consumer groups, through redis-py."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from pydantic import AliasChoices, Field, SecretStr, model_validator

from bettong.domain.drivers import Entry, Message
from bettong.drivers import egress as reach
from bettong.drivers import sql_errors, streams
from bettong.drivers.server_details import Host  # noqa: TC001  # pydantic looks it up
from bettong.drivers.server_uri import beside, uri_of
from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from bettong.domain.drivers import Egress, StageResult

KIND = "Redis"
MOST_BROWSED = 10_000
_BLOCK_S = 2.0  # well below the wait for an answer
_LONG_AGO_MS = 30 * 86_400_000
_VALUE, _KEY = "value", "key"  # the fields of an entry that are a message's value and key; others are its headers


class RedisDetails(streams.StreamDetails):
    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = {"uri": ("host",)}

    host: Host = Field(description="Name or address of the server, which has streams from version 6.2 on.")
    port: int = Field(6379, ge=1, le=65535)
    user: str = Field("", validation_alias=AliasChoices("user", "username"))
    password: SecretStr = SecretStr("")
    database: int = Field(0, ge=0, validation_alias=AliasChoices("database", "db"))
    max_length: int = Field(
        0, ge=0, description="About how many messages a stream keeps that is produced to: 0 means all."
    )
    uri: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("uri", "url"),
        description="All of them in one, instead of them, like redis://user:password@host:6379/0; rediss:// means TLS.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_uri(cls, values: Any) -> Any:
        example = "redis://user:password@host:6379/0"
        if (uri := uri_of(values, ("uri", "url"), ("redis", "rediss"), example)) is None:
            return values
        tls = "verify" if uri.scheme == "rediss" else ""
        login = {"user": uri.user, "password": uri.password}
        return beside({"host": uri.host, "port": uri.port, **login, "database": uri.path, "ssl": tls}, values)


class RedisSource(streams.StreamSource):
    """A member of consumer groups under a name of its own that is never used again.

    What it gave out stays its own as long as it lives: a thread tells so. When it closes, the rest goes to the other
    members at once; when it dies, after `redeliver_after_s`.
    """

    def __init__(self, client: Any, details: RedisDetails) -> None:
        self._client, self._details = client, details
        self._name = f"bettong-{uuid4().hex}"
        self._groups = streams.OneGroup()
        self._given: dict[str, tuple[str, bytes]] = {}  # position -> topic and id
        self._claim_at: dict[str, float] = {}  # when to look for what dead members had
        self._ended = threading.Event()
        self._beat: threading.Thread | None = None

    def browse(self, path: str) -> list[Entry]:
        with _failed():
            if path:
                self._check(path)
                return [
                    Entry(group["name"].decode(errors="replace"), "group", f"{group['pending']} not committed")
                    for group in self._client.xinfo_groups(path)
                ]
            names = []
            for name in self._client.scan_iter(count=1_000, _type="stream"):
                names.append(name)
                if len(names) == MOST_BROWSED:
                    break
            names = sorted(set(names))
            pipeline = self._client.pipeline(transaction=False)
            for name in names:
                pipeline.xlen(name)
            counts = pipeline.execute()
        return [
            Entry(streams.text_of(name), "topic", f"{count} messages")
            for name, count in zip(names, counts, strict=True)
        ]

    def rights(self) -> str:
        with _failed():
            if not self._details.topic:
                self._client.ping()
                return "no topic is named in the details"
            self._check(self._details.topic)
            return f"{self._client.xlen(self._details.topic)} messages in '{self._details.topic}'"

    def stored(self, topic: str, limit: int | None) -> Iterator[streams.Stored]:
        with _failed():
            self._check(topic)
            newest = self._client.xrevrange(topic, count=1)
            start = b"-" if limit is None else self._start(topic, limit)
        if not newest or start is None:
            return
        while True:
            with _failed():
                page = self._client.xrange(topic, start, newest[0][0], count=streams.AT_ONCE)
            for number, fields in page:
                yield streams.Stored(_message(topic, number, fields), int(number.partition(b"-")[0]))
            if len(page) < streams.AT_ONCE:
                return
            start = b"(" + page[-1][0]

    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        until = time.monotonic() + wait_s
        with _failed():
            self._join(topic, group)
            while True:
                now = time.monotonic()
                found = self._claimed(topic, group, max_messages) if now >= self._claim_at[topic] else []
                if not found:
                    # What waits for an answer is cut short when it is time to look for dead members again.
                    left = min(until, self._claim_at[topic]) - now
                    block = int(max(0.0, min(left, _BLOCK_S)) * 1000) or None
                    answer = self._client.xreadgroup(group, self._name, {topic: ">"}, count=max_messages, block=block)
                    found = answer[0][1] if answer else []
                if found or time.monotonic() >= until:
                    break
        messages = [_message(topic, number, fields) for number, fields in found]
        for message, (number, _) in zip(messages, found, strict=True):
            self._given[message.position] = topic, number
        return messages

    def commit(self, messages: Iterable[Message]) -> None:
        by_topic: dict[str, dict[str, bytes]] = {}
        for message in messages:
            if message.position not in self._given:
                raise streams.unknown_position(message.position)
            topic, number = self._given[message.position]
            by_topic.setdefault(topic, {})[message.position] = number
        for topic, numbers in by_topic.items():
            with _failed():
                self._client.xack(topic, self._groups.group(topic), *numbers.values())
            for position in numbers:
                del self._given[position]

    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        more = {"maxlen": self._details.max_length, "approximate": True} if self._details.max_length else {}
        entries = [_fields(message) for message in messages]
        for start in range(0, len(entries), streams.AT_ONCE):
            with _failed():
                pipeline = self._client.pipeline(transaction=False)
                for fields in entries[start : start + streams.AT_ONCE]:
                    pipeline.xadd(topic, fields, **more)
                answers = pipeline.execute(raise_on_error=False)
                if refused := next((answer for answer in answers if isinstance(answer, Exception)), None):
                    raise refused

    def lag(self, topic: str, group: str) -> int | None:
        """None before Redis 7, and where entries were deleted behind the group's place."""
        with _failed():
            self._check(topic)
            known = {found["name"].decode(errors="replace"): found for found in self._client.xinfo_groups(topic)}
            if group not in known:
                return int(self._client.xlen(topic)) if self._details.start == "earliest" else 0
        to_come = known[group].get("lag")
        return None if to_come is None else int(to_come) + int(known[group]["pending"])

    def close(self) -> None:
        """Leave the groups; what was not committed goes to another member at once, if the server can be told."""
        import redis

        self._ended.set()
        if self._beat is not None:
            self._beat.join()
        for topic, group in self._groups.items():
            # A server that is gone gives these messages to others later, by itself.
            with suppress(redis.RedisError, OSError, BettongError):
                if self._keep(topic, group, idle=_LONG_AGO_MS):
                    continue
                self._client.xgroup_delconsumer(topic, group, self._name)

    def _check(self, topic: str) -> None:
        """Raises NotFound when there is no such stream, BadInput when it is something else."""
        found = self._client.type(topic).decode()
        if found == "none":
            raise streams.no_topic(KIND, topic, "stream")
        if found != "stream":
            raise BadInput(
                f"'{topic}' is a {found} in Redis, not a stream.", "Browse the connection to see its streams."
            )

    def _join(self, topic: str, group: str) -> None:
        import redis

        if self._groups.joined(topic, group):
            return
        self._check(topic)
        try:
            self._client.xgroup_create(topic, group, "0" if self._details.start == "earliest" else "$")
        except redis.ResponseError as refused:
            if not str(refused).startswith("BUSYGROUP"):  # which means that it is there
                raise
        self._groups.join(topic, group)
        self._claim_at[topic] = 0.0
        if self._beat is None:
            self._beat = threading.Thread(target=self._stay_alive, daemon=True)
            self._beat.start()

    def _claimed(self, topic: str, group: str, count: int) -> list[tuple[bytes, Any]]:
        """What members had that are dead, oldest first; none that this one has in hand."""
        idle, cursor = int(self._details.redeliver_after_s * 1000), b"0-0"
        while True:
            cursor, entries, *_ = self._client.xautoclaim(topic, group, self._name, idle, cursor, count=count)
            # Redis 6.2 has nothing in place of what was trimmed since.
            fresh = [
                (number, fields) for number, fields in entries if fields and _position(topic, number) not in self._given
            ]
            if fresh:
                return fresh
            if cursor == b"0-0":
                self._claim_at[topic] = time.monotonic() + self._details.redeliver_after_s / 2
                return []

    def _stay_alive(self) -> None:
        import redis

        while not self._ended.wait(self._details.redeliver_after_s / 3):
            for topic, group in self._groups.items():
                # Whoever consumes or commits next is told what is wrong.
                with suppress(redis.RedisError, OSError, BettongError):
                    self._keep(topic, group, given={number for _, number in list(self._given.values())})

    def _keep(self, topic: str, group: str, idle: int = 0, given: set[bytes] | None = None) -> int:
        """Say of what is this member's, or of `given` as far as it still is, that it was given out `idle` ms ago; how
        much that is. What the server sent and never came is not in `given`: it grows old and comes again."""
        start, count = "-", 0
        while True:
            page = self._client.xpending_range(topic, group, start, "+", streams.AT_ONCE, consumername=self._name)
            owned = [entry["message_id"] for entry in page]
            ids = [number for number in owned if given is None or number in given]
            if ids:
                self._client.xclaim(topic, group, self._name, 0, ids, idle=idle, justid=True)
            count += len(ids)
            if len(owned) < streams.AT_ONCE:
                return count
            start = f"({owned[-1].decode()}"

    def _start(self, topic: str, limit: int) -> bytes | None:
        """The id of the first of the last `limit` entries; None when that is none."""
        first, before = None, b"+"
        while limit > 0:
            page = self._client.xrevrange(topic, before, count=min(limit, streams.AT_ONCE))
            if not page:
                break
            first = page[-1][0]
            before, limit = b"(" + first, limit - len(page)
        return first


class RedisDriver:
    types: ClassVar[tuple[str, ...]] = ("REDIS",)
    title: ClassVar[str] = "Redis streams"
    extra: ClassVar[str] = "redis"
    needs: ClassVar[tuple[str, ...]] = ("redis",)
    rebinding_safe: ClassVar[bool] = True  # the socket is ours
    details: ClassVar[type[RedisDetails]] = RedisDetails
    source: ClassVar[type[RedisSource]] = RedisSource

    @contextmanager
    def open(self, details: RedisDetails, egress: Egress, timeout_s: float) -> Iterator[RedisSource]:
        target = reach.resolve(details.host, details.port, egress)
        client = _client(details, target, min(timeout_s, streams.LONGEST_WAIT_S))
        source = RedisSource(client, details)
        try:
            with _failed():
                client.ping()
            yield source
        finally:
            source.close()
            client.connection_pool.disconnect()

    def test(self, details: RedisDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers import web

        def shake(target: reach.Target) -> str:
            return web.shake_hands(target, web.tls_context_for(details.ssl, details.ssl_ca), timeout_s)

        yield from streams.tested(
            [(details.host, details.port)],
            details.topic,
            egress,
            timeout_s,
            shake if details.ssl != "disable" else None,
            lambda: self.open(details, egress, timeout_s),
        )


def _client(details: RedisDetails, target: reach.Target, timeout_s: float) -> Any:
    """Connections go to the checked addresses alone; nothing is tried twice behind our back."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    from bettong.drivers import web

    context = web.tls_context_for(details.ssl, details.ssl_ca) if details.ssl != "disable" else None

    def connect(_: Any) -> Any:
        sock: Any = reach.connect(target, timeout_s)
        if context is not None:
            sock = web.secured(sock, context, target.host, timeout_s)
        sock.settimeout(timeout_s)
        return sock

    pool = redis.ConnectionPool(
        connection_class=type("Checked", (redis.Connection,), {"_connect": connect}),
        username=details.user or None,
        password=details.password.get_secret_value() or None,
        db=details.database,
        protocol=2,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        driver_info=None,
    )
    return redis.Redis(connection_pool=pool)


@contextmanager
def _failed() -> Iterator[None]:
    import redis

    try:
        yield
        return
    except (redis.RedisError, OSError) as failed:
        ours = _translated(failed)
    raise ours


_CODES: dict[str, Callable[[], BettongError]] = {
    "WRONGPASS": lambda: sql_errors.no_login(KIND),
    "NOAUTH": lambda: sql_errors.no_login(KIND),
    "NOPERM": lambda: sql_errors.no_right(KIND),
    "LOADING": lambda: Unavailable("Redis is still loading its data.", "Try again in a moment."),
    "OOM": lambda: Unavailable("Redis has no memory left for more.", "Set max_length, or give it more memory."),
    "READONLY": lambda: BadInput("This Redis is a replica and takes no writes.", "Name the primary in the details."),
    "MOVED": lambda: BadInput("This Redis is a cluster, which this driver does not read.", "Use a single server."),
    "CROSSSLOT": lambda: BadInput("This Redis is a cluster, which this driver does not read.", "Use a single server."),
    "NOGROUP": lambda: Unavailable("The stream or its group is gone from Redis.", "Open the connection anew."),
    "MISCONF": lambda: Unavailable("Redis takes no writes: it cannot save its data.", "Look at its log."),
    "WRONGTYPE": lambda: BadInput("What has that name in Redis is no stream.", "Browse the connection."),
}


def _translated(failed: BaseException) -> BettongError:
    import redis

    text = str(failed)
    # For some codes the library has classes, and takes them off the text.
    kinds = {"NOPERM": redis.exceptions.NoPermissionError, "OOM": redis.exceptions.OutOfMemoryError}
    kinds |= {"LOADING": redis.BusyLoadingError, "READONLY": redis.ReadOnlyError}
    code = next((name for name, kind in kinds.items() if isinstance(failed, kind)), text.partition(" ")[0].rstrip(":"))
    if code in _CODES:
        return _CODES[code]()
    if isinstance(failed, (redis.AuthenticationError, redis.exceptions.AuthorizationError)):
        return sql_errors.no_login(KIND)
    if isinstance(failed, (redis.TimeoutError, TimeoutError)):
        return sql_errors.silent(KIND)
    if isinstance(failed, (redis.ConnectionError, OSError)):
        return sql_errors.broken(KIND)
    if "unknown command" in text.lower():
        return BadInput("This Redis does not know streams as of version 6.2.", "Use a newer one.")
    if "DB index" in text:
        return BadInput(
            "This Redis has no database of that number.",
            "Check `database` in the details: 16 of them, 0 to 15, are usual.",
        )
    return BadInput(f"Redis refused the command ({type(failed).__name__}).", "Look at its log.")


def _position(topic: str, number: bytes) -> str:
    return f"{topic}@{number.decode()}"


def _message(topic: str, number: bytes, fields: Mapping[bytes, bytes]) -> Message:
    """An entry of ours as it was; one of others, without a field `value`, as a JSON object of its fields."""
    import orjson

    named = {streams.text_of(name): value for name, value in fields.items()}
    if _VALUE not in named:
        texts = {name: streams.text_of(value) for name, value in named.items()}
        return Message(orjson.dumps(texts), None, _position(topic, number))
    value, key = named.pop(_VALUE), named.pop(_KEY, None)
    headers = {name: streams.text_of(value) for name, value in named.items()}
    return Message(value, key, _position(topic, number), headers)


def _fields(message: Message) -> dict[str, bytes]:
    if taken := sorted({_VALUE, _KEY} & set(message.headers)):
        raise BadInput(f"A header cannot be called '{taken[0]}' in Redis.", "Give it another name.")
    key = {} if message.key is None else {_KEY: message.key}
    return {_VALUE: message.value, **key, **{name: text.encode() for name, text in message.headers.items()}}
