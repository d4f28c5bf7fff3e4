"""What an open BIGQUERY connection does: rows come and go as Arrow by the Storage API, and whatever is written takes
effect in one statement or one transaction."""

from __future__ import annotations

import base64
import re
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

import pyarrow as pa

from bettong.domain.drivers import Entry, ReadOrder, ReadRequest
from bettong.drivers import bigquery_types as forms
from bettong.drivers import sql, sql_errors
from bettong.drivers.bigquery_errors import KIND
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput, BettongError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bettong.drivers.bigquery_api import Api, Done, Reference
    from bettong.drivers.bigquery_storage import Storage
    from bettong.drivers.sql import Table

STAGED_FOR_S = 24 * 3600.0  # a table of rows on their way; whoever was killed leaves it for that long
_MARK = "`"
_ORDER = "_bettong_order"
_RANK = "_bettong_rank"
_PART = r"`[^`]+`|\"[^\"]+\"|[^\W\d][\w$-]*"
_NAME = re.compile(rf"\s*({_PART})(?:\.({_PART}))?(?:\.({_PART}))?\s*")
_COLUMN = re.compile(r"[^!\"$()*,./;?@\[\\\]^`{}~]{1,300}")
_KINDS = {"VIEW": "view", "MATERIALIZED_VIEW": "view"}


