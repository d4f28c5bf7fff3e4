"""Asking a deployment about logged rows, in batches of which each row gets its answer or the reason why it has none."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from bettong.errors import BadInput, BettongError, DeadlineExceeded, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from bettong.jobs.work import Work

FIRST_ROWS, MOST_ROWS = 16, 1_000  # of a batch
BATCHES_PER_LANE = 4
SOON_S, LATE_S = 1.0, 4.0  # how long the rows that are asked about at once should take
BATCH_BYTES = 2 * 2**20
_MAX_REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class Answers:
    """What a version says to rows.

    Attributes:
        asked: shape (rows,), which rows it was asked about: all, unless the replay was cancelled meanwhile.
        table: the answers there are, in the order of the rows; None without any.
        answered: shape (rows asked,), which of these have one.
        reasons: why the others have none, in their order.
    """

    asked: NDArray[np.bool_]
    table: pa.Table | None
    answered: NDArray[np.bool_]
    reasons: tuple[str, ...]


class Asking:
    """Sends as many batches at once as the deployment answers at once. A context manager: its threads end with it.

    Batches grow while answers come soon, and shrink when they come late, so that a replay can be stopped at any time.
    A batch that is refused, or on which the model fails, is halved until it is known which rows it was: a version that
    fails on one row in a thousand answers the others. With `by_request`, rows go as they came, and fail as such.
    """

    def __init__(self, work: Work, *, by_request: bool) -> None:
        self._work, self._by_request, self._batch_rows = work, by_request, FIRST_ROWS
        self._lanes = max(work.lanes, 1)
        self._pool = ThreadPoolExecutor(self._lanes, thread_name_prefix="replay")

    def __enter__(self) -> Asking:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    @property
    def rows_at_once(self) -> int:
        """How many rows to ask about next."""
        return self._batch_rows * self._lanes * BATCHES_PER_LANE

    def about(self, rows: pa.Table, requests: NDArray[np.int64]) -> Answers:
        """The answers to at least one row.

        Args:
            rows: columns as the version takes them.
            requests: shape (rows,), numbers that change where another request begins.

        Raises:
            Unavailable: the deployment is not there; with patience spent.
            BettongError: an answer has other rows than the request.
        """
        cuts = _cuts_of_requests(requests) if self._by_request else _cuts_of_size(rows, self._batch_rows)
        batches = [rows.slice(start, end - start) for start, end in pairwise(cuts)]
        ask = self._whole if self._by_request else self._halving
        began = time.monotonic()
        pieces = [piece for found in self._pool.map(lambda batch: list(ask(batch)), batches) for piece in found]
        self._adapt(time.monotonic() - began)
        tables = [piece.table for piece in pieces if piece.table is not None]
        asked = np.concatenate([np.full(piece.rows, piece.asked) for piece in pieces])
        answered = np.concatenate([np.full(piece.rows, piece.table is not None) for piece in pieces])
        return Answers(
            asked,
            pa.concat_tables(tables, promote_options="permissive") if tables else None,
            answered[asked],
            tuple(piece.reason for piece in pieces if piece.reason is not None for _ in range(piece.rows)),
        )

    def _adapt(self, took_s: float) -> None:
        if took_s < SOON_S:
            self._batch_rows = min(self._batch_rows * 2, MOST_ROWS)
        elif took_s > LATE_S:
            self._batch_rows = max(self._batch_rows // 2, 1)

    def _whole(self, batch: pa.Table) -> Iterator[_Piece]:
        if self._work.cancelled:
            yield _Piece(batch.num_rows)
            return
        try:
            yield _Piece(batch.num_rows, self._answer(batch))
        except (BadInput, ModelFailed, DeadlineExceeded) as refused:
            yield _Piece(batch.num_rows, reason=_reason(refused))

    def _halving(self, batch: pa.Table) -> Iterator[_Piece]:
        if self._work.cancelled:
            yield _Piece(batch.num_rows)
            return
        try:
            yield _Piece(batch.num_rows, self._answer(batch))
        except (BadInput, ModelFailed, DeadlineExceeded) as refused:
            if batch.num_rows == 1:
                yield _Piece(1, reason=_reason(refused))
                return
            half = batch.num_rows // 2
            yield from self._halving(batch.slice(0, half))
            yield from self._halving(batch.slice(half))

    def _answer(self, batch: pa.Table) -> pa.Table:
        answer = self._work.infer(batch)
        if answer.num_rows != batch.num_rows:
            raise BettongError(f"The version answered {batch.num_rows} rows with {answer.num_rows}.")
        return answer


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that have answers, or a reason; or neither, when they were not asked about."""

    rows: int
    table: pa.Table | None = None
    reason: str | None = None

    @property
    def asked(self) -> bool:
        return self.table is not None or self.reason is not None


def _reason(refused: BettongError) -> str:
    text = str(refused)
    return text if len(text) <= _MAX_REASON_CHARS else f"{text[: _MAX_REASON_CHARS - 1]}…"


def _cuts_of_size(rows: pa.Table, most: int) -> list[int]:
    fits = max(1, int(BATCH_BYTES * rows.num_rows / max(rows.nbytes, 1)))
    return [*range(0, rows.num_rows, min(most, fits)), rows.num_rows]


def _cuts_of_requests(requests: NDArray[np.int64]) -> list[int]:
    return [0, *(np.flatnonzero(np.diff(requests)) + 1).tolist(), len(requests)]
