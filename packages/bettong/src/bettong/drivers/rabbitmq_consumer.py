"""A consumer of one queue in RabbitMQ: what it was sent, what of it was given out, and what of that is done."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.drivers.amqp_errors import no_queue
from bettong.drivers.rabbitmq_messages import STREAM_HEADER, message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.drivers import Message
    from bettong.drivers.amqp import Channel

MOST_IN_FLIGHT = 65_535  # what the protocol can say
_REST_S = 0.005  # for what follows the first message
_LONGEST_NAME = 200  # bytes, of the group in the name under which a consumer is listed


class Consumer:
    """One queue on a channel of its own. The broker sends ahead as many messages as were asked for last, and no more
    before some are done. Used on the loop of its connection."""

    def __init__(self, channel: Channel, queue: str, group: str) -> None:
        self._channel, self._queue = channel, queue
        self._own = uuid4().hex[:12]
        self._group = group.encode()[:_LONGEST_NAME].decode(errors="ignore")
        self._tag, self._ahead, self._times = "", 0, 0
        self._came: deque[tuple[int, bool, Any, bytes]] = deque()
        self._given: dict[str, int] = {}  # position -> the number that the channel gave it
        self._arrival: asyncio.Future[None] | None = None

    async def take(self, most: int, wait_s: float) -> list[Message]:
        """What there is, at most `most`; waits for the first alone."""
        await self._ask_for(min(MOST_IN_FLIGHT, most + len(self._given)))
        if not self._came:
            await self._wait(wait_s)
        if 0 < len(self._came) < most:
            await asyncio.sleep(_REST_S)
        found: list[Message] = []
        while self._came and len(found) < most:
            found.append(self._give(*self._came.popleft()))
        return found

    def knows(self, position: str) -> bool:
        return position in self._given

    async def done(self, positions: Sequence[str]) -> None:
        """The broker has let go of these when this returns."""
        numbers = {self._given[position] for position in positions}
        last = max(numbers)
        held = {number for number in self._given.values() if number <= last}
        if numbers == held and not (self._came and self._came[0][0] < last):
            self._channel.raw.basic_ack(last, multiple=True)
        else:
            for number in sorted(numbers):
                self._channel.raw.basic_ack(number)
        await self._channel.queue(self._queue)  # nothing answers an acknowledgement: this comes after it
        for position in positions:
            del self._given[position]

    async def waiting(self) -> int:
        """How much is there that is not done, as far as this consumer knows: what others have in hand is not seen."""
        ready, _ = await self._channel.queue(self._queue)
        return ready + len(self._came) + len(self._given)

    async def _ask_for(self, wanted: int) -> None:
        """A consumer keeps the number that it began with: for another one it begins anew. What it had stays its own."""
        import pika.exceptions

        if wanted <= self._ahead <= 2 * wanted:
            return
        raw = self._channel.raw
        if self._tag:
            await self._channel.ask(lambda done: raw.basic_cancel(self._tag, callback=done))
        else:
            raw.add_on_cancel_callback(lambda _: self._channel.end(pika.exceptions.ConsumerCancelled()))
        await self._channel.ask(lambda done: raw.basic_qos(prefetch_count=wanted, callback=done))
        self._times += 1
        self._tag, self._ahead = f"{self._group}-{self._own}-{self._times}", wanted
        await self._channel.ask(
            lambda done: raw.basic_consume(self._queue, self._came_in, consumer_tag=self._tag, callback=done)
        )

    async def _wait(self, wait_s: float) -> None:
        self._arrival = self._channel.promise()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._arrival
        finally:
            self._arrival = None

    def _came_in(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        if STREAM_HEADER in (properties.headers or {}):
            self._channel.end(no_queue(self._queue))
            return
        self._came.append((method.delivery_tag, method.redelivered, properties, body))
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _give(self, number: int, again: bool, properties: Any, body: bytes) -> Message:
        made = message(self._queue, properties, body, f"{self._own}/{number}", again=again)
        if made.position in self._given:  # somebody sent two of one id
            made = message(self._queue, properties, body, f"{self._own}/{number}", again=again, use_id=False)
        self._given[made.position] = number
        return made
