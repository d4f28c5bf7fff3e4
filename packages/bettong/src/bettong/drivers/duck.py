"""DUCKDB: a database file below the allowed folders. Nothing outside of that file can be reached by a query."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import AliasChoices, Field

from bettong.domain.drivers import Entry, ReadOrder, ReadRequest, Stage, StageResult
from bettong.drivers import sql, sql_errors
from bettong.drivers.details import Details
from bettong.drivers.layers import climb
from bettong.drivers.paths import existing_file, inside
from bettong.drivers.sql_forms import scalar_form
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput, BettongError, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.drivers import Egress
    from bettong.drivers.sql import Table

KIND = "DuckDB"
BATCH_ROWS = 65_536
_ROWS = "_bettong_rows"
_STAGING = "_bettong_staging"
_CONFIG: dict[str, Any] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
    "threads": "2",
}
_SORTING = {"memory_limit": "96MB"}  # the rest is sorted on disk
# icu comes with the library and knows time zones. After that the door is locked: no other file, no extension and no
# variable of ours is within reach of a query.
_LOCK = ("LOAD icu", "SET TimeZone = 'UTC'", "SET enable_external_access = false", "SET lock_configuration = true")
_READ_AS = {"HUGEINT": "DOUBLE", "UHUGEINT": "DOUBLE", "INTERVAL": "VARCHAR", "TIME WITH TIME ZONE": "VARCHAR"}


class DuckDetails(Details):
    path: str = Field(
        validation_alias=AliasChoices("path", "database", "file"), description="The file, on the platform's machine."
    )
    table: str = Field("", description="What is read when nothing else is asked for.")


class DuckSource(SqlSink):
    """Opens the file read-only to read, and for writing only while it writes: never both at once."""

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(self, details: DuckDetails, path: Path) -> None:
        self._details, self._path = details, path
        self._write: Any = None

    @property
    def path(self) -> Path:
        """The file that reading locks for writers."""
        return self._path

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._details.table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        named = sql.table_named(text)
        connection = self._connect(read_only=True, sorting=bool(request.order_by))
        with _translated(text):
            query = f"SELECT * FROM {sql.quoted(named)}" if named else _one_query(text)
            if request.limit is not None and named and not request.order_by:
                query += f" LIMIT {request.limit:d}"
            described = connection.execute(f"DESCRIBE {query}", list(request.parameters)).fetchall()
            order = _order(query, described, request)
            found = connection.execute(
                _plain(query, described, order), [*request.parameters, *(request.after or () if order else ())]
            )
            reader = found.to_arrow_reader(min(request.batch_rows, BATCH_ROWS))
        return pa.RecordBatchReader.from_batches(reader.schema, _streamed(reader, connection, text))

    def browse(self, path: str) -> list[Entry]:
        connection = self._connect(read_only=True)
        with _translated(path), connection:
            if not path:
                found = connection.execute(
                    "SELECT table_schema, table_name, table_type FROM information_schema.tables ORDER BY ALL"
                ).fetchall()
                return [Entry(_shown(s, n), "view" if kind == "VIEW" else "table") for s, n, kind in found]
            columns = _columns(connection, sql.table(path))
        if not columns:
            raise sql_errors.no_table(KIND, f" '{path}'")
        return [Entry(name, "column", kind) for name, kind in columns]

    def target(self, name: str) -> Table:
        return sql.table(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._write = self._connect(read_only=False)
        try:
            yield
        finally:
            self._write.close()
            self._write = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._run("BEGIN")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with suppress(BettongError):  # DuckDB ends a transaction itself after some errors
                self._run("ROLLBACK")
            raise

    def columns(self, table: Table) -> list[str] | None:
        return [name for name, _ in _columns(self._write, table)] or None

    def form(self, kind: pa.DataType) -> Any:
        return scalar_form(kind) or kind

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        formed = pa.schema([pa.field(field.name, self.form(field.type)) for field in schema])
        self._write.register(_ROWS, pa.Table.from_batches([], formed))
        types = self._run(f"DESCRIBE SELECT * FROM {_ROWS}").fetchall()
        self._write.unregister(_ROWS)
        columns = [f"{sql.quoted((name,))} {kind}" for name, kind, *_ in types]
        primary = [f"PRIMARY KEY ({sql.listed(keys)})"] if keys else []
        self._run(f"CREATE TABLE {sql.quoted(table)} ({', '.join([*columns, *primary])})")

    def empty(self, table: Table) -> None:
        self._run(f"DELETE FROM {sql.quoted(table)}")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        names = sql.listed(rows.schema.names)
        return self._load(rows, (), f"INSERT INTO {sql.quoted(table)} ({names}) SELECT {names} FROM {_ROWS}")

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        names = rows.schema.names
        count = self._load(rows, keys, f"CREATE TEMP TABLE {_STAGING} AS SELECT {sql.listed(names)} FROM {_ROWS}")
        others = [sql.quoted((name,)) for name in names if name not in keys]
        change = f"DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in others)}" if others else "DO NOTHING"
        self._run(
            f"INSERT INTO {sql.quoted(table)} ({sql.listed(names)}) SELECT {sql.listed(names)} FROM {_STAGING} "
            f"QUALIFY row_number() OVER (PARTITION BY {sql.listed(keys)} ORDER BY rowid DESC) = 1 "
            f"ON CONFLICT ({sql.listed(keys)}) {change}"
        )
        self._run(f"DROP TABLE {_STAGING}")
        return count

    def create_checkpoints(self) -> None:
        self._run(f"CREATE TABLE {CHECKPOINTS} (job_id VARCHAR PRIMARY KEY, position VARCHAR NOT NULL)")

    def kept_position(self, job_id: str) -> str | None:
        found = self._run(f"SELECT position FROM {CHECKPOINTS} WHERE job_id = ?", job_id).fetchone()
        return str(found[0]) if found else None

    def keep_position(self, job_id: str, position: str) -> None:
        self._run(
            f"INSERT INTO {CHECKPOINTS} (job_id, position) VALUES (?, ?) "
            "ON CONFLICT (job_id) DO UPDATE SET position = excluded.position",
            job_id,
            position,
        )

    def check(self) -> str:
        """Whether the file is a database that can be read; what it holds, in words."""
        return f"{len(self.browse(''))} tables and views"

    def _load(self, rows: pa.RecordBatchReader, keys: tuple[str, ...], statement: str) -> int:
        with self.loading(rows, keys) as cast:
            self._write.register(_ROWS, cast.reader())
            try:
                self._run(statement)
            finally:
                self._write.unregister(_ROWS)
        return cast.count

    def _run(self, statement: str, *parameters: object) -> Any:
        with _translated(statement):
            return self._write.execute(statement, list(parameters))

    def _connect(self, *, read_only: bool, sorting: bool = False) -> Any:
        import duckdb

        if read_only and not self._path.is_file():
            raise NotFound(f"There is no file '{self._details.path}' on the platform's machine.", "Check the path.")
        with _translated(""):
            connection = duckdb.connect(
                str(self._path), read_only=read_only, config=_CONFIG | _SORTING if sorting else _CONFIG
            )
            for statement in _LOCK:
                connection.execute(statement)
        return connection


class DuckDriver:
    types: ClassVar[tuple[str, ...]] = ("DUCKDB",)
    title: ClassVar[str] = "DuckDB"
    extra: ClassVar[str] = "duckdb"
    needs: ClassVar[tuple[str, ...]] = ("duckdb",)
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[DuckDetails]] = DuckDetails
    source: ClassVar[type[DuckSource]] = DuckSource

    @contextmanager
    def open(self, details: DuckDetails, egress: Egress, timeout_s: float) -> Iterator[DuckSource]:
        yield DuckSource(details, inside(details.path, egress))

    def test(self, details: DuckDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        def log_in() -> str:
            existing_file(details.path, egress)
            with self.open(details, egress, timeout_s) as source:
                return source.check()

        def sample() -> str:
            with self.open(details, egress, timeout_s) as source:
                return sql.sampled(source, details.table)

        yield from climb(
            [
                *((stage, None) for stage in (Stage.DNS, Stage.TCP, Stage.TLS)),
                (Stage.LOGIN, log_in),
                (Stage.PERMISSION, None),
                (Stage.SAMPLE, sample),
            ]
        )


def _one_query(text: str) -> str:
    """The one SELECT that the text is, by DuckDB's own parser. Raises BadInput."""
    import duckdb

    statements = duckdb.extract_statements(text)
    if len(statements) != 1:
        raise BadInput("The query is not one statement.", "Send one SELECT at a time.")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise sql_errors.read_only(KIND)
    return str(statements[0].query).strip().rstrip(";")


