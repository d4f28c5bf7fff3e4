"""SQLITE: a database file below the allowed folders, through ADBC.

SQLite has no types but a few; dates, times and booleans are what a column was declared as.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import AliasChoices, Field

from bettong.domain.drivers import Entry, ReadOrder, Stage, StageResult
from bettong.drivers import sql, sql_errors
from bettong.drivers.details import Details
from bettong.drivers.layers import climb
from bettong.drivers.paths import existing_file, inside
from bettong.drivers.sql_forms import scalar_form
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput, BettongError, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bettong.domain.drivers import Egress, ReadRequest
    from bettong.drivers.adbc import Connection
    from bettong.drivers.sql import Table

KIND = "SQLite"
BATCH_ROWS = 16_384
_STAGING = "_bettong_rows"
_VIEW = "_bettong_query"
_LIBRARY = "adbc_driver_sqlite"


class SqliteDetails(Details):
    path: str = Field(
        validation_alias=AliasChoices("path", "database", "file"), description="The file, on the platform's machine."
    )
    table: str = Field("", description="What is read when nothing else is asked for.")


class SqliteSource(SqlSink):
    """Opens the file read-only to read, and for writing only while it writes.

    While a stream of its rows is open nobody may write to the file. A date or time that is a key comes as the text that
    it is stored as: only that is in the file's own order.
    """

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(self, details: SqliteDetails, path: Path, timeout_s: float) -> None:
        self._details, self._path, self._timeout_s = details, path, timeout_s
        self._write: Connection | None = None

    @property
    def path(self) -> Path:
        """The file that reading locks for writers."""
        return self._path

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._details.table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        named = sql.table_named(text)
        sql.check_marks(text, request.parameters)
        query = f"SELECT * FROM {sql.quoted(_local(named))}" if named else sql.one_query(text)
        if request.limit is not None and named and not request.order_by:
            query += f" LIMIT {request.limit:d}"
        connection = self._connect("ro")
        connection.prepare(query)
        declared = _declared(connection, query)
        if request.order_by:
            query, declared = self._ordered(connection, query, declared, request)
        parameters = (*request.parameters, *(request.after or ()))
        rows = connection.query(query, parameters, **{"adbc.sqlite.query.batch_rows": str(BATCH_ROWS)})
        return _typed(rows, [kind for _, kind in declared])

    def browse(self, path: str) -> list[Entry]:
        connection = self._connect("ro")
        try:
            if not path:
                query = "SELECT name, type FROM sqlite_schema WHERE type IN ('table', 'view') ORDER BY name"
                return [
                    Entry(r["name"], r["type"]) for r in connection.rows(query) if not r["name"].startswith("sqlite_")
                ]
            columns = _table_info(connection, _local(sql.table(path))[0])
            if not columns:
                raise sql_errors.no_table(KIND, f" '{path}'")
            return [Entry(name, "column", declared) for name, declared in columns]
        finally:
            connection.close()

    def close(self) -> None:
        """Readers hold their connections themselves."""

    def target(self, name: str) -> Table:
        return _local(sql.table(name))

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._write = self._connect("rwc")
        try:
            yield
        finally:
            self._write.close()
            self._write = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._writer.transaction():
            yield

    def columns(self, table: Table) -> list[str] | None:
        return [name for name, _ in _table_info(self._writer, table[-1])] or None

    def form(self, kind: pa.DataType) -> pa.DataType:
        flat = scalar_form(kind)
        if flat is not None and pa.types.is_duration(flat):
            return pa.int64()
        if flat is None or pa.types.is_temporal(flat) or pa.types.is_decimal(flat):
            return pa.string()
        return flat

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        columns = [f"{sql.quoted((field.name,))} {_declaration(field.type)}" for field in schema]
        primary = [f"PRIMARY KEY ({sql.listed(keys)})"] if keys else []
        self._writer.execute(f"CREATE TABLE {sql.quoted(table)} ({', '.join([*columns, *primary])})")

    def empty(self, table: Table) -> None:
        self._writer.execute(f"DELETE FROM {sql.quoted(table)}")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        with self.loading(rows, schema=self._fitted(table, rows.schema)) as cast:
            self._writer.ingest(table[-1], cast.reader())
        return cast.count

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        names = rows.schema.names
        fitted = self._fitted(table, rows.schema)
        self._writer.execute(f"CREATE TEMP TABLE {_STAGING} ({sql.listed(names)})")
        with self.loading(rows, keys, fitted) as cast:
            self._writer.ingest(_STAGING, cast.reader(), **{"adbc.ingest.temporary": "true"})
        others = [sql.quoted((name,)) for name in names if name not in keys]
        change = f"DO UPDATE SET {', '.join(f'{n} = excluded.{n}' for n in others)}" if others else "DO NOTHING"
        self._writer.execute(
            f"INSERT INTO {sql.quoted(table)} ({sql.listed(names)}) SELECT {sql.listed(names)} FROM temp.{_STAGING} "
            f"WHERE true ORDER BY rowid ON CONFLICT ({sql.listed(keys)}) {change}"
        )
        self._writer.execute(f"DROP TABLE temp.{_STAGING}")
        return cast.count

    def create_checkpoints(self) -> None:
        self._writer.execute(f"CREATE TABLE {CHECKPOINTS} (job_id TEXT PRIMARY KEY, position TEXT NOT NULL)")

    def kept_position(self, job_id: str) -> str | None:
        found = self._writer.rows(f"SELECT position FROM {CHECKPOINTS} WHERE job_id = ?", (job_id,))
        return str(found[0]["position"]) if found else None

    def keep_position(self, job_id: str, position: str) -> None:
        self._writer.execute(
            f"INSERT INTO {CHECKPOINTS} (job_id, position) VALUES (?, ?) "
            "ON CONFLICT (job_id) DO UPDATE SET position = excluded.position",
            (job_id, position),
        )

    def check(self) -> str:
        """Whether the file is a database that can be read; what it holds, in words."""
        return f"{len(self.browse(''))} tables and views"

    def _ordered(
        self, connection: Connection, query: str, declared: list[tuple[str, str]], request: ReadRequest
    ) -> tuple[str, list[tuple[str, str]]]:
        """The query for rows in the order of keys, and what its columns count as declared as."""
        connection.query("PRAGMA temp_store = FILE").read_all()  # what is sorted may not fit into memory
        sql.key_places(request.order_by, [name for name, _ in declared])
        # Whatever the columns were declared with: texts that NOCASE takes for the same are different keys.
        by = [f"q.{sql.quoted((key,))} COLLATE BINARY" for key in request.order_by]
        marks = ["?"] * len(request.after or ())
        kinds = [
            (
                name,
                "TEXT" if name in request.order_by and pa.types.is_temporal(_arrow_type(kind) or pa.null()) else kind,
            )
            for name, kind in declared
        ]
        return f"SELECT * FROM (\n{query}\n) AS q{sql.in_order(by, marks, request.limit)}", kinds

    def _fitted(self, table: Table, schema: pa.Schema) -> pa.Schema:
        """The types in which rows go into this table. SQLite itself would keep a text in a column of numbers.

        Raises:
            BadInput: a column of the rows is of a type that is never a number, and the table's is one of numbers.
        """
        declared = dict(_table_info(self._writer, table[-1]))
        return pa.schema(
            [pa.field(each.name, _loaded_as(each, self.form(each.type), declared[each.name])) for each in schema]
        )

    @property
    def _writer(self) -> Connection:
        assert self._write is not None, "only between the ends of writing()"
        return self._write

    def _connect(self, mode: str) -> Connection:
        import adbc_driver_sqlite

        from bettong.drivers.adbc import Connection

        if mode == "ro" and not self._path.is_file():
            raise NotFound(f"There is no file '{self._details.path}' on the platform's machine.", "Check the path.")
        library = str(adbc_driver_sqlite._driver_path())
        connection = Connection(library, f"file:{quote(str(self._path))}?mode={mode}", translated)
        connection.query(f"PRAGMA busy_timeout = {int(self._timeout_s * 1000):d}").read_all()
        connection.query("PRAGMA temp_store = MEMORY").read_all()
        return connection


class SqliteDriver:
    types: ClassVar[tuple[str, ...]] = ("SQLITE",)
    title: ClassVar[str] = "SQLite"
    extra: ClassVar[str] = "sqlite"
    needs: ClassVar[tuple[str, ...]] = ("adbc_driver_manager", _LIBRARY)
    rebinding_safe: ClassVar[bool] = True
    details: ClassVar[type[SqliteDetails]] = SqliteDetails
    source: ClassVar[type[SqliteSource]] = SqliteSource

    @contextmanager
    def open(self, details: SqliteDetails, egress: Egress, timeout_s: float) -> Iterator[SqliteSource]:
        yield SqliteSource(details, inside(details.path, egress), timeout_s)

    def test(self, details: SqliteDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        with ExitStack() as stack:

            def log_in() -> str:
                existing_file(details.path, egress)
                return stack.enter_context(self.open(details, egress, timeout_s)).check()

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


def translated(failed: BaseException, query: str) -> BettongError:
    """SQLite's errors in our words."""
    text = str(failed)
    name = sql_errors.named(text, query)
    known: dict[str, Callable[[], BettongError]] = {
        "no such table": lambda: sql_errors.no_table(KIND, name),
        "no such column": lambda: sql_errors.no_column(KIND, name),
        "no such function": lambda: sql_errors.no_function(KIND, name),
        "syntax error": lambda: sql_errors.bad_sql(KIND, name),
        "readonly database": lambda: sql_errors.read_only(KIND),
        "ON CONFLICT clause does not match": lambda: sql_errors.no_unique(KIND),
        "UNIQUE constraint": lambda: sql_errors.constraint(KIND, "one with the same key is there"),
        "NOT NULL constraint": lambda: sql_errors.constraint(KIND, "a column that needs a value has none"),
        "constraint failed": lambda: sql_errors.constraint(KIND, "it breaks a constraint of the table"),
        "Type mismatch in column": _mixed,
        "cannot store": lambda: sql_errors.bad_values(KIND),
        "not a database": lambda: BadInput("The file is no SQLite database.", "Check the path."),
        "locked": lambda: sql_errors.busy(KIND),
        "open": lambda: BadInput("The file cannot be opened.", "Check who may read and write it."),
    }
    for sign, said in known.items():
        if sign in text:
            return said()
    return sql_errors.other(KIND, getattr(failed, "vendor_code", None) or type(failed).__name__)


