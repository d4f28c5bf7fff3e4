"""Messages of ours as RabbitMQ keeps them, and its messages as ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from bettong.domain.drivers import Message
from bettong.drivers import streams
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_HEADER = "Bettong-Key"
STREAM_HEADER = "x-stream-offset"  # of what comes from a stream, which AMQP calls a queue, too
_TAKEN = frozenset({"CC", "BCC", KEY_HEADER})  # the broker sends copies to what the first two name
_OWN = frozenset({KEY_HEADER, "x-delivery-count"})  # the second one the broker counts up each time
_LONGEST_HEADER = 128  # bytes of a name, by the protocol
_MOST_HEADERS = 100_000  # bytes: they have to go into one frame, which has 131,072


def message(
    queue: str, properties: Any, body: bytes, place: str, *, again: bool = False, use_id: bool = True
) -> Message:
    """What the broker gave out, `again` when it says so. Its position is its message id, which stays the same when it
    comes again; without one it is `place`, which does not."""
    headers: Mapping[str, Any] = properties.headers or {}
    kept = {_text(name): _text(value) for name, value in headers.items() if name not in _OWN}
    key = headers.get(KEY_HEADER)
    named = use_id and bool(properties.message_id)
    return Message(
        body,
        key.encode() if isinstance(key, str) else key if isinstance(key, bytes) else None,
        f"{queue}@{_text(properties.message_id) if named else place}",
        kept,
        unsure=again,
    )


def at_ms(properties: Any) -> int | None:
    """When it was sent, as its sender says."""
    return properties.timestamp * 1000 if isinstance(properties.timestamp, int) else None


def sent(message: Message) -> tuple[Any, bytes]:
    """Properties and body for a message that is to be kept. Raises BadInput for headers that it cannot have."""
    import pika

    for name in message.headers:
        if name in _TAKEN:
            raise BadInput(f"A header cannot be called '{name}' in RabbitMQ.", "Give it another name.")
        if len(name.encode()) > _LONGEST_HEADER:
            raise BadInput(
                "The name of a header is longer than RabbitMQ takes.", f"Take at most {_LONGEST_HEADER} bytes."
            )
    key = {} if message.key is None else {KEY_HEADER: message.key}
    properties = pika.BasicProperties(
        delivery_mode=pika.DeliveryMode.Persistent,
        message_id=uuid4().hex,
        timestamp=int(time.time()),
        headers={**message.headers, **key} or None,
    )
    if sum(map(len, properties.encode())) > _MOST_HEADERS:
        raise BadInput("The headers of a message are longer than RabbitMQ takes.", f"Take {_MOST_HEADERS} bytes.")
    return properties, message.value


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return streams.text_of(value)
    import orjson

    return orjson.dumps(value, default=_told, option=orjson.OPT_NON_STR_KEYS).decode()


def _told(value: object) -> str:
    return streams.text_of(value) if isinstance(value, bytes) else str(value)