def _order(query: str, described: list[Any], request: ReadRequest) -> str:
    """What puts the rows of `_plain` in the order of keys."""
    places = sql.key_places(request.order_by, [str(name) for name, *_ in described])
    for place in places:
        if described[place][1] in _READ_AS:
            raise sql.inexact_key(*described[place][:2])
    # Marks of both kinds in one query are none that DuckDB takes.
    numbered = any(kind == "other" and value == "$" for kind, value in sql.tokens(query))
    first = len(request.parameters) + 1
    after = [f"CAST({f'${first + n}' if numbered else '?'} AS {described[place][1]})" for n, place in enumerate(places)]
    return sql.in_order([f"q.c{place}" for place in places], after if request.after else (), request.limit)


def _plain(query: str, described: list[Any], order: str = "") -> str:
    """The query with casts for types that Arrow has no counterpart of. `order` speaks of its columns as `q.c0` and so
    on."""
    casts = [_READ_AS.get(kind) for _, kind, *_ in described]
    if not any(casts) and not order:
        return query
    columns = [
        f"CAST(q.c{n} AS {cast}) AS {sql.quoted((name,))}" if cast else f"q.c{n} AS {sql.quoted((name,))}"
        for n, ((name, *_), cast) in enumerate(zip(described, casts, strict=True))
    ]
    names = ", ".join(f"c{n}" for n in range(len(casts)))
    return f"SELECT {', '.join(columns)} FROM (\n{query}\n) AS q({names}){order}"


