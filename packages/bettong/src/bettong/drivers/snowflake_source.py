"""What an open SNOWFLAKE connection does: rows come as Arrow, go as Parquet by way of a stage, and whatever is written
takes effect in one transaction."""

from __future__ import annotations

import io
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pyarrow as pa

from bettong.domain.drivers import Entry, ReadOrder, ReadRequest
from bettong.drivers import snowflake_sql as names
from bettong.drivers import snowflake_types as forms
from bettong.drivers import sql, sql_errors
from bettong.drivers.snowflake_errors import KIND
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bettong.drivers.snowflake_client import Client
    from bettong.drivers.snowflake_types import Column
    from bettong.drivers.sql import Table

FILE_BYTES = 32 * 2**20  # of Arrow, in one file on its way; compressed it is some megabytes
_ORDER = "c_order"
_LOADED = 3  # of what COPY tells of a file: its name, a status, the rows it has, the rows that were loaded


class SnowflakeSource(SqlSink):
    """One session. Rows that are written go into a temporary table first, which nobody else sees and which ends with
    the session, and from there in one transaction to where they belong."""

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(self, client: Client, table: str) -> None:
        self._client, self._table = client, table
        self._database, self._schema = client.place
        self._place = f"bettong_rows_{uuid4().hex}"
        self._statements: list[tuple[str, tuple[object, ...]]] = []
        self._claimed: tuple[str, tuple[object, ...]] | None = None
        self._kept: str | None = None
        self._known: dict[Table, list[Column] | None] = {}

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        if named := names.table_named(text):
            limit = f" LIMIT {request.limit:d}" if request.limit is not None and not request.order_by else ""
            query = f"SELECT * FROM {sql.quoted(self._whole(named))}{limit}"
        else:
            query = names.one_query(text)
        parameters = request.parameters
        if request.order_by:
            there = self._client.describe(query, parameters)
            query, more = _in_order(query, there, request)
            parameters = (*parameters, *more)
        return self._client.stream(query, parameters)

    def browse(self, path: str) -> list[Entry]:
        if not path:
            found = self._listed("SELECT schema_name FROM {}.information_schema.schemata ORDER BY 1")
            return [Entry(names.said([name]), "schema") for (name,) in found if name.upper() != "INFORMATION_SCHEMA"]
        parts = names.table(path)
        if len(parts) == 1:
            query = "SELECT table_name, table_type FROM {}.information_schema.tables WHERE table_schema = ? ORDER BY 1"
            found = self._listed(query, parts[0])
            return [Entry(names.said([parts[0], name]), "view" if "VIEW" in kind else "table") for name, kind in found]
        if (columns := self._columns(self._whole(parts))) is None:
            raise sql_errors.no_table(KIND, f" '{path}'")
        return [Entry(column.shown, "column", column.declared) for column in columns]

    def greeted(self) -> str:
        return f"logged in, database {self._database or 'none'}, schema {self._schema or 'none'}"

    def rights(self) -> str:
        """What this login may do. Raises BadInput or NotFound when it may not read the table of the details."""
        self._client.run("SELECT 1")
        where = f"on warehouse {self._client.warehouse}" if self._client.warehouse else "without a warehouse"
        if not self._table:
            return f"queries may be run, {where}"
        if self._columns(self._whole(names.table(self._table))) is None:
            raise sql_errors.no_table(KIND, f" '{self._table}'")
        return f"'{self._table}' may be read, {where}"

    # Writing, in the terms of SqlSink.

    def target(self, name: str) -> Table:
        return self._whole(names.table(name))

    @contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._known.clear()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements are kept until the end, and run together then: making a table would end a transaction here."""
        self._statements, self._claimed = [], None
        yield
        if self._claimed is None and not self._statements:
            return
        self._client.run("BEGIN")
        try:
            if self._claimed is not None and self._client.run(*self._claimed).changed != 1:
                raise Unavailable(
                    "Another attempt at this job has written to the target meanwhile.",
                    "The next attempt goes on behind what is there.",
                )
            for statement in self._statements:
                self._client.run(*statement)
            self._client.run("COMMIT")
        except BaseException:
            with suppress(BettongError):  # a session that breaks rolls back by itself; the first error is to be told
                self._client.run("ROLLBACK")
            raise

    def columns(self, table: Table) -> list[str] | None:
        found = self._columns(self._checkpoints() if table == (CHECKPOINTS,) else table)
        return None if found is None else [column.shown for column in found]

    def form(self, kind: pa.DataType) -> Any:
        return forms.loaded_as(kind)

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        columns = [f"{_column(names.kept(field.name))} {forms.declared(field.type)}" for field in schema]
        self._client.run(f"CREATE TABLE {sql.quoted(table)} ({', '.join(columns)})")
        self._known.pop(table, None)

    def empty(self, table: Table) -> None:
        self._then(f"DELETE FROM {sql.quoted(table)}")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        there, values = self._plan(table, rows.schema)
        count, place = self._stage(table, rows, ())
        if count:
            self._then(
                f"INSERT INTO {sql.quoted(table)} ({', '.join(_column(column.name) for column in there)}) "
                f"SELECT {', '.join(values)} FROM {place}"
            )
        return count

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        there, values = self._plan(table, rows.schema)
        count, place = self._stage(table, rows, keys)
        if not count:
            return 0
        columns = {column.shown: _column(column.name) for column in there}
        taken = dict(zip(columns, values, strict=True))
        source = (
            f"SELECT {', '.join(f'{taken[name]} AS {columns[name]}' for name in columns)} FROM {place} "
            f"QUALIFY ROW_NUMBER() OVER (PARTITION BY {', '.join(taken[key] for key in keys)} "
            f"ORDER BY {place}.{_ORDER} DESC) = 1"
        )
        others = [column for name, column in columns.items() if name not in keys]
        change = f"WHEN MATCHED THEN UPDATE SET {', '.join(f't.{c} = s.{c}' for c in others)} " if others else ""
        self._then(
            f"MERGE INTO {sql.quoted(table)} AS t USING ({source}) AS s "
            f"ON {' AND '.join(f't.{columns[key]} = s.{columns[key]}' for key in keys)} {change}"
            f"WHEN NOT MATCHED THEN INSERT ({', '.join(columns.values())}) "
            f"VALUES ({', '.join(f's.{column}' for column in columns.values())})"
        )
        return count

    def create_checkpoints(self) -> None:
        place = sql.quoted(self._checkpoints())
        self._client.run(f"CREATE TABLE IF NOT EXISTS {place} (job_id VARCHAR, position VARCHAR)")
        self._known.clear()

    def kept_position(self, job_id: str) -> str | None:
        place = sql.quoted(self._checkpoints())
        found = self._client.run(f"SELECT position FROM {place} WHERE job_id = ?", (job_id,)).rows
        self._kept = str(found[0][0]) if found else None
        return self._kept

    def keep_position(self, job_id: str, position: str) -> None:
        """First in the transaction: others wait for it, and it changes a row only if nobody has meanwhile."""
        self._claimed = (
            f"MERGE INTO {sql.quoted(self._checkpoints())} AS t "
            "USING (SELECT ? AS job_id, ? AS position, ? AS seen) AS s ON t.job_id = s.job_id "
            "WHEN MATCHED AND t.position = s.seen THEN UPDATE SET t.position = s.position "
            "WHEN NOT MATCHED THEN INSERT (job_id, position) VALUES (s.job_id, s.position)",
            (job_id, position, self._kept),
        )

    def _then(self, statement: str, *parameters: object) -> None:
        self._statements.append((statement, parameters))

    def _plan(self, table: Table, schema: pa.Schema) -> tuple[list[Column], list[str]]:
        """The table's columns for those of the rows, and what each takes over from the rows on their way."""
        known = {column.shown: column for column in self._columns(table) or ()}
        there = [known[name] for name in schema.names]
        values = [
            forms.taken_over(self.form(field.type), column, f"c{n}")
            for n, (field, column) in enumerate(zip(schema, there, strict=True))
        ]
        return there, values

    def _stage(self, target: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> tuple[int, str]:
        """Rows into a temporary table beside the target: how many, and its name. It takes the place of the one before;
        without rows there is none."""
        place = self._place
        with self.loading(rows, keys) as cast:
            kinds = [self.form(field.type) for field in rows.schema]
            columns = [f"c{n}" for n in range(len(kinds))] + [_ORDER]
            made = [*(forms.staged_type(kind) for kind in kinds), "NUMBER(38,0)"]
            taken = ", ".join(f"$1:{name}::{kind}" for name, kind in zip(columns, made, strict=True))
            for n, (file, count) in enumerate(_files(cast.batches(), columns)):
                if n == 0:
                    self._client.run(f"USE SCHEMA {sql.quoted(target[:2])}")
                    self._client.run(f"CREATE OR REPLACE TEMPORARY STAGE {place}")
                    definition = ", ".join(f"{name} {kind}" for name, kind in zip(columns, made, strict=True))
                    self._client.run(f"CREATE OR REPLACE TEMPORARY TABLE {place} ({definition})")
                name = f"{uuid4().hex}.parquet"  # of one that was loaded before, nothing would be loaded
                self._client.put(file, name, place)
                done = self._client.run(
                    f"COPY INTO {place} ({', '.join(columns)}) FROM (SELECT {taken} FROM @{place}/{name}) "
                    "FILE_FORMAT = (TYPE = PARQUET)"
                )
                if sum(int(row[_LOADED]) for row in done.rows if len(row) > _LOADED) != count:
                    raise Unavailable(f"{KIND} has not loaded all rows. Nothing was kept.", "Try again.")
        return cast.count, place

    def _checkpoints(self) -> Table:
        return self._whole((CHECKPOINTS.upper(),))

    def _columns(self, table: Table) -> list[Column] | None:
        if table not in self._known:
            try:
                self._known[table] = self._client.describe(f"SELECT * FROM {sql.quoted(table)}")
            except NotFound:
                self._known[table] = None
        return self._known[table]

    def _listed(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        if not self._database:
            raise BadInput("The details name no database, and this user has none.", "Add database.")
        return self._client.run(query.format(sql.quoted((self._database,))), parameters).rows

    def _whole(self, table: Table) -> Table:
        """The name with database and schema. Raises BadInput when nothing tells them."""
        whole = (*(self._database, self._schema)[: 3 - len(table)], *table)
        if not all(whole):
            raise BadInput(
                "The table's name has no database or schema, and the details name none.",
                "Write it like shop.sales.daily, or add database and schema.",
            )
        return whole


def _column(name: str) -> str:
    return sql.quoted((name,))


def _in_order(query: str, there: list[Column], request: ReadRequest) -> tuple[str, list[Any]]:
    """The query for rows in the order of keys, and the values of its further parameters. What is behind some values is
    told key by key: Snowflake compares no rows."""
    keys = [there[place] for place in sql.key_places(request.order_by, [column.shown for column in there])]
    for key in keys:
        if not forms.is_ordered(key):
            raise sql.inexact_key(key.shown, key.declared)
    by = [forms.compared(key, f"q.{_column(key.name)}") for key in keys]
    where = ""
    values: list[Any] = []
    if request.after is not None:
        ways = []
        for n, key in enumerate(keys):
            same = [f"{by[m]} = {forms.behind(keys[m])}" for m in range(n)]
            ways.append(" AND ".join([*same, f"{by[n]} > {forms.behind(key)}"]))
            values += request.after[: n + 1]
        ways += [f"q.{_column(key.name)} IS NULL" for key in keys]
        where = f" WHERE {' OR '.join(f'({way})' for way in ways)}"
    limit = f" LIMIT {request.limit:d}" if request.limit is not None else ""
    return f"SELECT * FROM (\n{query}\n) AS q{where} ORDER BY {', '.join(by)}{limit}", values


def _files(batches: Iterable[pa.RecordBatch], columns: Sequence[str]) -> Iterator[tuple[io.BytesIO, int]]:
    """The rows as files of Parquet, each row with its place in the order in which they came, and how many are in it."""
    at, waiting, size = 0, [], 0
    for batch in batches:
        if not batch.num_rows:
            continue
        places = pa.array(range(at, at + batch.num_rows), pa.int64())
        at += batch.num_rows
        staged = forms.staged(batch)
        waiting.append(pa.RecordBatch.from_arrays([*staged, places], names=list(columns)))
        size += batch.nbytes
        if size >= FILE_BYTES:
            yield _file(waiting)
            waiting, size = [], 0
    if waiting:
        yield _file(waiting)


def _file(batches: list[pa.RecordBatch]) -> tuple[io.BytesIO, int]:
    import pyarrow.parquet as pq

    file, rows = io.BytesIO(), pa.Table.from_batches(batches)
    pq.write_table(rows, file)
    file.seek(0)
    return file, rows.num_rows
