"""The ends of a batch, as people know them: whatever goes wrong at one names the Connection and which side it is."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import pyarrow as pa

    from bettong.domain.drivers import Transactional, WriteRequest

SOURCE, SINK = "source", "sink"


class Ends:
    """`titles` are the Connections by role, such as "POSTGRES 'warehouse'"."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles

    @contextmanager
    def at(self, role: str) -> Iterator[None]:
        """What goes wrong in the block is that end's, and says so."""
        try:
            yield
        except BettongError as fault:
            raise self.named(role, fault) from None

    def named(self, role: str, fault: BettongError) -> BettongError:
        return type(fault)(f"{self._titles[role]} ({role}): {fault.problem}", fault.next_step)

    def read(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches of the source."""
        left = iter(batches)
        while True:
            with self.at(SOURCE):
                batch = next(left, None)
            if batch is None:
                return
            yield batch


class NamedSink:
    """A target whose errors name it. Those of a batch that it refuses do not: its rows become rejects with them."""

    def __init__(self, sink: Any, ends: Ends) -> None:
        self._sink, self._ends = sink, ends

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> Any:
        with self._ends.at(SINK):
            return self._sink.write(request, rows)

    def write_batch(self, request: WriteRequest, batch: pa.RecordBatch, job_id: str, position: str) -> None:
        sink: Transactional = self._sink
        try:
            sink.write_batch(request, batch, job_id, position)
        except BadInput:
            raise
        except BettongError as fault:
            raise self._ends.named(SINK, fault) from None
