"""What is asked of a batch inference: where rows come from, where answers go, and what holds for them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bettong.domain.drivers import ReadOrder, WriteMode
from bettong.domain.schema import decode_schema_text, encode_schema
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

MAX_REJECTS = 1_000
MOST_REJECTS = 1_000_000
_BOUNDS = "Pass how many rows may be rejected, such as 100, or which share of them, such as 0.05."
LINEAGE = ("job_id", "pipeline_version", "model_version")


@dataclass(frozen=True, slots=True)
class Guarantee:
    """What holds for the rows that a batch inference writes, whatever is killed meanwhile.

    Attributes:
        exactly_once: whether each row of the source has one answer in the target at the end.
        goes_on: whether a new attempt goes on where the last one stopped; otherwise it starts over.
    """

    exactly_once: bool
    goes_on: bool
    words: str


def guarantee(order: ReadOrder, transactional: bool, mode: WriteMode, keys: Sequence[str]) -> Guarantee:
    """What can be promised for a source that reads in this order and such a sink."""
    goes_on = order is ReadOrder.STABLE or (order is ReadOrder.KEYS and bool(keys))
    if transactional and goes_on:
        return Guarantee(True, True, "exactly once: each batch and its checkpoint are kept in one transaction")
    if mode is WriteMode.UPSERT:
        return Guarantee(True, goes_on, "exactly once: what is written twice takes its own place")
    if mode is WriteMode.REPLACE:
        return Guarantee(True, False, "exactly once: a new attempt starts over and replaces what the last one wrote")
    if not transactional:
        why = "the target has no transactions"
    elif order is ReadOrder.KEYS:
        why = "there are no keys to read in the order of"
    else:
        why = "the source gives its rows in any order"
    return Guarantee(False, False, f"at least once: a new attempt starts over and writes rows again, since {why}")


@dataclass(frozen=True, slots=True)
class Columns:
    """What a pipeline version takes and gives.

    Attributes:
        takes: the columns of its rows.
        keys: columns that it takes as well when a request has them.
        gives: the columns of its answers: `time`, `in.*`, `out.*`, `anomaly.*` and so on.
        by_request: whether its steps look at a request as a whole (a split goes by its first row): then every row is a
            request of its own.
    """

    takes: pa.Schema
    keys: tuple[str, ...]
    gives: pa.Schema
    by_request: bool = False


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A batch inference, checked as far as it can be without its source.

    Attributes:
        pipeline_version: UUID of the version that answers.
        parameters: bound to the query.
        map: by column of the model the column of the source that it is, or the columns that are its list. Columns that
            it does not name have the same name in both.
        keys: columns of the source that stand beside the answers, too. Rows are read in their order where the source
            can do that.
        outputs: by column of the target the column of the answer that it is, such as `forecast`, `out.forecast`,
            `anomaly.count` or `forecast[0]`; None stands for each `out.x` as `x`.
        lineage: whether rows say which job and which versions they are from.
        max_rejects: with more rows than that rejected, the job fails; a float is a share of all rows, from 0 to 1.
    """

    pipeline_id: int
    pipeline_version: str
    columns: Columns
    source_id: str
    query: str
    sink_id: str
    table: str
    mode: WriteMode = WriteMode.APPEND
    parameters: tuple[Any, ...] = ()
    map: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    outputs: Mapping[str, str] | None = None
    lineage: bool = False
    max_rejects: float = MAX_REJECTS

    def to_document(self) -> dict[str, Any]:
        """As JSON keeps it, and `parse` reads it."""
        return {
            "pipeline_id": self.pipeline_id,
            "pipeline_version": self.pipeline_version,
            "takes": _text_of(self.columns.takes),
            "takes_keys": list(self.columns.keys),
            "gives": _text_of(self.columns.gives),
            "by_request": self.columns.by_request,
            "source": {"connection_id": self.source_id, "query": self.query, "parameters": list(self.parameters)},
            "sink": {"connection_id": self.sink_id, "table": self.table, "mode": self.mode.value},
            "map": {name: list(of) if isinstance(of, tuple) else of for name, of in self.map.items()},
            "keys": list(self.keys),
            "outputs": None if self.outputs is None else dict(self.outputs),
            "lineage": self.lineage,
            "max_rejects": self.max_rejects,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> BatchRequest:
        takes, gives = decode_schema_text(document["takes"]), decode_schema_text(document["gives"])
        return parse(document, Columns(takes, tuple(document["takes_keys"]), gives, document["by_request"]))


def parse(asked: Mapping[str, Any], columns: Columns) -> BatchRequest:
    """The request as it came from a caller, for a version that takes and gives `columns`.

    Raises:
        BadInput: something is missing, or is none of what it may be, or the pipeline has no such column.
    """
    source, sink = _object(asked, "source"), _object(asked, "sink")
    keys = _names(asked.get("keys") or (), "keys")
    mode = sink.get("mode") or WriteMode.APPEND
    if mode not in set(WriteMode):
        raise BadInput("The sink's mode is none that there is.", f"Pass one of: {', '.join(WriteMode)}.")
    if mode == WriteMode.UPSERT and not keys:
        raise BadInput("Upsert needs key columns, and none were named.", "Pass keys, such as keys=['day'].")
    parameters = source.get("parameters") or ()
    if not isinstance(parameters, (list, tuple)):
        raise BadInput("The source's parameters are no list.", "Pass one value for each mark of the query.")
    request = BatchRequest(
        pipeline_id=int(asked["pipeline_id"]),
        pipeline_version=_text(asked, "pipeline_version"),
        columns=columns,
        source_id=_text(source, "connection_id", "source."),
        query=_text(source, "query", "source.", optional=True),
        sink_id=_text(sink, "connection_id", "sink."),
        table=_text(sink, "table", "sink."),
        mode=WriteMode(mode),
        parameters=tuple(parameters),
        map=_map(asked.get("map") or {}, columns),
        keys=keys,
        outputs=_outputs(asked.get("outputs")),
        lineage=_flag(asked, "lineage"),
        max_rejects=_bound(asked),
    )
    _check_names(request)
    return request


def picked(of: str, gives: pa.Schema) -> tuple[str, int | None]:
    """The column of an answer that a name stands for, and the item of its lists, None for all of it.

    Raises:
        BadInput: answers have no such column, or one that is no list, or a list of fixed size without that item.
    """
    name, bracket, rest = of.rpartition("[")
    item: int | None = None
    if bracket and rest.endswith("]") and rest[:-1].isdigit():
        item = int(rest[:-1])
    else:
        name = of
    column = next((found for found in (name, f"out.{name}") if found in gives.names), None)
    if column is None:
        there = ", ".join(found.removeprefix("out.") for found in gives.names if not found.startswith(("in.", "time")))
        raise BadInput(f"Answers have no column '{name}'.", f"They have: {there}. Name these in outputs.")
    kind: Any = gives.field(column).type
    if item is not None and not hasattr(kind, "value_type"):
        raise BadInput(f"'{of}' picks an item, and column '{name}' is {kind}, no list.", f"Write '{name}'.")
    size = getattr(kind, "list_size", None)
    if item is not None and size is not None and item >= size:
        raise BadInput(
            f"'{of}' picks an item that column '{name}' never has: it is a list of {size}.",
            f"Items are counted from 0: the last is '{name}[{size - 1}]'." if size else "Name another column.",
        )
    return column, item


def outputs_of(request: BatchRequest) -> dict[str, tuple[str, int | None]]:
    """By column of the target: the column of the answer, and the item of its lists. Raises BadInput."""
    gives = request.columns.gives
    named = request.outputs
    if named is None:
        named = {name.removeprefix("out."): name for name in gives.names if name.startswith("out.")}
    return {name: picked(of, gives) for name, of in named.items()}


def _check_names(request: BatchRequest) -> None:
    outputs = outputs_of(request)
    if not outputs:
        raise BadInput("The outputs name no column.", "Name at least one, or leave outputs out.")
    lineage = LINEAGE if request.lineage else ()
    if twice := sorted((set(request.keys) & set(outputs)) | (set(lineage) & {*request.keys, *outputs})):
        raise BadInput(
            f"The target would have two columns '{twice[0]}'.", "Give the answer's another name with outputs={name: …}."
        )


def _map(given: object, columns: Columns) -> dict[str, str | tuple[str, ...]]:
    if not isinstance(given, dict):
        raise BadInput("The request's 'map' is no object.", "Pass {model column: source column}.")
    known = [*columns.takes.names, *columns.keys]
    found: dict[str, str | tuple[str, ...]] = {}
    for name, of in given.items():
        if name not in known:
            raise BadInput(f"The map names '{name}', which the pipeline does not take.", f"It takes: {_told(known)}.")
        if isinstance(of, str) and of:
            found[name] = of
            continue
        found[name] = _names(of, f"map.{name}")
        kind: Any = columns.takes.field(name).type if name in columns.takes.names else None
        if not found[name] or not hasattr(kind, "value_type") or hasattr(kind.value_type, "value_type"):
            raise BadInput(f"The map gives several columns for '{name}', which is no list.", "Name one column.")
        if getattr(kind, "list_size", len(found[name])) != len(found[name]):
            raise BadInput(
                f"The map gives {len(found[name])} columns for '{name}', a list of {kind.list_size}.",
                "Name one for each item, in their order.",
            )
    return found


def _outputs(given: object) -> dict[str, str] | None:
    if given is None:
        return None
    if not isinstance(given, dict) or not all(isinstance(of, str) and name for name, of in given.items()):
        raise BadInput("The request's 'outputs' is no object of names.", "Pass {target column: answer's column}.")
    return dict(given)


def _object(asked: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = asked.get(name)
    if not isinstance(value, dict):
        raise BadInput(f"The request's '{name}' is no object.", 'Pass {"connection_id": …} and the rest.')
    return value


def _text(asked: Mapping[str, Any], name: str, where: str = "", *, optional: bool = False) -> str:
    value = asked.get(name)
    if optional and value is None:
        return ""
    if not isinstance(value, str) or not (value.strip() or optional):
        raise BadInput(f"The request's '{where}{name}' is no text, or an empty one.", "Pass a text.")
    return value


def _names(given: object, what: str) -> tuple[str, ...]:
    if not isinstance(given, (list, tuple)) or not all(isinstance(name, str) and name for name in given):
        raise BadInput(f"The request's '{what}' is no list of column names.", "Pass a list, such as ['day'].")
    if len(set(given)) != len(given):
        raise BadInput(f"The request's '{what}' names a column twice.", "Name each once.")
    return tuple(given)


def _flag(asked: Mapping[str, Any], name: str) -> bool:
    value = asked.get(name) or False
    if not isinstance(value, bool):
        raise BadInput(f"The request's '{name}' is neither true nor false.", "Pass one of these.")
    return value


def _bound(asked: Mapping[str, Any]) -> float:
    value = asked.get("max_rejects")
    if value is None:
        return MAX_REJECTS
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadInput("The request's 'max_rejects' is no number.", _BOUNDS)
    if isinstance(value, int) and not 0 <= value <= MOST_REJECTS:
        raise BadInput(f"The request's 'max_rejects' is no whole number from 0 to {MOST_REJECTS}.", _BOUNDS)
    if isinstance(value, float) and not 0 <= value < 1:
        raise BadInput("The request's 'max_rejects' is a fraction that is no share below 1.", _BOUNDS)
    return value


def _told(names: Sequence[str]) -> str:
    return ", ".join(names)


def _text_of(schema: pa.Schema) -> str:
    return base64.b64encode(encode_schema(schema)).decode()