def _mixed() -> BettongError:
    return BadInput(
        "A column of the result holds values of different types.", "CAST it to one type in the query, such as TEXT."
    )


def _local(table: Table) -> Table:
    """A table of the file itself: `main.t` is `t`."""
    if len(table) == 2 and table[0].lower() != "main":
        raise BadInput(f"SQLite has no schema '{table[0]}' here.", "Name the table alone.")
    return table[-1:]


def _table_info(connection: Connection, name: str) -> list[tuple[str, str]]:
    found = connection.rows("SELECT name, type FROM pragma_table_info(?)", (name,))
    return [(row["name"], row["type"] or "") for row in found]


def _declared(connection: Connection, query: str) -> list[tuple[str, str]]:
    """The columns of a query and what they were declared as, "" for those that are computed. SQLite tells it of a
    view."""
    connection.execute(f"CREATE TEMP VIEW {_VIEW} AS {sql.without_parameters(query)}")
    return [(name, declared.upper()) for name, declared in _table_info(connection, _VIEW)]


def _typed(rows: pa.RecordBatchReader, declared: list[str]) -> pa.RecordBatchReader:
    """The rows with types by declaration. What the first batch holds decides where a declaration is only a wish."""
    first = next(iter(rows), None)
    fields = []
    for i, field in enumerate(rows.schema):
        column = first.column(i) if first is not None else pa.array([], field.type)
        fields.append(pa.field(field.name, _type(column, declared[i] if i < len(declared) else "")))
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        if first is None:
            return
        yield _cast(first, schema)
        for batch in rows:
            yield _cast(batch, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _type(column: Any, declared: str) -> Any:
    wanted = _arrow_type(declared)
    if column.null_count == len(column):  # nothing seen: SQLite calls that an integer
        return wanted or _affinity(declared) if declared else column.type
    if wanted is None:
        return column.type
    if pa.types.is_boolean(wanted):
        return wanted if pa.types.is_integer(column.type) else column.type
    if not pa.types.is_string(column.type):
        return column.type
    try:
        pc.cast(column, wanted)
    except pa.ArrowInvalid:
        return column.type
    return wanted


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        if column.type.equals(field.type):
            columns.append(column)
        elif column.null_count == len(column):
            columns.append(pa.nulls(len(column), field.type))
        else:
            try:
                columns.append(pc.cast(column, field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise BadInput(
                    f"Column '{field.name}' holds values that are not {field.type}, as it was declared or began.",
                    "CAST it to TEXT in the query.",
                ) from None
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _arrow_type(declared: str) -> pa.DataType | None:
    """The type behind a declaration that SQLite itself does not know."""
    word = declared.partition("(")[0].strip()
    if word.startswith("BOOL"):
        return pa.bool_()
    if word in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE", "DATETIMEOFFSET"):
        return pa.timestamp("us", "UTC")
    if word.startswith(("DATETIME", "TIMESTAMP")):
        return pa.timestamp("us")
    if word == "DATE":
        return pa.date32()
    return pa.time64("us") if word == "TIME" else None


def _affinity(declared: str) -> pa.DataType:
    """SQLite's own rule for the type of a column by the words of its declaration."""
    if "INT" in declared:
        return pa.int64()
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT")):
        return pa.string()
    if "BLOB" in declared:
        return pa.binary()
    return pa.float64()


def _loaded_as(field: pa.Field[Any], form: pa.DataType, declared: str) -> pa.DataType:
    """The type for a column's values on their way into one that was declared so: texts become numbers, or are refused,
    where it is one of numbers. What else SQLite makes of values loses nothing."""
    numbers = _number(declared.upper())
    kind = field.type
    if numbers is None or not (pa.types.is_string(form) or pa.types.is_binary(form)) or pa.types.is_decimal(kind):
        return form
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return numbers
    raise BadInput(
        f"Column '{field.name}' is {kind}, and the table's was declared as {declared}, which is for numbers.",
        "Cast the column before writing it, or change the table.",
    )


def _number(declared: str) -> pa.DataType | None:
    """The type of a column that is one of numbers by SQLite's rule; None for others, among them dates and decimals."""
    if "INT" in declared:
        return pa.int64()
    if any(word in declared for word in ("CHAR", "CLOB", "TEXT", "BLOB")):
        return None
    return pa.float64() if any(word in declared for word in ("REAL", "FLOA", "DOUB")) else None


def _declaration(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_boolean(kind):
        return "BOOLEAN"
    if types.is_integer(kind) or types.is_duration(kind):
        return "INTEGER"
    if types.is_floating(kind):
        return "REAL"
    if types.is_date(kind):
        return "DATE"
    if types.is_time(kind):
        return "TIME"
    if types.is_timestamp(kind):
        return "TIMESTAMPTZ" if kind.tz else "TIMESTAMP"
    if types.is_decimal(kind):
        return f"DECIMAL({kind.precision}, {kind.scale})"
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "BLOB"
    return "TEXT"
