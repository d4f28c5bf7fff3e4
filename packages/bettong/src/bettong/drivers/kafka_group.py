"""A member of a consumer group in Kafka: what it was given, what of it is done, and the place that it commits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors, streams
from bettong.drivers.kafka_errors import KIND, Watch, in_our_words, moved, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bettong.errors import BettongError

_SLICE_S = 1.0  # of a wait, after each of which it is seen whether a broker is still there
_FOR_GOOD = frozenset(
    {
        "UNKNOWN_TOPIC_OR_PART",
        "TOPIC_AUTHORIZATION_FAILED",
        "GROUP_AUTHORIZATION_FAILED",
        "INVALID_GROUP_ID",
        "INVALID_SESSION_TIMEOUT",
        "INCONSISTENT_GROUP_PROTOCOL",
        "_FATAL",
    }
)


class Progress:
    """One partition, from when it was assigned. Kafka keeps one place per partition: up to the first message that is
    not done, whatever is done behind it."""

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}  # offset -> done, in their order
        self._first: int | None = None

    def give(self, offset: int) -> None:
        self._first = offset if self._first is None else self._first
        self._open[offset] = False

    def knows(self, offset: int) -> bool:
        """Whether a message that was given out at some time was so since the partition was assigned."""
        return self._first is not None and offset >= self._first

    def done(self, offset: int) -> None:
        if offset in self._open:
            self._open[offset] = True

    def place(self) -> int | None:
        """The offset to commit, which is that of the next message to read; None when nothing new is done."""
        place = None
        for offset, done in self._open.items():
            if not done:
                break
            place = offset + 1
        return place

    def committed(self, place: int) -> None:
        for offset in [offset for offset in self._open if offset < place]:
            del self._open[offset]


class Member:
    """One topic, read for one group. Used from one thread; the library keeps the membership alive beside."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        topic: str,
        group: str,
        watch: Watch,
        probe: Callable[[], object],
        timeout_s: float,
    ) -> None:
        """`probe` raises when no broker answers."""
        import confluent_kafka

        self._topic, self._watch, self._probe, self._timeout_s = topic, watch, probe, timeout_s
        self._parts: dict[int, Progress] = {}
        self._highest: dict[int, int] = {}  # of each partition that was ever given out
        self._late: BettongError | None = None
        with in_our_words():
            self._consumer = confluent_kafka.Consumer({**configuration, "group.id": group})
            self._consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked)

    def consume(self, max_messages: int, wait_s: float) -> list[Any]:
        """The library's messages; as soon as there are some."""
        until = time.monotonic() + wait_s
        while True:
            if self._late is not None:
                late, self._late = self._late, None
                raise late
            left = max(0.0, until - time.monotonic())
            found = self._poll(max_messages, min(left, _SLICE_S))
            if found:
                return found
            if self._watch.refused is not None:
                raise self._watch.refused
            if self._watch.down:
                self._watch.down = False
                self._probe()
            if left <= _SLICE_S and self._late is None:
                return []

    def commit(self, places: Iterable[tuple[int, int]]) -> None:
        """`places` are (partition, offset). Raises Unavailable when one is not this member's any more."""
        import confluent_kafka

        for partition, offset in places:
            if offset > self._highest.get(partition, -1):
                raise streams.unknown_position(f"{self._topic}/{partition}@{offset}")
            if partition not in self._parts or not self._parts[partition].knows(offset):
                raise moved(self._topic)
            self._parts[partition].done(offset)
        wanted = {p: place for p, progress in self._parts.items() if (place := progress.place()) is not None}
        if not wanted:
            return
        offsets = [confluent_kafka.TopicPartition(self._topic, p, place) for p, place in wanted.items()]
        refused: Any = None
        try:
            kept = within(self._timeout_s, lambda: self._consumer.commit(offsets=offsets, asynchronous=False))
            refused = next((one.error for one in kept if one.error is not None), None)
        except confluent_kafka.KafkaException as failed:
            refused = failed.args[0]
        if refused is not None:
            raise _not_kept(refused, self._topic)
        for partition, place in wanted.items():
            self._parts[partition].committed(place)

    def close(self) -> None:
        """Leave the group, for its other members to go on at once. Raises Unavailable when no broker is there."""
        within(self._timeout_s, self._consumer.close)

    def _poll(self, max_messages: int, wait_s: float) -> list[Any]:
        with in_our_words():
            first = self._consumer.poll(wait_s)
            rest = self._consumer.consume(max_messages - 1, 0.01) if first is not None and max_messages > 1 else []
        found = []
        for message in ([first] if first is not None else []) + rest:
            if (error := message.error()) is not None:
                if error.name() in _FOR_GOOD:
                    gone = error.name() == "UNKNOWN_TOPIC_OR_PART"
                    self._late = streams.no_topic(KIND, self._topic) if gone else translated(error)
                continue
            partition, offset = message.partition(), message.offset()
            self._parts.setdefault(partition, Progress()).give(offset)
            self._highest[partition] = max(offset, self._highest.get(partition, -1))
            found.append(message)
        return found

    def _assigned(self, _: Any, partitions: Iterable[Any]) -> None:
        for partition in partitions:
            self._parts[partition.partition] = Progress()

    def _revoked(self, _: Any, partitions: Iterable[Any]) -> None:
        for partition in partitions:
            self._parts.pop(partition.partition, None)


def within(timeout_s: float, work: Callable[[], Any]) -> Any:
    """What `work` gives; for calls of the library that have no deadline of their own. Raises what it raises, and
    Unavailable when it does not end."""

    came: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            came.append(work())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise sql_errors.broken(KIND)
    if failed:
        raise failed[0]
    return came[0]


def _not_kept(error: Any, topic: str) -> BettongError:
    if error.name() in ("ILLEGAL_GENERATION", "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "FENCED_INSTANCE_ID"):
        return moved(topic)
    return translated(error)
