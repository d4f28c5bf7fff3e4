"""Answers on their way into a target: batch by batch with a checkpoint, or all in one stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.drivers import Readable, ReadRequest, WriteMode, WriteRequest
from bettong.errors import BadInput, BettongError
from bettong.jobs.batch.columns import tuples
from bettong.jobs.batch.positions import Position
from bettong.jobs.batch.rejects import Reject

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bettong.domain.drivers import Transactional, Writable
    from bettong.jobs.batch.asking import Answered
    from bettong.jobs.batch.limit import Limit


def check_target(sink: Transactional, request: WriteRequest, schema: pa.Schema) -> None:
    """See that a database takes such rows, before there are any: none are written, and a table that is not there is
    made.

    Raises:
        BadInput: it does not; a column at fault is named.
    """
    mode = WriteMode.UPSERT if request.mode is WriteMode.UPSERT else WriteMode.APPEND
    keys = request.keys if mode is WriteMode.UPSERT else ()

    def tried(columns: pa.Schema) -> BettongError | None:
        try:
            sink.write(WriteRequest(request.table, mode, keys), _no_rows(columns))
        except BadInput as refused:
            return refused
        return None

    if (refused := tried(schema)) is None:
        _check_lists(sink, request.table, schema)
        return
    if "has no column" in refused.problem or "may not do that" in refused.problem:
        raise refused  # no column by itself is at fault
    for field in schema:
        alone = pa.schema([*(schema.field(key) for key in keys if key != field.name), field])
        if (single := tried(alone)) is not None:
            raise _not_taken(request.table, field, single.problem)
    raise refused


def _check_lists(sink: object, table: str, schema: pa.Schema) -> None:
    """Some databases find only with a row that a list is no number."""
    lists = [field for field in schema if pa.types.is_nested(field.type)]
    if not lists or not isinstance(sink, Readable):
        return
    there = sink.read(ReadRequest(table, limit=0)).schema
    for field in lists:
        kind = there.field(field.name).type
        if pa.types.is_floating(kind) or pa.types.is_temporal(kind) or pa.types.is_boolean(kind):
            raise _not_taken(table, field, f"it is {kind} there.")


def _not_taken(table: str, field: pa.Field[Any], why: str) -> BadInput:
    pick = f' A list is picked apart by outputs={{"{field.name}": "…[0]"}}.' if pa.types.is_list(field.type) else ""
    return BadInput(
        f"Table '{table}' does not take column '{field.name}', which is {field.type}: {why}",
        f"Change the table, or the outputs.{pick}",
    )


class Writer:
    """Keeps what became of pieces, in their order. `position` is where the next attempt would go on."""

    def __init__(
        self,
        position: Position,
        keys: tuple[Any, ...],
        keep_rejects: Callable[[list[Reject]], None],
        limit: Limit,
        done: Callable[[Position, str], None],
    ) -> None:
        self.position = position
        self._keys, self._keep_rejects, self._limit, self._done = keys, keep_rejects, limit, done

    def by_batch(self, sink: Transactional, request: WriteRequest, checkpoint: str, answered: Answered) -> None:
        """Write a piece, each part with its checkpoint. Rows that the target refuses become rejects.

        Raises:
            BadInput: more rows were rejected than may be.
        """
        self._keep_rejects(answered.rejects)
        self.position = self._moved(rejected=len(answered.rejects))
        self._halved(sink, request, checkpoint, answered, 0, answered.rows.num_rows)
        if answered.end != self.position.rows:  # rows behind the last one that was written
            self.position = self._moved(rows=answered.end)
        self._done(self.position, self._told())

    def in_one(self, sink: Writable, request: WriteRequest, answers: Iterator[Answered], schema: pa.Schema) -> None:
        """Write all of them as one stream."""
        failed: list[BaseException] = []

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for answered in answers:
                    self._keep_rejects(answered.rejects)
                    if answered.rows.num_rows:
                        yield answered.rows
                    self.position = self._moved(
                        rows=answered.end, written=answered.rows.num_rows, rejected=len(answered.rejects)
                    )
                    self._done(self.position, "")
            except GeneratorExit:
                raise
            except BaseException as error:
                failed.append(error)
                raise

        try:
            sink.write(request, pa.RecordBatchReader.from_batches(schema, batches()))
        except Exception:
            if failed:  # a library that reads a stream does not tell its error as it was
                raise failed[0] from None
            raise

    def given_up(self, answered: Answered) -> None:
        """Keep the rejects of a piece of which nothing is written."""
        if answered.rejects:
            self._keep_rejects(answered.rejects)
            rows = max(self.position.rows, answered.rejects[-1].row + 1)
            self.position = self._moved(rows=rows, rejected=len(answered.rejects))
            self._done(self.position, "")

    def _halved(
        self, sink: Transactional, request: WriteRequest, checkpoint: str, answered: Answered, start: int, rows: int
    ) -> None:
        if not rows:
            return
        whole = start + rows == answered.rows.num_rows
        end = answered.end if whole else int(answered.at[start + rows])
        part = answered.rows.slice(start, rows)
        keys = tuples([part.column(key.name).slice(rows - 1) for key in self._keys], 1)[0] or None
        after = self._moved(rows=end, written=rows, keys=keys)
        try:
            sink.write_batch(request, part, checkpoint, after.encode([key.type for key in self._keys]))
        except BadInput as refused:
            if rows == 1:
                self._keep_rejects([Reject(int(answered.at[start]), keys or (), str(refused))])
                self.position = self._moved(rejected=1)
                self._limit.found(1)
                if self._limit.passed:
                    self._done(self.position, "")
                    self._limit.check(self.position)
                return
        else:
            self.position = after
            return
        self._halved(sink, request, checkpoint, answered, start, rows // 2)
        self._halved(sink, request, checkpoint, answered, start + rows // 2, rows - rows // 2)

    def _moved(
        self, *, rows: int | None = None, written: int = 0, rejected: int = 0, keys: tuple[Any, ...] | None = None
    ) -> Position:
        now = self.position
        return Position(
            now.rows if rows is None else rows,
            now.written + written,
            now.rejected + rejected,
            now.keys if keys is None else keys,
        )

    def _told(self) -> str:
        return self.position.encode([key.type for key in self._keys])


def _no_rows(schema: pa.Schema) -> pa.RecordBatchReader:
    return pa.RecordBatchReader.from_batches(schema, [pa.RecordBatch.from_pylist([], schema)])
