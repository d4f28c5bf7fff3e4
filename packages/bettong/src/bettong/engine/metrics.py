"""What a replica counts, in memory that it shares with its host: a replica that is killed has counted all the same.

A request is one record in a ring, written by a single `pack_into`. When the ring is full its records are added to the
totals, by numpy, 256 at once. That costs 0.5 µs, and counting each request in place 1.4. And the memory is whole at any
moment: of the totals there are two, and one number, written last, says which of them holds, and up to which record.
A record carries its number at its end, so that one which is only half there is told from the next.

    cells: u64, little-endian
    folded | in_flight | waiting | restarts of each step | totals, twice | ring of records
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bettong.domain.metrics import ROW_EDGES, STAGES, TIME_EDGES_NS, Counted, Histogram, step_names

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bettong.domain.deployments import DeploymentSpec

    NDArray = np.ndarray[Any, np.dtype[np.int64]]

RING = 256
AT_LIMIT = 0  # in place of a status: a 503 that says that the replica had its hands full
_STATUSES = 600
_TIME_EDGES, _ROW_EDGES = np.array(TIME_EDGES_NS, np.int64), np.array(ROW_EDGES, np.int64)
_BUCKETS, _ROW_BUCKETS = len(TIME_EDGES_NS) + 1, len(ROW_EDGES) + 1
_HEAD = 3  # cells before the restarts
_FIXED = 4  # fields of a record before its times: status, rows, log rows, log bytes
_FIRST_TIMES = ("duration", "log", "encode", "parse")  # of a record; those of the steps follow


@dataclass(frozen=True, slots=True)
class Gauges:
    """How it is at the moment of asking, or was at the last heartbeat of a replica that does not answer."""

    in_flight: int
    waiting: int


class Memory:
    """The shared memory of one replica's counters. Made by the host before the fork; both sides have it then."""

    def __init__(self, spec: DeploymentSpec) -> None:
        self.steps = step_names(model.name for model in spec.models)
        self.times = len(_FIRST_TIMES) + len(self.steps)
        self.fields = _FIXED + self.times + 1
        self.totals = _STATUSES + 2 + _ROW_BUCKETS + 1 + self.times * (_BUCKETS + 1)
        self.first_total = _HEAD + len(self.steps)
        self.first_record = self.first_total + 2 * self.totals
        self.map = mmap.mmap(-1, 8 * (self.first_record + RING * self.fields))

    def read(self) -> tuple[Counted, Gauges]:
        """What was counted so far. From either process, at any time, also when the replica is gone."""
        while True:
            folded = self._cell(0)
            totals = self._cells(self.first_total + (folded // RING) % 2 * self.totals, self.totals)
            ring = self._cells(self.first_record, RING * self.fields).reshape(RING, self.fields)
            if self._cell(0) == folded:  # else they were added up under our hands
                break
        written = ring[:, -1] == np.arange(folded + 1, folded + 1 + RING)
        count = RING if written.all() else int(written.argmin())
        add_up(totals, ring[:count], self.times)
        restarts = self._cells(_HEAD, len(self.steps)).tolist()
        return _told(totals, self.steps, restarts), Gauges(self._cell(1), self._cell(2))

    def close(self) -> None:
        """Give this process's view back. Twice is no error."""
        self.map.close()

    def _cell(self, at: int) -> int:
        return int.from_bytes(self.map[8 * at : 8 * at + 8], "little")

    def _cells(self, at: int, count: int) -> NDArray:
        return np.frombuffer(self.map[8 * at : 8 * (at + count)], np.int64).copy()


class Recorder:
    """The replica's side: the only writer of a `memory`. Not for several threads.

    `look` tells how it is, and how often the worker of each step was started again.
    """

    def __init__(self, memory: Memory, look: Callable[[], tuple[Gauges, Sequence[int]]] | None = None) -> None:
        self._memory, self._map = memory, memory.map
        self._times = len(memory.steps) + 1
        self._look = look or (lambda: (Gauges(0, 0), [0] * len(memory.steps)))
        record = struct.Struct(f"<{memory.fields}Q")
        self._pack, self._stride = record.pack_into, record.size
        self._first, self._end = 8 * memory.first_record, 8 * memory.first_record + RING * record.size
        self._at, self._number, self._folded = self._first, 1, 0

    def record(
        self,
        status: int,
        rows: int = 0,
        log_rows: int = 0,
        log_bytes: int = 0,
        duration_ns: int = 0,
        log_ns: int = 0,
        encode_ns: int = 0,
        elapsed_ns: Sequence[int] = (),
    ) -> None:
        """Count one answer.

        Args:
            status: of HTTP, or AT_LIMIT.
            rows: answered with.
            log_rows, log_bytes: written to the logs for it.
            duration_ns, log_ns, encode_ns: how long it took; 0 is a stage that it did not reach.
            elapsed_ns: of parsing and of each model, as far as it came.
        """
        if len(elapsed_ns) != self._times:
            elapsed_ns = (*elapsed_ns[: self._times], *[0] * (self._times - len(elapsed_ns)))
        at = self._at
        self._pack(
            self._map,
            at,
            status,
            rows,
            log_rows,
            log_bytes,
            duration_ns,
            log_ns,
            encode_ns,
            *elapsed_ns,
            self._number,
        )
        self._number += 1
        self._at = at + self._stride
        if self._at == self._end:
            self._fold()

    def refresh(self) -> None:
        """Write down how it is now. To be called now and then: the host reads what stood there last."""
        gauges, restarts = self._look()
        cells = (gauges.in_flight, gauges.waiting, *restarts[: len(self._memory.steps)])
        struct.pack_into(f"<{len(cells)}Q", self._map, 8, *cells)

    def read(self) -> tuple[Counted, Gauges]:
        """What was counted, and how it is now."""
        self.refresh()
        return self._memory.read()

    def _fold(self) -> None:
        memory = self._memory
        cells = np.frombuffer(self._map, np.int64)
        ends = [memory.first_total + n * memory.totals for n in range(3)]
        both = [cells[ends[0] : ends[1]], cells[ends[1] : ends[2]]]
        now = self._folded // RING % 2
        both[1 - now][:] = both[now]
        add_up(both[1 - now], cells[memory.first_record :].reshape(RING, memory.fields), memory.times)
        self._folded += RING
        cells[0] = self._folded  # last: a replica killed before this has its records still, and its totals as they were
        self._at = self._first


def add_up(totals: NDArray, records: NDArray, times: int) -> None:
    """Add records to totals, in place: answers by status | log rows, log bytes | rows: buckets, sum | times: buckets of
    each, sums."""
    totals[:_STATUSES] += np.bincount(records[:, 0], minlength=_STATUSES)
    answered = records[:, 0] == 200
    at = _STATUSES
    totals[at : at + 2] += records[:, 2:4].sum(axis=0)
    at += 2
    rows = records[answered, 1]
    totals[at : at + _ROW_BUCKETS] += np.bincount(np.searchsorted(_ROW_EDGES, rows), minlength=_ROW_BUCKETS)
    totals[at + _ROW_BUCKETS] += rows.sum()
    at += _ROW_BUCKETS + 1
    took = records[:, _FIXED : _FIXED + times]
    buckets = np.searchsorted(_TIME_EDGES, took) + np.arange(0, times * _BUCKETS, _BUCKETS)
    totals[at : at + times * _BUCKETS] += np.bincount(buckets[took > 0], minlength=times * _BUCKETS)
    totals[at + times * _BUCKETS :] += took.sum(axis=0)


def _told(totals: NDArray, steps: tuple[str, ...], restarts: list[int]) -> Counted:
    """Totals as values."""
    cells = totals.tolist()
    rejected, cells[AT_LIMIT] = cells[AT_LIMIT], 0
    cells[503] += rejected
    at = _STATUSES
    log_rows, log_bytes = cells[at : at + 2]
    at += 2
    batch_rows = Histogram(ROW_EDGES, tuple(cells[at : at + _ROW_BUCKETS]), cells[at + _ROW_BUCKETS])
    at += _ROW_BUCKETS + 1
    names = (*_FIRST_TIMES, *steps)
    sums = cells[at + len(names) * _BUCKETS :]
    histograms = [
        Histogram(TIME_EDGES_NS, tuple(cells[at + n * _BUCKETS : at + (n + 1) * _BUCKETS]), sums[n])
        for n in range(len(names))
    ]
    by_stage = dict(zip(_FIRST_TIMES, histograms, strict=False))
    return Counted(
        requests={status: n for status, n in enumerate(cells[:_STATUSES]) if n},
        rejected=rejected,
        log_rows=log_rows,
        log_bytes=log_bytes,
        batch_rows=batch_rows,
        duration=by_stage["duration"],
        stages={name: by_stage[name] for name in STAGES},
        steps=dict(zip(steps, histograms[len(_FIRST_TIMES) :], strict=True)),
        worker_restarts=dict(zip(steps, restarts, strict=True)),
    )
