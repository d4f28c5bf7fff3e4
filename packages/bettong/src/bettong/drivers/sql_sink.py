"""Writing tables, the same for every database: all rows or none, checkpoints in the same transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa

from bettong.domain.drivers import WriteMode, WriteRequest, WriteResult
from bettong.drivers.sql_forms import Rows, schema_for
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from bettong.drivers.sql import Table

CHECKPOINTS = "bettong_checkpoints"  # job_id, position: one row per job that writes here


class SqlSink(ABC):
    """`domain.drivers.Transactional` in terms of what each database does its own way.

    A table that is not there is made from the types of the rows, with a primary key on the keys of an upsert. One that
    is there keeps its definition: REPLACE changes its rows. Columns are matched by name; those that the rows lack get
    the table's default.
    """

    modes: ClassVar[frozenset[WriteMode]] = frozenset(WriteMode)
    _seen: dict[str, str | None] | None = None  # by job the checkpoint that stood here when it was looked last

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> WriteResult:
        table = self.target(request.table)
        with self.writing(), self.transaction():
            self._fit(table, request, rows.schema)
            return WriteResult(self._put(table, request, rows, anew=request.mode is WriteMode.REPLACE))

    def position(self, job_id: str) -> str | None:
        with self.writing():
            kept = self.kept_position(job_id) if self.columns((CHECKPOINTS,)) is not None else None
        self._seen = {**(self._seen or {}), job_id: kept}
        return kept

    def write_batch(self, request: WriteRequest, batch: pa.RecordBatch, job_id: str, position: str) -> None:
        table = self.target(request.table)
        rows = pa.RecordBatchReader.from_batches(batch.schema, [batch])
        with self.writing(), self.transaction():
            # Tables first: some databases end a transaction when one is made.
            if self.columns((CHECKPOINTS,)) is None:
                self.create_checkpoints()
            self._fit(table, request, rows.schema)
            self.check_transactional(table)
            self.lock_checkpoint(job_id)
            kept = self.kept_position(job_id)
            if (self._seen or {}).get(job_id, kept) != kept:
                raise Unavailable(
                    "Another attempt at this job has written to the target meanwhile.",
                    "The next attempt goes on behind what is there.",
                )
            self._put(table, request, rows, anew=kept is None and request.mode is WriteMode.REPLACE)
            self.keep_position(job_id, position)
        self._seen = {**(self._seen or {}), job_id: position}

    # What a database does its own way.

    @abstractmethod
    def target(self, name: str) -> Table:
        """The table that a request names. Raises BadInput for what is no name."""

    @abstractmethod
    def writing(self) -> AbstractContextManager[None]:
        """Around all work of one write: connections that read only are opened for writing here."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]: ...

    @abstractmethod
    def columns(self, table: Table) -> list[str] | None:
        """The names of the table's columns; None when there is no such table."""

    @abstractmethod
    def form(self, kind: pa.DataType) -> pa.DataType:
        """The type in which the database takes values of `kind`."""

    @abstractmethod
    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        """Make a table for rows of this schema, whose types are of `form`'s or of the rows'."""

    @abstractmethod
    def empty(self, table: Table) -> None: ...

    @abstractmethod
    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        """Load every row; how many there were."""

    @abstractmethod
    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        """The same, but a row whose keys are there takes that one's place; of rows with the same keys the last."""

    def check_transactional(self, table: Table) -> None:  # noqa: B027 - most databases have no other tables
        """Raises BadInput when this table's rows and a checkpoint cannot be kept together."""

    def lock_checkpoint(self, job_id: str) -> None:  # noqa: B027 - most databases have one writer at a time
        """Have others that would write for this job wait until the transaction ends."""

    @abstractmethod
    def create_checkpoints(self) -> None: ...

    @abstractmethod
    def kept_position(self, job_id: str) -> str | None: ...

    @abstractmethod
    def keep_position(self, job_id: str, position: str) -> None: ...

    def _fit(self, table: Table, request: WriteRequest, schema: pa.Schema) -> None:
        """See that the table is there and has the columns of the rows."""
        names = schema.names
        if not names or len(set(names)) != len(names):
            raise BadInput("The rows need columns, each with a name of its own.", "Rename them before writing.")
        if missing := [key for key in request.keys if key not in names]:
            raise BadInput(f"The rows have no key column {missing}.", f"Their columns are: {', '.join(names)}.")
        if request.mode is WriteMode.UPSERT and not request.keys:
            raise BadInput("Upsert needs key columns, and none were named.", "Pass keys, such as keys=['day'].")
        there = self.columns(table)
        if there is None:
            self.create(table, schema, request.keys if request.mode is WriteMode.UPSERT else ())
        elif missing := [name for name in names if name not in there]:
            raise BadInput(
                f"Table '{'.'.join(table)}' has no column {', '.join(repr(name) for name in missing)}.",
                f"Its columns are: {', '.join(there)}. Rename the columns of the rows, or add them to the table.",
            )

    def _put(self, table: Table, request: WriteRequest, rows: pa.RecordBatchReader, *, anew: bool) -> int:
        if anew:
            self.empty(table)
        if request.mode is WriteMode.UPSERT:
            return self.upsert(table, rows, request.keys)
        return self.append(table, rows)

    @contextmanager
    def loading(
        self, rows: pa.RecordBatchReader, keys: tuple[str, ...] = (), schema: pa.Schema | None = None
    ) -> Iterator[Rows]:
        """The rows in the types of `schema`, or those that the database takes. What went wrong with the rows themselves
        comes out whole."""
        cast = Rows(rows, schema or schema_for(rows.schema, self.form), keys)
        try:
            yield cast
        except Exception:
            if cast.failed is not None:
                raise cast.failed from None
            raise