class BigQuerySource(SqlSink):
    """Calls on behalf of one login. Rows that are written go into a table of their own first, and from there in one
    statement, or one transaction, to where they belong."""

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(
        self, project: str, dataset: str, table: str, api: Api, open_storage: Callable[[], Storage | None]
    ) -> None:
        self._project, self._dataset, self._table = project, dataset, table
        self._api, self._open_storage = api, open_storage
        self._opened: tuple[Storage | None] | None = None
        self._statements: list[str] = []
        self._staged: list[Reference] = []
        self._known: dict[Reference, list[forms.Field] | None] = {}

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        if named := _named(text):
            reference = self._reference(named)
            found = self._api.table(reference)
            if found is None:
                raise sql_errors.no_table(KIND, f" '{reference.shown}'")
            if found.get("type", "TABLE") == "TABLE" and not request.order_by:
                return self._rows(reference, found.get("schema", {}).get("fields", []), request.batch_rows)
            limit = f" LIMIT {request.limit:d}" if request.limit is not None and not request.order_by else ""
            text = f"SELECT * FROM {self._sql(reference)}{limit}"
        parameters = forms.bound(request.parameters)
        statement, fields = self._api.describe(text, parameters)
        if statement != "SELECT":
            raise sql_errors.read_only(KIND)
        if request.order_by:
            text, values = _in_order(text, fields, request)
            parameters += forms.bound(values)
        return self._answer(self._api.run(text, parameters), request.batch_rows)

    def browse(self, path: str) -> list[Entry]:
        if not path:
            return [Entry(name, "schema") for name in self._api.datasets()]
        names = _named(path)
        if names is None:
            raise sql_errors.no_table(KIND)
        if len(names) == 1:
            found = self._api.tables(names[0])
            return [Entry(f"{names[0]}.{name}", _KINDS.get(kind, "table")) for name, kind in found]
        reference = self._reference(names)
        if (columns := self._columns(reference)) is None:
            raise sql_errors.no_table(KIND, f" '{path}'")
        return [Entry(column["name"], "column", forms.shown(column)) for column in columns]

    def greeted(self) -> str:
        """Whether this login is taken. Raises BadInput when it is not."""
        self._api.datasets(1)
        return "logged in"

    def rights(self) -> str:
        """What this login may do. Raises BadInput when it may not ask, or not read the table of the details."""
        self._api.describe("SELECT 1")
        if not self._table:
            return "queries may be run"
        reference = self._reference(_table(self._table))
        if self._columns(reference) is None:
            raise sql_errors.no_table(KIND, f" '{reference.shown}'")
        storage = self._storage()
        if storage is None:
            return f"'{reference.shown}' may be read, by REST: the details name no grpc_endpoint"
        if self._session(storage, reference) is None:
            return f"'{reference.shown}' may be read, by REST: this login lacks bigquery.readsessions.create"
        return f"'{reference.shown}' may be read, by the Storage API"

    # Writing, in the terms of SqlSink.

    def target(self, name: str) -> Table:
        reference = self._reference(_table(name))
        return (reference.project, reference.dataset, reference.table)

    @contextmanager
    def writing(self) -> Iterator[None]:
        if self._storage() is None:
            raise BadInput(
                "Writing to BigQuery needs its Storage API, and the details name no way to it.",
                "Give grpc_endpoint beside api_endpoint.",
            )
        try:
            yield
        finally:
            self._known.clear()
            staged, self._staged = self._staged, []
            for reference in staged:
                try:
                    self._api.delete(reference)
                except BettongError:
                    continue  # it expires by itself, and whether the rows are kept is known without it

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements are kept until the end, and run as one: nothing has changed before."""
        self._statements = []
        yield
        if len(self._statements) > 1:
            self._statements = ["BEGIN TRANSACTION", *self._statements, "COMMIT TRANSACTION"]
        if self._statements:
            self._api.run(";\n".join(self._statements))

    def columns(self, table: Table) -> list[str] | None:
        found = self._columns(self._reference(table))
        return None if found is None else [column["name"] for column in found]

    def form(self, kind: pa.DataType) -> Any:
        return forms.loaded_as(kind)

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        for name in schema.names:
            if not _COLUMN.fullmatch(name):
                raise BadInput(
                    f"BigQuery takes no column '{name}': the name holds a character that its names may not have.",
                    "Rename it, such as out.forecast to out_forecast.",
                )
        fields = [forms.declared(field.name, self.form(field.type)) for field in schema]
        reference = self._reference(table)
        self._api.create(reference, fields)
        self._known[reference] = fields

    def empty(self, table: Table) -> None:
        self._then(f"DELETE FROM {self._sql(self._reference(table))} WHERE TRUE")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        reference = self._reference(table)
        plan = self._plan(reference, rows.schema)
        count, staged = self._stage(reference, rows, plan, ())
        if count:
            names = sql.listed(rows.schema.names, _MARK)
            values = ", ".join(plan.values[name] for name in rows.schema.names)
            self._then(f"INSERT INTO {self._sql(reference)} ({names}) SELECT {values} FROM {self._sql(staged)}")
        return count

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        reference = self._reference(table)
        plan = self._plan(reference, rows.schema)
        count, staged = self._stage(reference, rows, plan, keys)
        if count:
            names = rows.schema.names
            columns = {name: sql.quoted((name,), _MARK) for name in names}
            partition = ", ".join(columns[key] for key in keys)
            source = (
                f"SELECT {', '.join(f'{plan.values[name]} AS {columns[name]}' for name in names)} FROM (SELECT *, "
                f"ROW_NUMBER() OVER (PARTITION BY {partition} ORDER BY {_ORDER} DESC) AS {_RANK} "
                f"FROM {self._sql(staged)}) WHERE {_RANK} = 1"
            )
            others = [name for name in names if name not in keys]
            change = (
                f"WHEN MATCHED THEN UPDATE SET {', '.join(f'{columns[n]} = s.{columns[n]}' for n in others)} "
                if others
                else ""
            )
            self._then(
                f"MERGE {self._sql(reference)} AS t USING ({source}) AS s "
                f"ON {' AND '.join(f't.{columns[key]} = s.{columns[key]}' for key in keys)} {change}"
                f"WHEN NOT MATCHED THEN INSERT ({', '.join(columns.values())}) "
                f"VALUES ({', '.join(f's.{column}' for column in columns.values())})"
            )
        return count

    def create_checkpoints(self) -> None:
        fields: list[forms.Field] = [{"name": name, "type": "STRING"} for name in ("job_id", "position")]
        self._api.create(self._reference((CHECKPOINTS,)), fields)

    def kept_position(self, job_id: str) -> str | None:
        place = self._sql(self._reference((CHECKPOINTS,)))
        done = self._api.run(f"SELECT position FROM {place} WHERE job_id = ?", forms.bound([job_id]))
        schema = _schema(done.fields)
        found = [value for batch in self._api.rows_of(done, schema) for value in batch.column(0).to_pylist()]
        return str(found[0]) if found else None

    def keep_position(self, job_id: str, position: str) -> None:
        self._then(
            f"MERGE {self._sql(self._reference((CHECKPOINTS,)))} AS t "
            f"USING (SELECT {_literal(job_id)} AS job_id, {_literal(position)} AS position) AS s "
            "ON t.job_id = s.job_id WHEN MATCHED THEN UPDATE SET position = s.position "
            "WHEN NOT MATCHED THEN INSERT (job_id, position) VALUES (s.job_id, s.position)"
        )

    def _then(self, statement: str) -> None:
        self._statements.append(statement)

    def _plan(self, reference: Reference, schema: pa.Schema) -> forms.Plan:
        there = self._columns(reference)
        assert there is not None, "the table was seen or made a moment ago"
        return forms.plan(schema, there, {name: sql.quoted((name,), _MARK) for name in schema.names})

    def _stage(
        self, target: Reference, rows: pa.RecordBatchReader, plan: forms.Plan, keys: tuple[str, ...]
    ) -> tuple[int, Reference]:
        """Rows into a table of their own beside the target: how many, and where. With keys each has its place, too.
        Without rows there is no such table."""
        storage = self._storage()
        assert storage is not None, "asked before"
        reference = type(target)(target.project, target.dataset, f"_bettong_rows_{uuid4().hex}")
        schema, columns = plan.schema, plan.columns
        if keys:
            schema = schema.append(pa.field(_ORDER, pa.int64()))
            columns = [*columns, {"name": _ORDER, "type": "INTEGER"}]
        with self.loading(rows, keys, plan.schema) as cast:
            batches = (forms.without_null_lists(batch) for batch in cast.batches() if batch.num_rows)
            if (first := next(batches, None)) is not None:
                self._api.create(reference, columns, STAGED_FOR_S)
                self._staged.append(reference)
                every = chain([first], batches)
                storage.append(reference.path, schema, _numbered(every, schema) if keys else every)
        return cast.count, reference

    # Reading.

    def _rows(self, reference: Reference, fields: list[forms.Field], batch_rows: int) -> pa.RecordBatchReader:
        storage = self._storage()
        if storage is not None and (found := self._session(storage, reference)) is not None:
            return found
        schema = _schema(fields)
        return pa.RecordBatchReader.from_batches(schema, self._api.rows(reference, fields, schema, batch_rows))

    def _answer(self, done: Done, batch_rows: int) -> pa.RecordBatchReader:
        storage = self._storage()
        if storage is not None and done.destination is not None:
            with suppress(NotFound):  # not every service keeps what a query gave as a table
                if (found := self._session(storage, done.destination)) is not None:
                    return found
        schema = _schema(done.fields)
        return pa.RecordBatchReader.from_batches(schema, self._api.rows_of(done, schema, batch_rows))

    def _session(self, storage: Storage, reference: Reference) -> pa.RecordBatchReader | None:
        """The rows of a table by the Storage API; None when this login may not read that way."""
        session = storage.session(self._project, reference.path)
        if session is None:
            return None
        return pa.RecordBatchReader.from_batches(session.schema, storage.batches(session, reference.path))

    def _storage(self) -> Storage | None:
        """The Storage API, opened when it is first needed; None where the details name no way to it."""
        if self._opened is None:
            self._opened = (self._open_storage(),)
        return self._opened[0]

    def _columns(self, reference: Reference) -> list[forms.Field] | None:
        if reference not in self._known:
            found = self._api.table(reference)
            self._known[reference] = None if found is None else found.get("schema", {}).get("fields", [])
        return self._known[reference]

    def _reference(self, names: Table) -> Reference:
        from bettong.drivers.bigquery_api import Reference

        dataset = names[-2] if len(names) > 1 else self._dataset
        if not dataset:
            raise BadInput(
                "The table's name has no dataset, and the details name none.",
                "Write it like sales.daily, or add dataset.",
            )
        return Reference(names[0] if len(names) == 3 else self._project, dataset, names[-1])

    def _sql(self, reference: Reference) -> str:
        names = (reference.project, reference.dataset, reference.table)
        return sql.quoted(names, _MARK)


def _named(text: str) -> Table | None:
    """The parts of a table's name, such as sales.daily, `my-project.sales.daily` or "daily rows"; None when the text is
    no name."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    parts = [part for part in found.groups() if part is not None]
    names = [name for part in parts for name in (part[1:-1].split(".") if part[0] == _MARK else [part.strip('"')])]
    return tuple(names) if len(names) <= 3 and all(names) else None


