"""What Kafka and its library refuse, in our words, by their numbers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors
from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KIND = "Kafka"


class Watch:
    """Hears of the library what happens to its connections: calls alone only tell that nothing came."""

    def __init__(self) -> None:
        self.refused: BettongError | None = None  # why no broker lets us in
        self.down = False  # no broker was there when it was looked last

    def __call__(self, error: Any) -> None:
        code = error.name()
        if code in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "UNSUPPORTED_SASL_MECHANISM"):
            self.refused = sql_errors.no_login(KIND)
        elif code == "_SSL":
            self.refused = Unavailable(
                "No TLS that can be trusted came about with Kafka.", "Check servers, ssl and ssl_ca in the details."
            )
        elif code == "_ALL_BROKERS_DOWN":
            self.down = True


def translated(error: Any) -> BettongError:
    """The words for a KafkaError."""
    code = error.name()
    if code in _WORDS:
        return _WORDS[code]()
    if error.retriable() or code.startswith("_"):  # of the library's own, nearly all are about the connection
        return sql_errors.broken(KIND)
    return BadInput(f"Kafka refused that ({code}).", "Look the code up in its manual.")


@contextmanager
def in_our_words() -> Iterator[None]:
    import confluent_kafka

    try:
        yield
        return
    except confluent_kafka.KafkaException as failed:
        ours = translated(failed.args[0])
    raise ours


def moved(topic: str) -> Unavailable:
    return Unavailable(
        f"Part of '{topic}' went to another member of the group before it was committed, and comes again there.",
        "Open the source anew and go on.",
    )


_WORDS: dict[str, Callable[[], BettongError]] = {
    "_AUTHENTICATION": lambda: sql_errors.no_login(KIND),
    "SASL_AUTHENTICATION_FAILED": lambda: sql_errors.no_login(KIND),
    "TOPIC_AUTHORIZATION_FAILED": lambda: sql_errors.no_right(KIND, " with this topic"),
    "GROUP_AUTHORIZATION_FAILED": lambda: sql_errors.no_right(KIND, " with this group"),
    "CLUSTER_AUTHORIZATION_FAILED": lambda: sql_errors.no_right(KIND),
    "MSG_SIZE_TOO_LARGE": lambda: BadInput("A message is longer than Kafka takes.", "Send less, or raise its limit."),
    "RECORD_LIST_TOO_LARGE": lambda: BadInput("A message is longer than Kafka takes.", "Send less in one go."),
    "INVALID_GROUP_ID": lambda: BadInput("Kafka takes no group of that name.", "Take another name for the group."),
    "INVALID_SESSION_TIMEOUT": lambda: BadInput(
        "Kafka does not allow that redeliver_after_s.", "Set it to what its group.min.session.timeout.ms allows."
    ),
    "INCONSISTENT_GROUP_PROTOCOL": lambda: BadInput(
        "Others of that group share its partitions in another way.", "Take another name for the group."
    ),
    "UNKNOWN_TOPIC_OR_PART": lambda: BadInput("The topic is gone from Kafka.", "Browse the connection to see others."),
}
