"""What engines count: requests, rows and how long everything took, as values that can be added up and sent.

Counters only grow. Times are nanoseconds, in buckets of which ten make a power of ten, so that a quantile read from
them is off by a quarter at most; batch sizes are in buckets that double.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DECADE = (100, 125, 160, 200, 250, 315, 400, 500, 630, 800)  # as even on a logarithmic scale as short numbers are
# 1 µs to 100 s: what a step that does nothing takes, and more than any request may
TIME_EDGES_NS = (*(number * 10**power for power in range(1, 9) for number in _DECADE), 10**11)
ROW_EDGES = tuple(2**power for power in range(21))
STAGES = ("parse", "log", "encode")  # of every request, beside its steps


@dataclass(frozen=True, slots=True)
class Histogram:
    """How many values fell where. `counts[n]` are those above `edges[n - 1]` and up to `edges[n]`; the last one, behind
    all edges, those above every edge. `sum` is that of the values."""

    edges: tuple[int, ...]
    counts: tuple[int, ...]
    sum: int

    @classmethod
    def empty(cls, edges: tuple[int, ...]) -> Histogram:
        return cls(edges, (0,) * (len(edges) + 1), 0)

    @property
    def count(self) -> int:
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(self.edges, counts, self.sum + other.sum)


@dataclass(frozen=True, slots=True)
class Counted:
    """What one replica, or several together, have counted.

    Args:
        requests: answers by HTTP status.
        rejected: those among the 503 that came to a replica at its limit.
        log_rows, log_bytes: written to the inference and failures logs.
        batch_rows: rows of each answered inference; its `sum` is all rows processed.
        duration: from a whole request to its answer, of the inferences that were taken, failed ones included.
        stages: of each of STAGES.
        steps: of each step by its name.
        worker_restarts: of each step by its name.
    """

    requests: dict[int, int] = field(default_factory=dict)
    rejected: int = 0
    log_rows: int = 0
    log_bytes: int = 0
    batch_rows: Histogram = field(default_factory=lambda: Histogram.empty(ROW_EDGES))
    duration: Histogram = field(default_factory=lambda: Histogram.empty(TIME_EDGES_NS))
    stages: dict[str, Histogram] = field(default_factory=dict)
    steps: dict[str, Histogram] = field(default_factory=dict)
    worker_restarts: dict[str, int] = field(default_factory=dict)

    def __add__(self, other: Counted) -> Counted:
        return Counted(
            requests=_added(self.requests, other.requests),
            rejected=self.rejected + other.rejected,
            log_rows=self.log_rows + other.log_rows,
            log_bytes=self.log_bytes + other.log_bytes,
            batch_rows=self.batch_rows + other.batch_rows,
            duration=self.duration + other.duration,
            stages=_added(self.stages, other.stages),
            steps=_added(self.steps, other.steps),
            worker_restarts=_added(self.worker_restarts, other.worker_restarts),
        )


@dataclass(frozen=True, slots=True)
class ReplicaMetrics:
    """A living replica. `in_flight` inferences are taken and not answered; of these, `waiting` run in no model yet."""

    name: str
    pid: int
    in_flight: int
    waiting: int
    counted: Counted


@dataclass(frozen=True, slots=True)
class DeploymentMetrics:
    """A deployment since `since`, when its host began, until `at`, now.

    `total` is what all its replicas have counted, those that are gone included: no count in it ever gets smaller.
    `replica_restarts` counts replicas that ended without having been told to.
    """

    label: str
    pipeline: str
    since: datetime
    at: datetime
    replica_restarts: int
    total: Counted
    replicas: tuple[ReplicaMetrics, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """As JSON has it: names of statuses are texts, times ISO-8601, and the edges of histograms stand once."""
        replicas = [{**asdict(r), "counted": _document(r.counted)} for r in self.replicas]
        return {
            "label": self.label,
            "pipeline": self.pipeline,
            "since": self.since.isoformat(timespec="microseconds"),
            "at": self.at.isoformat(timespec="microseconds"),
            "time_edges_ns": list(TIME_EDGES_NS),
            "row_edges": list(ROW_EDGES),
            "replica_restarts": self.replica_restarts,
            "total": _document(self.total),
            "replicas": replicas,
        }

    @classmethod
    def from_json(cls, text: str | bytes) -> DeploymentMetrics:
        """From the text of a document.

        Raises:
            ValueError: it has other buckets than ours: its host is of another release.
        """
        document = json.loads(text)
        if (document["time_edges_ns"], document["row_edges"]) != (list(TIME_EDGES_NS), list(ROW_EDGES)):
            raise ValueError("The host counts in other buckets; the platform was updated: redeploy.")
        return cls(
            label=document["label"],
            pipeline=document["pipeline"],
            since=datetime.fromisoformat(document["since"]),
            at=datetime.fromisoformat(document["at"]),
            replica_restarts=document["replica_restarts"],
            total=_counted(document["total"]),
            replicas=tuple(ReplicaMetrics(**{**r, "counted": _counted(r["counted"])}) for r in document["replicas"]),
        )


def step_names(models: Iterable[str]) -> tuple[str, ...]:
    """What the steps of a pipeline are called, given the names of their models: a name that comes again is numbered."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for model in models:
        seen[model] = seen.get(model, 0) + 1
        names.append(model if seen[model] == 1 else f"{model}#{seen[model]}")
    return tuple(names)


def _added(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    return {**one, **{name: one[name] + value if name in one else value for name, value in other.items()}}


def _document(counted: Counted) -> dict[str, Any]:
    return {
        "requests": {str(status): n for status, n in sorted(counted.requests.items())},
        "rejected": counted.rejected,
        "log_rows": counted.log_rows,
        "log_bytes": counted.log_bytes,
        "batch_rows": _bare(counted.batch_rows),
        "duration": _bare(counted.duration),
        "stages": {name: _bare(each) for name, each in counted.stages.items()},
        "steps": {name: _bare(each) for name, each in counted.steps.items()},
        "worker_restarts": dict(counted.worker_restarts),
    }


def _counted(document: dict[str, Any]) -> Counted:
    return Counted(
        **{
            **document,
            "requests": {int(status): n for status, n in document["requests"].items()},
            "batch_rows": _histogram(ROW_EDGES, document["batch_rows"]),
            "duration": _histogram(TIME_EDGES_NS, document["duration"]),
            "stages": {name: _histogram(TIME_EDGES_NS, each) for name, each in document["stages"].items()},
            "steps": {name: _histogram(TIME_EDGES_NS, each) for name, each in document["steps"].items()},
        }
    )


def _bare(histogram: Histogram) -> dict[str, Any]:
    return {"counts": list(histogram.counts), "sum": histogram.sum}


def _histogram(edges: tuple[int, ...], bare: dict[str, Any]) -> Histogram:
    return Histogram(edges, tuple(bare["counts"]), bare["sum"])
