"""What is asked of an inference log and what comes back (spec 8)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    import pyarrow as pa


def topic_of(workspace_id: int, pipeline_name: str, *, failures: bool = False) -> str:
    """The name of a pipeline's log."""
    return f"workspace-{workspace_id}-pipeline-{pipeline_name}-{'failures' if failures else 'inference'}"


def challengers_topic_of(workspace_id: int, pipeline_name: str) -> str:
    """The name of the log of challengers for which answers do not wait."""
    return f"workspace-{workspace_id}-pipeline-{pipeline_name}-challengers"


SEGMENT_BYTES, LEAST_SEGMENT_BYTES = 64 * 2**20, 2**20


def segment_bytes(bytes_per_topic: int, replicas: int) -> int:
    """How large a replica's segment of a log grows. One that is being written is never dropped, so those of all
    replicas take at most a quarter of what the log may take."""
    return max(LEAST_SEGMENT_BYTES, min(SEGMENT_BYTES, bytes_per_topic // (4 * replicas)))


@dataclass(frozen=True, eq=False, slots=True)
class LogShape:
    """Log rows of one kind, most of whose columns say the same in every row: made once, written many times.

    `schema` has all columns as readers get them. `constant` columns have one value for good; `shared` ones have one
    value per request, given in this order; the others, in the order of `schema`, have one per row: `by_row`. Constant
    and shared values are what JSON keeps exactly: texts, integers, booleans, and lists of these. `time` is none of the
    three: it is given with each request.
    """

    schema: pa.Schema
    constant: Mapping[str, Any]
    shared: tuple[str, ...]
    by_row: pa.Schema


class OnLogFull(StrEnum):
    """What becomes of an inference whose row finds no space in the log."""

    STOP = "stop"  # it is not answered (507)
    CONTINUE = "continue"  # it is answered, and its missing row is counted


class PageStatus(StrEnum):
    ALL = "All"
    RECORD_LIMITED = "RecordLimited"
    BYTE_LIMITED = "ByteLimited"
    SCHEMA_CHANGE = "SchemaChange"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """One page of a topic. `start` is included, `end` is not; both aware. `newest_first` orders by time, then arrival.

    `cursor` continues after an earlier page of the same query. `columns` prefixes choose what comes back, as `dataset`
    does in spec 7.4; `exclude` is applied after them.
    """

    topic: str
    limit: int = 1000
    newest_first: bool = False
    start: datetime | None = None
    end: datetime | None = None
    cursor: str | None = None
    columns: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    max_bytes: int = 10 * 2**20


@dataclass(frozen=True, slots=True)
class LogPage:
    """Rows of one schema. `cursor` is None when nothing follows."""

    table: pa.Table
    status: PageStatus
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """Rows per partition and bytes on disk."""

    partitions: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
