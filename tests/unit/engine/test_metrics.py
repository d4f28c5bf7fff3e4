"""The counters of a replica: nothing is counted twice or lost, whenever somebody looks, and whatever becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_builders import deployment_spec, model_spec

from bettong.domain.metrics import ROW_EDGES, TIME_EDGES_NS
from bettong.engine import metrics
from bettong.engine.metrics import AT_LIMIT, RING, Gauges, Memory, Recorder

if TYPE_CHECKING:
    from bettong.domain.metrics import Histogram

TWO_STEPS = deployment_spec(models=(model_spec("scale"), model_spec("predict")))


def bucket_of(value: int, edges: tuple[int, ...]) -> int:
    return next((n for n, edge in enumerate(edges) if value <= edge), len(edges))


def filled(histogram: Histogram) -> dict[int, int]:
    """Counts by bucket, where there are any."""
    return {n: count for n, count in enumerate(histogram.counts) if count}


def test_an_answer_is_seen_at_once_in_all_that_it_counts_for() -> None:
    memory = Memory(TWO_STEPS)

    Recorder(memory).record(200, 3, 3, 250, 90_000, 4_000, 5_000, (1_000, 20_000, 60_000))

    counted, _ = memory.read()
    assert counted.requests == {200: 1}
    assert (counted.rejected, counted.log_rows, counted.log_bytes) == (0, 3, 250)
    assert (counted.batch_rows.count, counted.batch_rows.sum) == (1, 3)
    assert (counted.duration.count, counted.duration.sum) == (1, 90_000)
    assert {name: each.sum for name, each in counted.stages.items()} == {"parse": 1_000, "log": 4_000, "encode": 5_000}
    assert {name: each.sum for name, each in counted.steps.items()} == {"scale": 20_000, "predict": 60_000}
    assert filled(counted.steps["scale"]) == {bucket_of(20_000, TIME_EDGES_NS): 1}


def test_an_answer_that_failed_counts_as_far_as_it_came() -> None:
    memory = Memory(TWO_STEPS)

    Recorder(memory).record(500, 0, 1, 80, 50_000, 0, 0, (1_000, 20_000))

    counted, _ = memory.read()
    assert counted.requests == {500: 1}
    assert (counted.batch_rows.count, counted.duration.count, counted.log_rows) == (0, 1, 1)
    assert {name: each.count for name, each in counted.stages.items()} == {"parse": 1, "log": 0, "encode": 0}
    assert {name: each.count for name, each in counted.steps.items()} == {"scale": 1, "predict": 0}


def test_a_replica_at_its_limit_rejects_with_a_503_that_is_counted_apart() -> None:
    memory = Memory(TWO_STEPS)
    recorder = Recorder(memory)

    for status in (503, AT_LIMIT, AT_LIMIT, 418):
        recorder.record(status)

    counted, _ = memory.read()
    assert (counted.requests, counted.rejected) == ({503: 3, 418: 1}, 2)
    assert counted.duration.count == 0, "none of them was taken"


RECORDS = st.tuples(
    st.sampled_from([200, 200, 400, 503, 507, 599]),
    st.integers(0, 3_000_000),
    st.integers(0, 10**9),
    st.lists(
        st.sampled_from([0, 1, 999, 1_000, 1_001, 10**11, 10**11 + 1, 10**15]) | st.integers(0, 10**12), max_size=3
    ),
)


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(RECORDS, min_size=1, max_size=8), count=st.integers(0, 3 * RING))
def test_any_number_of_answers_counts_as_if_each_was_added_by_hand(
    kinds: list[tuple[int, int, int, list[int]]], count: int
) -> None:
    memory = Memory(TWO_STEPS)
    recorder = Recorder(memory)
    requests: dict[int, int] = {}
    rows_sum = took_sum = log_bytes = 0
    rows_in: dict[int, int] = {}
    took_in: dict[int, int] = {}

    for n in range(count):
        status, rows, logged, elapsed = kinds[n % len(kinds)]
        recorder.record(status, rows, 1, logged, 10, 10, 10, elapsed)
        requests[status] = requests.get(status, 0) + 1
        log_bytes += logged
        if status == 200:
            rows_sum += rows
            at = bucket_of(rows, ROW_EDGES)
            rows_in[at] = rows_in.get(at, 0) + 1
        if elapsed and elapsed[0]:
            took_sum += elapsed[0]
            at = bucket_of(elapsed[0], TIME_EDGES_NS)
            took_in[at] = took_in.get(at, 0) + 1

    counted, _ = memory.read()
    assert counted.requests == requests
    assert (counted.log_rows, counted.log_bytes) == (count, log_bytes)
    assert (counted.batch_rows.sum, filled(counted.batch_rows)) == (rows_sum, rows_in)
    assert (counted.stages["parse"].sum, filled(counted.stages["parse"])) == (took_sum, took_in)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_replica_that_dies_while_it_adds_up_has_lost_nothing(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory(TWO_STEPS)
    recorder = Recorder(memory)
    for _ in range(turns * RING - 1):
        recorder.record(200, 2, 2, 10, 5_000, 1_000, 1_000, (1_000, 1_000, 1_000))
    really = metrics.add_up

    def half(totals: metrics.NDArray, records: metrics.NDArray, times: int) -> None:
        really(totals, records[: RING // 2], times)
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(metrics, "add_up", half)
        with pytest.raises(MemoryError):
            recorder.record(400)

    counted, _ = memory.read()
    assert counted.requests == {200: turns * RING - 1, 400: 1}
    assert counted.batch_rows.sum == 2 * (turns * RING - 1)


def test_a_record_that_is_only_half_written_does_not_count() -> None:
    memory = Memory(TWO_STEPS)
    recorder = Recorder(memory)
    recorder.record(200, 1, 1, 10, 5_000)

    second = 8 * (memory.first_record + memory.fields)
    memory.map[second : second + 16] = np.array([1, 7], np.uint64).tobytes()

    assert memory.read()[0].requests == {200: 1}


def test_how_it_is_stands_there_from_the_last_look() -> None:
    memory = Memory(TWO_STEPS)
    seen = (Gauges(4, 2), [0, 3])
    recorder = Recorder(memory, lambda: seen)
    assert memory.read()[1] == Gauges(0, 0)

    recorder.refresh()

    counted, gauges = memory.read()
    assert gauges == Gauges(4, 2)
    assert counted.worker_restarts == {"scale": 0, "predict": 3}
