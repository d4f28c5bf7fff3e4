"""What is counted as values: sums, documents, and the text that scrapers read."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from exposition_parser import parse

from bettong.domain.exposition import Exposition, tell_deployment
from bettong.domain.metrics import (
    ROW_EDGES,
    TIME_EDGES_NS,
    Counted,
    DeploymentMetrics,
    Histogram,
    ReplicaMetrics,
    step_names,
)

SINCE, AT = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, 0, 1, tzinfo=UTC)


def histogram(*values: int, edges: tuple[int, ...] = TIME_EDGES_NS) -> Histogram:
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[next((n for n, edge in enumerate(edges) if value <= edge), len(edges))] += 1
    return Histogram(edges, tuple(counts), sum(values))


def counted(*durations_ns: int, step: str = "forecast", restarts: int = 0) -> Counted:
    """Answered requests of two rows each."""
    return Counted(
        requests={200: len(durations_ns)},
        log_rows=2 * len(durations_ns),
        log_bytes=100 * len(durations_ns),
        batch_rows=histogram(*[2 for _ in durations_ns], edges=ROW_EDGES),
        duration=histogram(*durations_ns),
        stages={"parse": histogram(*(1000 for _ in durations_ns))},
        steps={step: histogram(*durations_ns)},
        worker_restarts={step: restarts},
    )


def deployment(total: Counted, *replicas: ReplicaMetrics, pipeline: str = "rental") -> DeploymentMetrics:
    return DeploymentMetrics("rental-5", pipeline, SINCE, AT, 1, total, replicas)


def text_of(metrics: DeploymentMetrics) -> str:
    out = Exposition()
    tell_deployment(out, metrics)
    return out.text()


def test_edges_grow_evenly_from_a_microsecond_to_100_seconds() -> None:
    steps = [b / a for a, b in pairwise(TIME_EDGES_NS)]

    assert (TIME_EDGES_NS[0], TIME_EDGES_NS[-1]) == (1_000, 100_000_000_000)
    assert len(TIME_EDGES_NS) == 81
    assert 1.2 < min(steps) <= max(steps) < 1.3


def test_what_two_replicas_counted_adds_up_and_neither_changes() -> None:
    one, other = counted(2_000, 3_000), counted(5_000, step="smooth", restarts=1)

    both = one + other

    assert both.requests == {200: 3}
    assert (both.duration.count, both.duration.sum) == (3, 10_000)
    assert {name: each.count for name, each in both.steps.items()} == {"forecast": 2, "smooth": 1}
    assert both.worker_restarts == {"forecast": 0, "smooth": 1}
    assert one == counted(2_000, 3_000)
    assert Counted() + one == one


def test_a_document_gives_back_what_it_was_made_of() -> None:
    replica = ReplicaMetrics("engine-1-a-0", 77, 2, 1, counted(4_000))
    metrics = deployment(counted(4_000, 10**12), replica)

    assert DeploymentMetrics.from_json(json.dumps(metrics.to_document())) == metrics


def test_a_document_with_other_buckets_is_refused() -> None:
    document = deployment(counted(4_000)).to_document()
    document["time_edges_ns"][3] += 1

    with pytest.raises(ValueError, match="redeploy"):
        DeploymentMetrics.from_json(json.dumps(document))


def test_steps_of_one_model_are_told_apart() -> None:
    assert step_names(["a", "b", "a", "a"]) == ("a", "b", "a#2", "a#3")


def test_a_scraper_reads_the_text() -> None:
    total = counted(1_500, 90_000, 10**12)
    families = parse(text_of(deployment(total, ReplicaMetrics("engine-1-a-0", 77, 2, 1, counted(1_500)))))

    labels = {"deployment": "rental-5", "pipeline": "rental"}
    assert families["bettong_requests_total"].value("bettong_requests_total", **labels, status="200") == 3
    assert families["tensor_throughput_batch_count"].value("tensor_throughput_batch_count", **labels) == 6
    assert families["bettong_replica_restarts_total"].total() == 1
    assert families["bettong_requests_in_flight"].total() == 2
    assert families["bettong_replica_requests_total"].total(replica="engine-1-a-0") == 1
    step = {**labels, "stage": "step", "step": "forecast"}
    latency = families["latency_histogram_ns"]
    assert latency.value("latency_histogram_ns_bucket", **step, le="1000") == 0
    assert latency.value("latency_histogram_ns_bucket", **step, le="2000") == 1
    assert latency.value("latency_histogram_ns_bucket", **step, le="100000") == 2
    assert latency.value("latency_histogram_ns_bucket", **step, le="+Inf") == 3
    assert latency.value("latency_histogram_ns_sum", **step) == 1_000_000_091_500
    seconds = families["bettong_request_duration_seconds"]
    assert seconds.value("bettong_request_duration_seconds_bucket", **labels, le="2e-06") == 1
    assert math.isclose(seconds.value("bettong_request_duration_seconds_sum", **labels), 1000.0000915)


def test_names_cannot_break_out_of_their_quotes() -> None:
    name = 'a"} 1\nbettong_evil{x="\\'

    families = parse(text_of(deployment(counted(1_000), pipeline=name)))

    assert families["bettong_replicas"].total(pipeline=name) == 0
    assert "bettong_evil" not in families


def test_families_of_several_deployments_stand_together() -> None:
    out = Exposition()
    tell_deployment(out, deployment(counted(1_000)))
    tell_deployment(out, DeploymentMetrics("other-6", "other", SINCE, AT, 0, counted(1_000, 2_000)))

    families = parse(out.text())

    assert families["bettong_requests_total"].total() == 3