def _columns(connection: Any, table: Table) -> list[tuple[str, str]]:
    with _translated(""):
        found = connection.execute(
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_name = ? AND table_schema = "
            "coalesce(?, current_schema()) ORDER BY ordinal_position",
            [table[-1], table[0] if len(table) == 2 else None],
        )
        return [(str(name), str(kind)) for name, kind in found.fetchall()]


def _streamed(reader: pa.RecordBatchReader, connection: Any, query: str) -> Iterator[pa.RecordBatch]:
    with _translated(query):
        yield from reader
    connection.close()


def _shown(schema: str, name: str) -> str:
    return name if schema == "main" else f"{schema}.{name}"


@contextmanager
def _translated(query: str) -> Iterator[None]:
    import duckdb

    try:
        yield
        return
    except (duckdb.Error, pa.ArrowException, OSError) as failed:
        translated = _in_our_words(failed, query)
    raise translated


def _in_our_words(failed: BaseException, query: str) -> BettongError:
    text = str(failed)
    name = sql_errors.named(text, query)
    kind = type(failed).__name__
    if "Could not set lock" in text:
        return sql_errors.busy(KIND)
    if "not a valid DuckDB database" in text or kind == "SerializationException":
        return BadInput("The file is no DuckDB database that this version reads.", "Check the path.")
    if "read-only mode" in text:
        return sql_errors.read_only(KIND)
    if "not referenced by a UNIQUE" in text:
        return sql_errors.no_unique(KIND)
    if kind == "CatalogException":
        return sql_errors.no_function(KIND, name) if "Function" in text else sql_errors.no_table(KIND, name)
    if kind == "BinderException":
        return sql_errors.no_column(KIND, name) if "olumn" in text else sql_errors.bad_sql(KIND, name)
    if kind in ("ParserException", "SyntaxException"):
        return sql_errors.bad_sql(KIND, name)
    if kind == "ConstraintException":
        return sql_errors.constraint(KIND, "it breaks a constraint of the table")
    if kind in ("ConversionException", "OutOfRangeException", "TypeMismatchException"):
        return sql_errors.bad_values(KIND)
    if kind == "PermissionException":
        return sql_errors.no_right(KIND)
    if kind in ("IOException", "OSError"):
        return BadInput("The file cannot be opened.", "Check who may read and write it.")
    return sql_errors.other(KIND, kind)
