"""What is asked of a stream inference: where messages come from, where predictions go, and how much may go wrong."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.drivers import Capability, WriteMode
from bettong.domain.schema import decode_schema_text, encode_schema
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import pyarrow as pa

RESERVED = ("out", "anomaly", "time")  # what a prediction has beside the fields that it keeps
SOURCE = "bettong_source"  # the column of a table that says which message a row answers
KEY = "bettong_key"
MOST_MESSAGES = 1_000
MOST_REJECTS = 100_000
_LONGEST_WAIT_S = 5.0
_EXAMPLE = 'Pass {"connection_id": …, "topic": …}.'


@dataclass(frozen=True, slots=True)
class TopicEnd:
    """A topic behind a connection."""

    connection_id: str
    topic: str

    def document(self) -> dict[str, Any]:
        return {"connection_id": self.connection_id, "topic": self.topic}


@dataclass(frozen=True, slots=True)
class TableEnd:
    """A table behind a connection. With `mode` UPSERT its key is `SOURCE`."""

    connection_id: str
    table: str
    mode: WriteMode = WriteMode.APPEND

    def document(self) -> dict[str, Any]:
        return {"connection_id": self.connection_id, "table": self.table, "mode": self.mode.value}


@dataclass(frozen=True, slots=True)
class Takes:
    """What a pipeline version takes.

    Attributes:
        schema: the columns of its rows.
        keys: columns that it takes as well when a request has them.
        by_request: whether its steps look at a request as a whole (a split goes by its first row): then every message
            is a request of its own.
    """

    schema: pa.Schema
    keys: tuple[str, ...] = ()
    by_request: bool = False


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A stream inference, checked.

    Attributes:
        pipeline_version: UUID of the version that answers.
        keep: fields of a message that stand in its prediction, too; one that a message lacks is null.
        max_messages: the most that are taken, and asked of the model, at once.
        wait_s: how long one look at the topic waits when nothing is there.
        max_rejects: without a dead-letter topic the job keeps so many messages that cannot be answered, and stops then.
        stop_when_idle_s: end once no message came for so long; None goes on until the job is cancelled.
    """

    pipeline_id: int
    pipeline_version: str
    takes: Takes
    source: TopicEnd
    group: str
    sink: TopicEnd | TableEnd
    dead_letter: TopicEnd | None = None
    keep: tuple[str, ...] = ()
    max_messages: int = 500
    wait_s: float = 0.5
    max_rejects: int = 1_000
    stop_when_idle_s: float | None = None

    def to_document(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "pipeline_id": self.pipeline_id,
            "pipeline_version": self.pipeline_version,
            "takes": base64.b64encode(encode_schema(self.takes.schema)).decode(),
            "keys": list(self.takes.keys),
            "by_request": self.takes.by_request,
            "source": {**self.source.document(), "group": self.group},
            "sink": self.sink.document(),
            "dead_letter": self.dead_letter and self.dead_letter.document(),
            "keep": list(self.keep),
            "max_messages": self.max_messages,
            "wait_s": self.wait_s,
            "max_rejects": self.max_rejects,
            "stop_when_idle_s": self.stop_when_idle_s,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> StreamRequest:
        takes = Takes(decode_schema_text(document["takes"]), tuple(document["keys"]), document["by_request"])
        return parse(document, takes)

    @property
    def connection_ids(self) -> tuple[str, ...]:
        ends = (self.source, self.sink, self.dead_letter)
        return tuple(dict.fromkeys(end.connection_id for end in ends if end is not None))

    @property
    def guarantee(self) -> str:
        """What holds for its predictions, for people."""
        if isinstance(self.sink, TableEnd):
            return (
                "exactly once: a batch and its checkpoint are kept in one transaction"
                if self.sink.mode is WriteMode.APPEND
                else f"exactly once: rows of the same message ({SOURCE}) take each other's place"
            )
        return "at least once: what comes twice after a failure has the same bettong-source"


def default_group(workspace_id: int, pipeline: str) -> str:
    """The consumer group of a pipeline's streams that name none."""
    return f"bettong-{workspace_id}-{pipeline}"


def parse(asked: Mapping[str, Any], takes: Takes, group: str = "") -> StreamRequest:
    """The request as it came from a caller.

    A sink is `{"connection_id", "topic"}` or `{"connection_id", "table", "mode"?}`.

    Args:
        takes: what the version takes that is asked for.
        group: stands for one that is not named.

    Raises:
        BadInput: something is missing or none of what it may be; the field is named.
    """
    source = _mapping(asked, "source")
    dead_letter = asked.get("dead_letter")
    request = StreamRequest(
        pipeline_id=_whole(asked, "pipeline_id", 1, 2**63 - 1, None),
        pipeline_version=_text(asked, "pipeline_version"),
        takes=takes,
        source=_topic(source, "source"),
        group=_text({"group": source.get("group") or group}, "group"),
        sink=_sink(_mapping(asked, "sink")),
        dead_letter=None if dead_letter is None else _topic(_mapping(asked, "dead_letter"), "dead_letter"),
        keep=_names(asked.get("keep") or ()),
        max_messages=_whole(asked, "max_messages", 1, MOST_MESSAGES, 500),
        wait_s=_seconds(asked, "wait_s", _LONGEST_WAIT_S, 0.5),
        max_rejects=_whole(asked, "max_rejects", 0, MOST_REJECTS, 1_000),
        stop_when_idle_s=None
        if asked.get("stop_when_idle_s") is None
        else _seconds(asked, "stop_when_idle_s", 86_400.0, 0.0),
    )
    _check_no_circle(request)
    return request


def check_abilities(
    request: StreamRequest,
    source: Collection[Capability],
    sink: Collection[Capability],
    dead_letter: Collection[Capability],
) -> None:
    """Raises BadInput when a connection cannot do its part. Given is what the drivers of the three can."""
    _require("source", source, Capability.CONSUME)
    if isinstance(request.sink, TopicEnd):
        _require("sink", sink, Capability.PRODUCE)
    else:
        _require("sink", sink, Capability.TRANSACTION)
        if request.sink.mode is WriteMode.UPSERT:
            _require("sink", sink, Capability.UPSERT)
    if request.dead_letter is not None:
        _require("dead_letter", dead_letter, Capability.PRODUCE)


def settled(asked: Mapping[str, Any], sink: Collection[Capability]) -> dict[str, Any]:
    """The same with `sink.into`, a name of either kind, as the topic or the table that it is for this sink."""
    end = dict(_mapping(asked, "sink"))
    if (into := end.pop("into", None)) is not None:
        end["topic" if Capability.PRODUCE in sink else "table"] = into
    return {**asked, "sink": end}


def _require(role: str, able: Collection[Capability], needed: Capability) -> None:
    if needed in able:
        return
    does = {
        Capability.CONSUME: "give messages to consumer groups",
        Capability.PRODUCE: "take messages",
        Capability.TRANSACTION: "keep rows and a checkpoint in one transaction",
        Capability.UPSERT: "upsert rows",
    }[needed]
    can = ", ".join(sorted(able)) or "nothing: no driver is for its type"
    step = {
        "source": "Name a connection to a broker, such as one of type KAFKA, NATS or REDIS.",
        "sink": "Name a broker with a topic, or a database with a table.",
        "dead_letter": "Name a broker with a topic, or leave it out: the job then keeps what cannot be answered.",
    }[role]
    raise BadInput(f"The {role} cannot {does}. It can: {can}.", step)


def _check_no_circle(request: StreamRequest) -> None:
    for role, end in (("sink", request.sink), ("dead_letter", request.dead_letter)):
        if end == request.source:
            raise BadInput(
                f"The {role} is the source's own topic '{request.source.topic}': each answer would be asked again.",
                "Name another topic.",
            )


def _sink(end: Mapping[str, Any]) -> TopicEnd | TableEnd:
    if ("topic" in end) == ("table" in end):
        raise BadInput("The sink names a topic or a table, one of them.", _EXAMPLE)
    if "topic" in end:
        return _topic(end, "sink")
    mode = end.get("mode") or WriteMode.APPEND
    if mode not in (WriteMode.APPEND, WriteMode.UPSERT):
        raise BadInput("The sink's mode is none that a stream has.", "Pass 'append' or 'upsert'.")
    return TableEnd(_text(end, "connection_id", "sink"), _text(end, "table", "sink"), WriteMode(mode))


def _topic(end: Mapping[str, Any], role: str) -> TopicEnd:
    return TopicEnd(_text(end, "connection_id", role), _text(end, "topic", role))


def _mapping(asked: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = asked.get(name)
    if not isinstance(value, dict):
        raise BadInput(f"The request's '{name}' is no object.", _EXAMPLE)
    return value


def _text(end: Mapping[str, Any], name: str, role: str = "") -> str:
    value = end.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > 1_000:
        where = f"{role}.{name}" if role else name
        raise BadInput(f"The request's '{where}' is no text, or an empty one.", "Pass a name.")
    return value


def _names(keep: object) -> tuple[str, ...]:
    if not isinstance(keep, (list, tuple)) or not all(isinstance(name, str) and name for name in keep):
        raise BadInput("The request's 'keep' is no list of names.", "Pass names of fields, such as ['id'].")
    if len(set(keep)) != len(keep):
        raise BadInput("The request's 'keep' names a field twice.", "Name each field once.")
    if taken := sorted(set(keep) & {*RESERVED, SOURCE, KEY}):
        raise BadInput(f"The request's 'keep' names {taken}, which a prediction has of its own.", "Keep other fields.")
    return tuple(keep)


def _whole(asked: Mapping[str, Any], name: str, least: int, most: int, default: int | None) -> int:
    value = default if asked.get(name) is None else asked[name]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadInput(f"The request's '{name}' is no whole number from {least} to {most}.", "Pass one that is.")
    return value


def _seconds(asked: Mapping[str, Any], name: str, most: float, default: float) -> float:
    value = default if asked.get(name) is None else asked[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise BadInput(f"The request's '{name}' is no number of seconds up to {most:g}.", "Pass one above 0.")
    return float(value)
