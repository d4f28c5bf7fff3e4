"""ADBC without its dbapi layer, which imports pandas and polars where they are installed: half a second per process."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import adbc_driver_manager as adbc
import pyarrow as pa

from bettong.drivers.arrow_forms import one_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bettong.errors import BettongError

    Translate = Callable[[BaseException, str], BettongError]


class Connection:
    """One connection. Every error is translated, also those that come while a stream is read."""

    def __init__(self, library: str, uri: str, translate: Translate) -> None:
        """Connect. Raises what `translate` makes of a failure."""
        self._translate = translate
        self._statements: list[Any] = []  # open ones; a connection closes only after them
        with self._translated(""):
            self._database = adbc.AdbcDatabase(driver=library, uri=uri)
            self._connection = adbc.AdbcConnection(self._database)

    def translate_by(self, translate: Translate) -> None:
        """From now on; a database speaks of its statements in another way than of its connections."""
        self._translate = translate

    def close(self) -> None:
        """Streams that were not read to their end end here."""
        while self._statements:
            self._statements.pop().close()
        self._connection.close()
        self._database.close()

    def query(self, sql: str, parameters: tuple[Any, ...] = (), **options: str) -> pa.RecordBatchReader:
        """The rows of a query as a stream; parameters are bound."""
        statement = self._statement(sql, parameters, options)
        with self._translated(sql):
            handle, _ = statement.execute_query()
            reader = pa.RecordBatchReader.from_stream(handle)
        return pa.RecordBatchReader.from_batches(reader.schema, self._streamed(reader, statement, sql))

    def rows(self, sql: str, parameters: tuple[Any, ...] = (), **options: str) -> list[dict[str, Any]]:
        """A small result as dictionaries."""
        found: list[dict[str, Any]] = self.query(sql, parameters, **options).read_all().to_pylist()
        return found

    def schema_of(self, sql: str) -> pa.Schema:
        """The columns that a query would give. It is prepared, not run."""
        statement = self._statement(sql, (), {})
        with self._translated(sql):
            schema = pa.schema(statement.execute_schema())
            self._close(statement)
        return schema

    def prepare(self, sql: str) -> None:
        """Have the database look at a statement without running it. Raises what it finds wrong."""
        statement = self._statement(sql, (), {})
        with self._translated(sql):
            statement.prepare()
            self._close(statement)

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> None:
        statement = self._statement(sql, parameters, {})
        with self._translated(sql):
            statement.execute_update()
            self._close(statement)

    def ingest(self, table: str, rows: pa.RecordBatchReader, **options: str) -> None:
        """Append a stream to a table that is there; its columns are named by the stream's."""
        statement = self._new_statement()
        with self._translated(table):
            statement.set_options(
                **{"adbc.ingest.target_table": table, "adbc.ingest.mode": "adbc.ingest.mode.append", **options}
            )
            statement.bind_stream(rows)
            statement.execute_update()
            self._close(statement)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What happens in the block is kept together, or nothing of it is."""
        with self._translated(""):
            self._connection.set_autocommit(False)
        try:
            yield
            with self._translated(""):
                self._connection.commit()
        except BaseException:
            # A broken connection rolls back by itself, and the first error is the one to tell.
            with suppress(adbc.Error):
                self._connection.rollback()
            raise
        with self._translated(""):
            self._connection.set_autocommit(True)

    def _statement(self, sql: str, parameters: tuple[Any, ...], options: dict[str, str]) -> Any:
        statement = self._new_statement()
        with self._translated(sql):
            if options:
                statement.set_options(**options)
            statement.set_sql_query(sql)
            if (row := one_row(parameters)) is not None:
                statement.bind_stream(pa.RecordBatchReader.from_batches(row.schema, [row]))
        return statement

    def _new_statement(self) -> Any:
        statement = adbc.AdbcStatement(self._connection)
        self._statements.append(statement)
        return statement

    def _close(self, statement: Any) -> None:
        if statement in self._statements:
            self._statements.remove(statement)
            statement.close()

    def _streamed(self, reader: pa.RecordBatchReader, statement: Any, sql: str) -> Iterator[pa.RecordBatch]:
        with self._translated(sql):
            yield from reader
            self._close(statement)

    @contextmanager
    def _translated(self, sql: str) -> Iterator[None]:
        try:
            yield
            return
        except (adbc.Error, OSError, pa.ArrowException) as failed:
            translated = self._translate(failed, sql)
        raise translated
