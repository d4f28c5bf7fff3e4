"""Asking the pipeline about messages: together, several requests at once, and alone where one is at fault."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from bettong.errors import BadInput, BettongError, DeadlineExceeded, ModelFailed, Unavailable
from bettong.jobs.stream.blame import divided

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from bettong.jobs.stream.rows import Batch
    from bettong.jobs.work import Work

LEAST_PER_LANE = 16  # messages: fewer are not worth a request of their own


class Asking:
    """A context manager: it has a thread for each request that the deployment answers at once.

    `healthy` says whether the pipeline answers at all; it is asked before a message is blamed for a model that fails.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._pool = ThreadPoolExecutor(work.lanes, "lane") if work.lanes > 1 else None
        self.healthy: Callable[[], bool] = lambda: True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def about(self, batches: Sequence[Batch]) -> Iterator[tuple[Batch, pa.Table | str]]:
        """The answers to batches, in order and in parts; for a message that has none, alone, why: in our words.

        A single batch is cut for as many requests as are answered at once; several are a request each.

        Raises:
            Unavailable: the pipeline is not there, or fails whatever it is asked.
        """
        if len(batches) == 1:
            lanes = min(self._work.lanes, len(batches[0].taken) // LEAST_PER_LANE)
            batches = list(batches[0].parts(max(1, lanes)))
        if self._pool is None or len(batches) < 2:
            for batch in batches:
                yield from self._lane(batch)
            return
        for answered in self._pool.map(lambda batch: list(self._lane(batch)), batches):
            yield from answered

    def _lane(self, batch: Batch) -> Iterator[tuple[Batch, pa.Table | str]]:
        for part, answer in divided(batch, lambda part: self._work.infer(part.rows)):
            if isinstance(answer, BettongError):
                yield part, self._blamed(part, answer)
            else:
                yield part, answer

    def _blamed(self, part: Batch, fault: BettongError) -> pa.Table | str:
        """Why a message that stands alone has no answer; or its answer, when it has one now."""
        if isinstance(fault, BadInput):
            return str(fault)
        if not self.healthy():
            raise Unavailable("The model fails whatever it is asked.", "Look at its log.")
        # A worker may have died under this one for a reason of a neighbour's, or the model may have been ill.
        try:
            return self._work.infer(part.rows)
        except BadInput as refused:
            return str(refused)
        except DeadlineExceeded:
            return "The model did not answer this message in the time that it has."
        except ModelFailed:  # its own words may hold a value
            return "The model failed on this message, which it was asked about alone and twice. Its log says how."
