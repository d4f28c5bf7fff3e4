"""What is asked of a stream inference: where messages come from, where predictions go, and how much may go wrong."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.batch_requests import Columns
from bettong.domain.drivers import Capability, WriteMode
from bettong.domain.schema import decode_schema_text, encode_schema
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

RESERVED = ("out", "anomaly", "time")  # what a prediction has beside the fields that it keeps
SOURCE = "bettong_source"  # the column of a table that says which message a row answers
KEY = "bettong_key"
MOST_MESSAGES = 1_000
MOST_REJECTS = 100_000
_LONGEST_WAIT_S = 5.0
_TIME, _COUNT = "time", "anomaly.count"
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
class StreamRequest:
    """A stream inference, checked.

    Attributes:
        pipeline_version: UUID of the version that answers.
        columns: what it takes and gives. Where it looks at requests as a whole, every message is one.
        keep: fields of a message that stand in its prediction, too; one that a message lacks is null.
        max_messages: the most that are taken, and asked of the model, at once.
        wait_s: how long one look at the topic waits when nothing is there.
        max_rejects: without a dead-letter topic the job keeps so many messages that cannot be answered, and stops then.
        stop_when_idle_s: end once no message came for so long; None goes on until the job is cancelled.
    """

    pipeline_id: int
    pipeline_version: str
    columns: Columns
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
            "takes": base64.b64encode(encode_schema(self.columns.takes)).decode(),
            "gives": base64.b64encode(encode_schema(self.columns.gives)).decode(),
            "keys": list(self.columns.keys),
            "by_request": self.columns.by_request,
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
        takes, gives = decode_schema_text(document["takes"]), decode_schema_text(document["gives"])
        return parse(document, Columns(takes, tuple(document["keys"]), gives, document["by_request"]))

    @property
    def connection_ids(self) -> tuple[str, ...]:
        ends = (self.source, self.sink, self.dead_letter)
        return tuple(dict.fromkeys(end.connection_id for end in ends if end is not None))

    @property
    def guarantee(self) -> str:
        """What holds for its predictions, for people."""
        if isinstance(self.sink, TableEnd):
            how = (
                "a batch and its checkpoint are kept in one transaction"
                if self.sink.mode is WriteMode.APPEND
                else f"rows of the same one ({SOURCE}) take each other's place"
            )
            return f"exactly once, of messages that their broker knows again: {how}"
        return "at least once: what comes twice after a failure has the same bettong-source"


def default_group(workspace_id: int, pipeline: str) -> str:
    """The consumer group of a pipeline's streams that name none."""
    return f"bettong-{workspace_id}-{pipeline}"


def parse(asked: Mapping[str, Any], columns: Columns, group: str = "") -> StreamRequest:
    """The request as it came from a caller.

    A sink is `{"connection_id", "topic"}` or `{"connection_id", "table", "mode"?}`.

    Args:
        columns: of the version that is asked for.
        group: stands for one that is not named.

    Raises:
        BadInput: something is missing or none of what it may be; the field is named.
    """
    source = _mapping(asked, "source")
    dead_letter = asked.get("dead_letter")
    request = StreamRequest(
        pipeline_id=_whole(asked, "pipeline_id", 1, 2**63 - 1, None),
        pipeline_version=_text(asked, "pipeline_version"),
        columns=columns,
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
    if isinstance(request.sink, TableEnd):
        _check_columns(request)
    return request


def answered(names: Sequence[str]) -> list[str]:
    """Which columns of an answer go on: not the inputs, and the number of anomalies where something counts them."""
    marked = any(name.startswith("anomaly.") and name != _COUNT for name in names)
    parts = [name for name in names if name.startswith(("out.", "out_"))]
    parts += [name for name in names if name.startswith("anomaly.") and marked]
    return [*parts, *(name for name in names if name == _TIME)]


def table_columns(names: Sequence[str]) -> dict[str, str]:
    """The columns of a table for those of answers: `out.x` is `x`, `out_m.x` is `m_x`, `anomaly.x` is `anomaly_x`."""
    found = {}
    for name in answered(names):
        group, dot, rest = name.partition(".")
        found[name] = rest if group == "out" else f"{group.removeprefix('out_')}_{rest}" if dot else name
    return found


def settled(asked: Mapping[str, Any], sink: Collection[Capability]) -> dict[str, Any]:
    """The same with `sink.into`, a name of either kind, as the topic or the table that it is for this sink."""
    end = dict(_mapping(asked, "sink"))
    if (into := end.pop("into", None)) is not None:
        end["topic" if Capability.PRODUCE in sink else "table"] = into
    return {**asked, "sink": end}


def _check_columns(request: StreamRequest) -> None:
    outputs = list(table_columns(request.columns.gives.names).values())
    if twice := sorted({name for name in outputs if outputs.count(name) > 1}):
        raise BadInput(f"The pipeline gives {twice} more than once.", "Write to a topic instead of a table.")
    if twice := sorted(set(outputs) & set(request.keep)):
        raise BadInput(f"The stream would keep {twice}, which the pipeline gives as well.", "Keep other fields.")


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
        if end.get("mode") not in (None, WriteMode.APPEND):
            raise BadInput(
                "The sink is a topic, which has no mode: messages are only ever added to it.",
                "Leave mode out, or name a connection to a database as sink, with a table.",
            )
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