def _table(text: str) -> Table:
    found = _named(text)
    if found is None:
        raise BadInput("The table's name is not one that BigQuery can have.", "Write it like daily or sales.daily.")
    return found


def _in_order(query: str, fields: list[forms.Field], request: ReadRequest) -> tuple[str, list[Any]]:
    """The query for rows in the order of keys, and the values of its further parameters. BigQuery compares no rows:
    what is behind some values is told key by key."""
    names = [field["name"] for field in fields]
    for place in sql.key_places(request.order_by, names):
        if fields[place].get("mode") == "REPEATED" or not forms.is_ordered(fields[place]["type"]):
            raise sql.inexact_key(names[place], forms.shown(fields[place]))
    keys = [f"q.{sql.quoted((key,), _MARK)}" for key in request.order_by]
    behind: list[str] = []
    values: list[Any] = []
    if request.after is not None:
        for n, key in enumerate(keys):
            behind.append(" AND ".join([*(f"{same} = ?" for same in keys[:n]), f"{key} > ?"]))
            values += request.after[: n + 1]
        behind += [f"{key} IS NULL" for key in keys]
    where = f" WHERE {' OR '.join(f'({one})' for one in behind)}" if behind else ""
    limit = f" LIMIT {request.limit:d}" if request.limit is not None else ""
    ordered = f"SELECT * FROM (\n{query.rstrip().rstrip(';')}\n) AS q{where} ORDER BY {', '.join(keys)}{limit}"
    return ordered, values


def _schema(fields: list[forms.Field]) -> pa.Schema:
    return pa.schema([pa.field(field["name"], forms.read_as(field)) for field in fields])


def _numbered(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Each row with its place in the order in which they came."""
    at = 0
    for batch in batches:
        places = pa.array(range(at, at + batch.num_rows), pa.int64())
        yield pa.RecordBatch.from_arrays([*batch.columns, places], schema=schema)
        at += batch.num_rows


def _literal(text: str) -> str:
    """A text within a statement, whatever it holds: parameters do not reach into the statements of a script."""
    return f"SAFE_CONVERT_BYTES_TO_STRING(FROM_BASE64('{base64.b64encode(text.encode()).decode()}'))"
