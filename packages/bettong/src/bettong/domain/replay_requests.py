"""What a replay is asked to do, and which logged columns the version takes that it is replayed through."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from bettong.domain.schema import decode_schema_text, encode_schema
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DEFAULT_TOLERANCE = 1e-6
_SHOWN = 20  # columns that an error names
Kind: TypeAlias = Any  # a pa.DataType


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """Which logged rows are replayed, and how answers are compared.

    Args:
        start, end: aware; `start` is included, `end` is not.
        limit: read at most so many rows, the oldest first; None: all.
        tolerance: how far numbers may be apart (`domain.agreement`).
        failed: replay the requests too that failed.
        inputs: keep the inputs beside the answers.

    Raises:
        BadInput: one of them cannot be used.
    """

    start: datetime
    end: datetime
    limit: int | None = None
    tolerance: float = DEFAULT_TOLERANCE
    failed: bool = False
    inputs: bool = True

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise BadInput("A replay was asked for with a time that has no time zone.", "Give times with an offset.")
        if self.start >= self.end:
            raise BadInput(
                f"The replay would begin at {self.start.isoformat()} and end at {self.end.isoformat()}.",
                "Give a start that is before the end.",
            )
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"The replay has a limit of {self.limit} rows.", "Give 1 or more, or none.")
        if not (math.isfinite(self.tolerance) and self.tolerance >= 0):
            raise BadInput("The tolerance is no number of 0 or more.", "Give one such as 1e-6.")


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """One replay as its job keeps it: what was asked for, with everything that is named resolved.

    Args:
        pipeline_version: UUID of the version that rows are replayed through.
        topic, failures_topic: of the pipeline's logs.
        takes: the columns that the version takes.
        keys: columns that it takes as well when a request has them.
        by_request: whether its steps look at a request as a whole (a split goes by its first row), so that rows have to
            be sent in the requests in which they came.
    """

    pipeline_id: int
    pipeline_version: str
    topic: str
    failures_topic: str
    window: ReplayWindow
    takes: pa.Schema
    keys: tuple[str, ...] = ()
    by_request: bool = False

    def to_document(self) -> dict[str, Any]:
        """As JSON keeps it."""
        window = self.window
        return {
            "pipeline_id": self.pipeline_id,
            "pipeline_version": self.pipeline_version,
            "topic": self.topic,
            "failures_topic": self.failures_topic,
            "start": window.start.isoformat(),
            "end": window.end.isoformat(),
            "limit": window.limit,
            "tolerance": window.tolerance,
            "failed": window.failed,
            "inputs": window.inputs,
            "takes": base64.b64encode(encode_schema(self.takes)).decode(),
            "keys": list(self.keys),
            "by_request": self.by_request,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ReplayRequest:
        return cls(
            document["pipeline_id"],
            document["pipeline_version"],
            document["topic"],
            document["failures_topic"],
            ReplayWindow(
                datetime.fromisoformat(document["start"]),
                datetime.fromisoformat(document["end"]),
                document["limit"],
                document["tolerance"],
                document["failed"],
                document["inputs"],
            ),
            decode_schema_text(document["takes"]),
            tuple(document["keys"]),
            document["by_request"],
        )


@dataclass(frozen=True, slots=True)
class Fit:
    """How log rows of one schema go into a version.

    Args:
        columns: of the log, with the names under which they are sent.
        dropped: columns that the version needs and that were too large for the log.
        missing: columns that it needs and that were not among the inputs, or were of another type, in words.
    """

    columns: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return not self.dropped and not self.missing

    @property
    def problem(self) -> str:
        """Why these rows cannot be replayed, in words; "" when they can."""
        if self.missing:
            more = f" and {len(self.missing) - _SHOWN} more" if len(self.missing) > _SHOWN else ""
            return f"the version takes {', '.join(self.missing[:_SHOWN])}{more}"
        if self.dropped:
            return f"too large for the log: {', '.join(self.dropped[:_SHOWN])}"
        return ""


def fit(logged: pa.Schema, dropped: Sequence[str], takes: pa.Schema, keys: Sequence[str] = ()) -> Fit:
    """How rows of a log go into a version that takes `takes`; logged inputs that it does not take stay behind.

    `dropped` are the names (`in.image`) that `metadata.dropped` has in these rows.
    """
    columns: list[tuple[str, str]] = []
    gone: list[str] = []
    missing: list[str] = []
    for field in takes:
        name = f"in.{field.name}"
        if (at := logged.get_field_index(name)) < 0:
            if name in dropped:
                gone.append(name)
            else:
                missing.append(f"'{field.name}' ({field.type}), which was not logged")
        elif not _goes_into(found := logged.field(at).type, field.type):
            missing.append(f"'{field.name}' as {field.type}, which was logged as {found}")
        else:
            columns.append((name, field.name))
    columns += [(f"in.{key}", key) for key in keys if f"in.{key}" in logged.names and takes.get_field_index(key) < 0]
    return Fit(tuple(columns), tuple(gone), tuple(missing))


def _goes_into(found: Kind, wanted: Kind) -> bool:
    """Whether a deployment takes a column of one type for one of another, values permitting."""
    if found == wanted:
        return True
    if is_list(found) and is_list(wanted):
        if not is_list(found.value_type) and (tensor := _tensor_size(wanted)):
            size, leaf = tensor  # one of several dimensions may come as a flat list
            return _size(found) in (None, size) and _goes_into(found.value_type, leaf)
        sizes = {_size(found), _size(wanted)} - {None}
        return len(sizes) < 2 and _goes_into(found.value_type, wanted.value_type)
    if pa.types.is_struct(found) and pa.types.is_struct(wanted):
        parts = {found.field(i).name: found.field(i).type for i in range(found.num_fields)}
        fields = [wanted.field(i) for i in range(wanted.num_fields)]
        return parts.keys() == {f.name for f in fields} and all(_goes_into(parts[f.name], f.type) for f in fields)
    return any(one(found) and other(wanted) for one, other in _CASTS)


def _size(kind: Kind) -> int | None:
    """How many items lists of this type have, if they all have as many."""
    return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None


def _tensor_size(kind: Kind) -> tuple[int, Kind] | None:
    """How many values lists in lists of fixed sizes hold in all, and the type of these; None for other lists."""
    count, levels = 1, 0
    while pa.types.is_fixed_size_list(kind):
        count, levels, kind = count * kind.list_size, levels + 1, kind.value_type
    return (count, kind) if levels > 1 and not is_list(kind) else None


def is_list(kind: Kind) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def is_text(kind: Kind) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_bytes(kind: Kind) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


_CASTS = (  # as a replica casts an Arrow body
    (pa.types.is_integer, pa.types.is_integer),
    (pa.types.is_integer, pa.types.is_floating),
    (pa.types.is_floating, pa.types.is_floating),
    (is_text, is_text),
    (is_bytes, is_bytes),
    (pa.types.is_timestamp, pa.types.is_timestamp),
    (pa.types.is_date, pa.types.is_date),
    (pa.types.is_date, pa.types.is_timestamp),
    (pa.types.is_decimal, pa.types.is_decimal),
)
