"""A connection of AMQP 0-9-1 that plain code can use, through pika: every call has a deadline, and what goes wrong is
told in our words."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors
from bettong.drivers.amqp_errors import KIND, not_connected, translated
from bettong.drivers.loop_thread import LoopThread
from bettong.errors import Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Iterable

    from bettong.drivers.egress import Target

_FAREWELL_S = 0.5
_SLACK_S = 5.0  # what a call may take beyond the waits that it names itself


@dataclass(frozen=True, slots=True)
class Login:
    vhost: str
    user: str
    password: str = field(repr=False)


class Channel:
    """One channel. Whatever the broker refuses closes it: whoever waits for something on it is told why, then and
    later. Used on the loop of its connection."""

    def __init__(self) -> None:
        self.raw: Any = None
        self._closed: BaseException | None = None
        self._waiting: set[asyncio.Future[Any]] = set()

    async def open(self, connection: Any) -> None:
        def made(opened: Callable[[Any], None]) -> None:
            self.raw = connection.channel(on_open_callback=opened)
            self.raw.add_on_close_callback(lambda _, why: self.end(why))

        await self.ask(made)

    async def ask(self, call: Callable[[Callable[..., None]], object]) -> Any:
        """The arguments with which pika calls what it is given: an answer of the broker. Raises what closed the
        channel."""
        answer = self.promise()
        try:
            call(lambda *found: None if answer.done() else answer.set_result(found))
            return await answer
        finally:
            self._waiting.discard(answer)

    def promise(self) -> asyncio.Future[Any]:
        """For what somebody else is to fulfil. It fails when the channel is closed."""
        self.check()
        made = asyncio.get_running_loop().create_future()
        self._waiting.add(made)
        made.add_done_callback(self._waiting.discard)
        return made

    def check(self) -> None:
        if self._closed is not None:
            raise self._closed

    def end(self, why: BaseException) -> None:
        """Nothing comes on it any more."""
        self._closed = self._closed or why
        for each in list(self._waiting):
            if not each.done():
                each.set_exception(self._closed)

    async def queue(self, name: str) -> tuple[int, int]:
        """How many messages of a queue wait for a consumer, and how many consumers it has. Nothing is made. What was
        sent on this channel before has been dealt with when this returns."""
        (frame,) = await self.ask(lambda done: self.raw.queue_declare(name, passive=True, callback=done))
        return int(frame.method.message_count), int(frame.method.consumer_count)

    async def close(self) -> None:
        """What was given out on it and not acknowledged goes back to its place in the queue."""
        import pika.exceptions

        if self._closed is not None:
            return
        closed = self.promise()
        self.raw.close()
        with suppress(pika.exceptions.ChannelClosed):
            await closed


class AmqpConnection:
    """Connected from the start, once, to addresses that were checked. Close it."""

    def __init__(
        self, target: Target, login: Login, tls: ssl.SSLContext | None, heartbeat_s: int, timeout_s: float
    ) -> None:
        """
        Raises:
            BadInput: user, password or vhost are refused.
            Unavailable: no answer, none that is AMQP, or no TLS that can be trusted.
        """
        self.timeout_s = timeout_s
        self._raw: Any = None
        self._full = False
        self._loop = LoopThread()
        try:
            self._loop.run(lambda: self._connect(target, login, tls, heartbeat_s), timeout_s + _SLACK_S)
        except BaseException:
            self.close()
            raise

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]], queue: str, wait_s: float = 0.0) -> Any:
        """What the coroutine gives that `work` makes, which is about `queue` and may wait for `wait_s` and the time of
        an answer.

        Raises:
            BettongError: what went wrong, in our words.
        """
        failed: BaseException
        try:
            return self._loop.run(work, wait_s + self.timeout_s)
        except Exception as error:
            failed = error
        if self._full and isinstance(failed, TimeoutError):
            raise Unavailable(
                "RabbitMQ takes no messages now: it has too little memory or disk.", "Look at its alarms, or try again."
            )
        raise translated(failed, queue)

    def check(self) -> None:
        """Raises Unavailable when the connection is gone."""
        if self._raw is None or not self._raw.is_open:
            raise sql_errors.broken(KIND)

    def close(self) -> None:
        """End the connection, whatever state it is in, and the thread."""
        self._loop.close(self._closed, self.timeout_s + _SLACK_S)

    async def channel(self) -> Channel:
        self.check()
        made = Channel()
        await made.open(self._raw)
        return made

    async def _connect(self, target: Target, login: Login, tls: ssl.SSLContext | None, heartbeat_s: int) -> None:
        import pika
        from pika.adapters.asyncio_connection import AsyncioConnection

        _silenced()
        loop = asyncio.get_running_loop()
        came: asyncio.Future[Any] = loop.create_future()
        each_s = self.timeout_s / len(target.addresses)
        wanted = [
            pika.ConnectionParameters(
                host=address,
                port=target.port,
                virtual_host=login.vhost,
                credentials=pika.PlainCredentials(login.user, login.password, erase_on_connect=True),
                ssl_options=pika.SSLOptions(tls, target.host) if tls else None,
                heartbeat=heartbeat_s,
                connection_attempts=1,
                socket_timeout=each_s,
                stack_timeout=each_s,
                client_properties={"connection_name": "bettong"},
            )
            for address in target.addresses
        ]
        AsyncioConnection.create_connection(
            wanted, lambda done: None if came.done() else came.set_result(done), custom_ioloop=loop
        )
        found = await came  # it gives up by itself: to abort it while the server is silent is an error in pika
        if isinstance(found, BaseException):
            raise not_connected(target.host, found)
        self._raw = found
        self._raw.add_on_connection_blocked_callback(lambda *_: self._alarm(True))
        self._raw.add_on_connection_unblocked_callback(lambda *_: self._alarm(False))

    def _alarm(self, full: bool) -> None:
        self._full = full

    async def _closed(self) -> None:
        if self._raw is None or not self._raw.is_open:
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._raw.add_on_close_callback(lambda *_: None if ended.done() else ended.set_result(None))
        self._raw.close()
        # One without room does not hear us, and one that is gone says nothing: both notice the end by themselves.
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_S if self._full else self.timeout_s):
                await asyncio.shield(ended)
                return
        self._raw._transport.abort()
        await ended


class Publisher:
    """Messages on a channel of their own, each confirmed by the broker. Used on the loop of its connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sent = 0
        self._open: dict[int, None] = {}
        self._refused = self._returned = 0
        self._all: asyncio.Future[None] | None = None

    @classmethod
    async def on(cls, channel: Channel) -> Publisher:
        made = cls(channel)
        channel.raw.add_on_return_callback(made._came_back)
        await channel.ask(lambda done: channel.raw.confirm_delivery(made._confirmed, done))
        return made

    async def publish(self, queue: str, messages: Iterable[tuple[Any, bytes]]) -> tuple[int, int]:
        """Send properties with bodies. How many of them went to no queue, and how many the queue did not take; all of
        the others are kept as safely as the queue does."""
        self._refused = self._returned = 0
        self._all = self._channel.promise()
        for properties, body in messages:
            self._sent += 1
            self._open[self._sent] = None
            self._channel.raw.basic_publish("", queue, body, properties, mandatory=True)
        if self._open:
            await self._all
        return self._returned, self._refused

    def _came_back(self, *_: Any) -> None:
        self._returned += 1  # it is confirmed nevertheless

    def _confirmed(self, frame: Any) -> None:
        import pika.spec

        tag = frame.method.delivery_tag
        tags = [each for each in self._open if each <= tag] if frame.method.multiple else [tag]
        for each in tags:
            self._open.pop(each, None)
        if isinstance(frame.method, pika.spec.Basic.Nack):
            self._refused += len(tags)
        if not self._open and self._all is not None and not self._all.done():
            self._all.set_result(None)


def _silenced() -> None:
    """pika tells its log what it sends, the login among it."""
    quiet = logging.getLogger("pika")
    quiet.setLevel(logging.CRITICAL + 1)
    quiet.propagate = False
