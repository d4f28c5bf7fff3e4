"""The Prometheus text format (version 0.0.4), and what is told in it: one family per name, in the order of adding."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bettong.domain.metrics import Counted, DeploymentMetrics, Histogram, ReplicaMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]
Labels = dict[str, str]


@dataclass(slots=True)
class _Family:
    kind: Kind
    about: str
    lines: list[str] = field(default_factory=list)


class Exposition:
    """Collects samples; the text has each family's samples together, however they came."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def add(self, name: str, kind: Kind, about: str, value: float, labels: Labels) -> None:
        """A counter or a gauge."""
        self._family(name, kind, about).lines.append(_sample(name, labels, value))

    def add_histogram(
        self, name: str, about: str, histogram: Histogram, labels: Labels, *, edges: Iterable[int], unit: float = 1
    ) -> None:
        """A histogram by some of its edges, in `unit`s of its values: what lies between them is summed up."""
        lines = self._family(name, "histogram", about).lines
        wanted, below = set(edges), 0
        for edge, count in zip(histogram.edges, histogram.counts, strict=False):
            below += count
            if edge in wanted:
                lines.append(_sample(f"{name}_bucket", {**labels, "le": _number(edge / unit)}, below))
        lines.append(_sample(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count))
        lines.append(_sample(f"{name}_sum", labels, histogram.sum / unit if unit != 1 else histogram.sum))
        lines.append(_sample(f"{name}_count", labels, histogram.count))

    def text(self) -> str:
        parts: list[str] = []
        for name, family in self._families.items():
            parts += [f"# HELP {name} {_escaped(family.about)}", f"# TYPE {name} {family.kind}", *family.lines]
        return "\n".join([*parts, ""])

    def _family(self, name: str, kind: Kind, about: str) -> _Family:
        return self._families.setdefault(name, _Family(kind, about))


# Every third edge of the engine's: 1, 2 and 5 of each power of ten
_SHOWN_NS = (*(number * 10**power for power in range(3, 11) for number in (1, 2, 5)), 10**11)


def tell_counted(out: Exposition, counted: Counted, labels: Labels) -> None:
    """Everything that replicas count, under `labels`."""
    for status, n in sorted(counted.requests.items()):
        about = "Answered requests by HTTP status."
        out.add("bettong_requests_total", "counter", about, n, {**labels, "status": str(status)})
    out.add(
        "bettong_requests_rejected_total",
        "counter",
        "Requests answered 503 because the replica was at its limit (max_queued_requests).",
        counted.rejected,
        labels,
    )
    out.add_histogram(
        "bettong_request_duration_seconds",
        "From a whole inference request to its answer, failed ones included.",
        counted.duration,
        labels,
        edges=_SHOWN_NS,
        unit=1e9,
    )
    stages = [({"stage": name}, each) for name, each in counted.stages.items()]
    stages += [({"stage": "step", "step": name}, each) for name, each in counted.steps.items()]
    for more, each in stages:
        about = "Nanoseconds of an inference in one stage: parse, step (one model), log, encode."
        out.add_histogram("latency_histogram_ns", about, each, {**labels, **more}, edges=_SHOWN_NS)
    about = "Rows of answered inferences."
    out.add("tensor_throughput_batch_count", "counter", about, counted.batch_rows.sum, labels)
    about = "Rows of each answered inference."
    edges = counted.batch_rows.edges
    out.add_histogram("bettong_request_rows", about, counted.batch_rows, labels, edges=edges)
    about = "Rows written to the inference and failures logs."
    out.add("bettong_log_rows_total", "counter", about, counted.log_rows, labels)
    about = "Bytes written to the inference and failures logs."
    out.add("bettong_log_bytes_total", "counter", about, counted.log_bytes, labels)
    for step, n in counted.worker_restarts.items():
        about = "Starts of a model's worker after its first."
        out.add("bettong_worker_restarts_total", "counter", about, n, {**labels, "step": step})


def tell_queue(out: Exposition, in_flight: int, waiting: int, labels: Labels) -> None:
    """What a replica, or a deployment, has in hand."""
    about = "Inferences that were taken and not answered yet."
    out.add("bettong_requests_in_flight", "gauge", about, in_flight, labels)
    about = "Of those in flight, the ones that wait for a model's worker."
    out.add("bettong_requests_waiting", "gauge", about, waiting, labels)


def tell_deployment(out: Exposition, metrics: DeploymentMetrics) -> None:
    """A deployment's sums, which never shrink, and beside them, under names of their own, each living replica's."""
    labels = {"deployment": metrics.label, "pipeline": metrics.pipeline}
    replicas = metrics.replicas
    tell_counted(out, metrics.total, labels)
    tell_queue(out, sum(r.in_flight for r in replicas), sum(r.waiting for r in replicas), labels)
    about = "When the deployment's counters began, in seconds since the epoch."
    out.add("bettong_deployment_start_time_seconds", "gauge", about, metrics.since.timestamp(), labels)
    out.add("bettong_replicas", "gauge", "Living replicas.", len(replicas), labels)
    about = "Replicas that ended without having been told to."
    out.add("bettong_replica_restarts_total", "counter", about, metrics.replica_restarts, labels)
    for replica in replicas:
        _tell_replica(out, replica, {**labels, "replica": replica.name})


def _tell_replica(out: Exposition, replica: ReplicaMetrics, labels: Labels) -> None:
    counted = replica.counted
    for status, n in sorted(counted.requests.items()):
        about = "One replica's part of bettong_requests_total."
        out.add("bettong_replica_requests_total", "counter", about, n, {**labels, "status": str(status)})
    about = "One replica's part of tensor_throughput_batch_count."
    out.add("bettong_replica_rows_total", "counter", about, counted.batch_rows.sum, labels)
    about = "One replica's part of the sum of bettong_request_duration_seconds."
    out.add("bettong_replica_request_seconds_total", "counter", about, counted.duration.sum / 1e9, labels)
    about = "One replica's part of bettong_requests_in_flight."
    out.add("bettong_replica_requests_in_flight", "gauge", about, replica.in_flight, labels)
    about = "One replica's part of bettong_requests_waiting."
    out.add("bettong_replica_requests_waiting", "gauge", about, replica.waiting, labels)


def _sample(name: str, labels: Labels, value: float) -> str:
    told = ",".join(f'{label}="{_quoted(text)}"' for label, text in labels.items())
    return f"{name}{{{told}}} {_number(value)}" if told else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
