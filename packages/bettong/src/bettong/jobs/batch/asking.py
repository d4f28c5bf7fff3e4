"""From pieces of rows to answers, several at once and in order. What the pipeline refuses is halved until the rows at
fault stand alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bettong.errors import BadInput, DeadlineExceeded, ModelFailed
from bettong.jobs.batch.columns import tuples
from bettong.jobs.batch.handover import Handover
from bettong.jobs.batch.reasons import reason_of
from bettong.jobs.batch.rejects import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from numpy.typing import NDArray

    from bettong.jobs.batch.columns import Asked, ColumnPlan
    from bettong.jobs.batch.limit import Limit
    from bettong.jobs.batch.pace import Pace
    from bettong.jobs.batch.reading import Piece

REFUSED = (BadInput, ModelFailed, DeadlineExceeded)  # what may be the fault of single rows


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of a piece.

    Attributes:
        rows: for the target, in the order of the source.
        at: their numbers in the source.
        first, end: where the piece begins and ends there.
        rejects: in the order of their rows.
        whole: whether each row of the piece is here; not when the limit of rejects was passed meanwhile, or the
            job is to stop.
    """

    rows: pa.RecordBatch
    at: NDArray[np.int64]
    first: int
    end: int
    rejects: list[Reject]
    whole: bool


class Asking:
    """Asks the pipeline, at most `lanes` times at once, and nothing more once `stopped` says so."""

    def __init__(
        self,
        infer: Callable[[pa.Table], pa.Table],
        plan: ColumnPlan,
        pace: Pace,
        limit: Limit,
        lanes: int,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._infer, self._plan, self._pace, self._limit, self._stopped = infer, plan, pace, limit, stopped
        self._lanes = max(1, lanes)
        self._turns = threading.BoundedSemaphore(self._lanes)
        self._given_up = threading.Event()

    @contextmanager
    def answers(self, pieces: Iterable[Piece]) -> Iterator[Iterator[Answered]]:
        """The answers in the order of the pieces, which are read by a thread of their own. An error, of reading too,
        comes after what was there before it. At the end of the context nothing runs any more."""
        ahead: Handover[Future[Answered] | BaseException] = Handover(self._lanes + 1)
        # One more than lanes: its columns are made while others are with the pipeline.
        with ThreadPoolExecutor(self._lanes + 1, thread_name_prefix="batch-asking") as pool:

            def read() -> None:
                try:
                    for piece in pieces:
                        if self._ends or not ahead.put(pool.submit(self._ask, piece)):
                            break
                except BaseException as failed:
                    ahead.put(failed)
                finally:
                    ahead.complete()

            reader = threading.Thread(target=read, name="batch-reading", daemon=True)
            reader.start()
            try:
                yield _in_turn(ahead)
            finally:
                self._given_up.set()
                ahead.close()
                reader.join()
                pool.shutdown(cancel_futures=True)

    def _ask(self, piece: Piece) -> Answered:
        asked = self._plan.asked(piece)
        self._limit.asking(piece.rows.num_rows)
        rejects = [
            Reject(row, keys, reason)
            for (row, reason), keys in zip(asked.faults.items(), asked.fault_keys, strict=True)
        ]
        self._limit.found(len(rejects))
        parts, kept = [], []
        for start, answer, refused in self._halved(asked, 0, asked.rows.num_rows):
            if answer is None:
                keys = tuples(asked.keys.slice(start, 1).columns, 1)[0]
                rejects.append(Reject(int(asked.at[start]), keys, refused))
                continue
            answered, at = asked.keys.slice(start, answer.num_rows), asked.at[start : start + answer.num_rows]
            if short := self._plan.short(answer):
                keys_of_short = tuples(answered.take(pa.array(list(short), pa.int64())).columns, len(short))
                self._limit.found(len(short))
                rejects += [
                    Reject(int(at[row]), keys, reason)
                    for (row, reason), keys in zip(short.items(), keys_of_short, strict=True)
                ]
                left = np.delete(np.arange(len(at), dtype=np.int64), list(short))
                places = pa.array(left, pa.int64())
                answered, answer, at = answered.take(places), answer.take(places), at[left]
            parts.append(self._plan.written(answered, answer))
            kept.append(at)
        rejects.sort(key=lambda reject: reject.row)
        at = np.concatenate(kept) if kept else np.empty(0, np.int64)
        whole = len(at) + len(rejects) == piece.rows.num_rows
        return Answered(_joined(parts, self._plan.target), at, piece.first, piece.end, rejects, whole)

    @property
    def _ends(self) -> bool:
        """Whether nothing more is to be asked."""
        return self._given_up.is_set() or self._limit.passed or self._stopped()

    def _halved(self, asked: Asked, start: int, rows: int) -> Iterator[tuple[int, pa.Table | None, str]]:
        """(first row, answer, "") for rows that were answered, (row, None, reason) for one that cannot be."""
        if not rows or self._ends:
            return
        try:
            with self._turns:
                if self._ends:  # by now: others were asked meanwhile
                    return
                began = time.perf_counter()
                answer = self._infer(asked.rows.slice(start, rows))
                self._pace.learn(rows, time.perf_counter() - began)
        except REFUSED as refused:
            if rows == 1:
                self._limit.found(1)
                yield start, None, reason_of(refused)
                return
        else:
            yield start, answer, ""
            return
        yield from self._halved(asked, start, rows // 2)
        yield from self._halved(asked, start + rows // 2, rows - rows // 2)


def _in_turn(ahead: Handover[Future[Answered] | BaseException]) -> Iterator[Answered]:
    while (thing := ahead.get()) is not None:
        if isinstance(thing, BaseException):
            raise thing
        yield thing.result()


def _joined(parts: list[pa.RecordBatch], schema: pa.Schema) -> pa.RecordBatch:
    if len(parts) == 1:
        return parts[0]
    whole = pa.Table.from_batches(parts, schema).combine_chunks().to_batches()
    return whole[0] if whole else pa.RecordBatch.from_pylist([], schema)
