"""POSTGRES: a PostgreSQL server, through ADBC. Rows come by COPY as Arrow; what has no plain type comes as text."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import pyarrow as pa
from pydantic import AliasChoices, Field, field_validator

from bettong.domain.drivers import Entry, ReadOrder, Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers import postgres_types as forms
from bettong.drivers import sql, sql_errors
from bettong.drivers.layers import climb
from bettong.drivers.postgres_errors import KIND, no_connection, translated
from bettong.drivers.server_details import ServerDetails
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.drivers import Egress, ReadRequest
    from bettong.drivers.adbc import Connection
    from bettong.drivers.sql import Table

BATCH_BYTES = str(4 * 2**20)  # small enough that the next one is fetched while this one is on its way
_STAGING = "_bettong_rows"
_CURSOR = "_bettong_cursor"
FIRST_ROWS, MOST_ROWS = 1_000, 65_536  # of one step of the cursor
_AFTER = "bettong.after_"  # settings of the session: values of keys
_COLUMNS = (
    "SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type FROM pg_attribute a "
    "WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
_READABLE = (
    "SELECT n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS kind FROM pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') "
    "AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND has_table_privilege(c.oid, 'SELECT')"
)
_KINDS = {"r": "table", "p": "table", "v": "view", "m": "view", "f": "table"}


class PostgresDetails(ServerDetails):
    schemes: ClassVar[tuple[str, ...]] = ("postgresql", "postgres")

    port: int = Field(5432, ge=1, le=65535)
    schema_: str = Field("", alias="schema", description="Where tables without a schema are looked for and made.")
    sslmode: Literal["disable", "prefer", "require", "verify", "verify-ca", "verify-full"] = Field(
        "prefer",
        validation_alias=AliasChoices("sslmode", "ssl"),
        description="Whether TLS is used and the server's certificate checked; 'verify' is verify-full.",
    )
    ssl_ca: str = Field("", description="The authority of the server's certificate, as PEM text.")
    numeric: Literal["auto", "double", "text"] = Field(
        "auto",
        description="How NUMERIC is read: decimal if declared with precision and double if not, or one of these.",
    )

    @field_validator("sslmode", mode="before")
    @classmethod
    def _verified(cls, value: Any) -> Any:
        return "verify-full" if value == "verify" else value


class PostgresSource(SqlSink):
    """One connection; one stream at a time. It reads only, but for the time of a write."""

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(self, connection: Connection, details: PostgresDetails) -> None:
        self._connection, self._details = connection, details

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._details.table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        if named := sql.table_named(text):
            limit = f" LIMIT {request.limit:d}" if request.limit is not None and not request.order_by else ""
            text = f"SELECT * FROM {sql.quoted(named)}{limit}"
        else:
            text = text.rstrip().rstrip(";")
        described = self._connection.schema_of(text)
        query = forms.plain_query(text, described, self._details.numeric, self._order(described, request))
        if request.parameters:
            rows = self._fetched(query, request.parameters)
        else:
            rows = self._connection.query(query, (), **{"adbc.postgresql.batch_size_hint_bytes": BATCH_BYTES})
        return forms.with_decimals(rows, described, self._details.numeric)

    def browse(self, path: str) -> list[Entry]:
        if not path:
            query = "SELECT DISTINCT schema AS name FROM (" + _READABLE + ") AS t ORDER BY name"
            return [Entry(row["name"], "schema") for row in self._connection.rows(query)]
        names = sql.table(path)
        if len(names) == 1:
            query = f"{_READABLE} AND n.nspname = $1::name ORDER BY name"
            rows = self._connection.rows(query, names)
            return [Entry(f"{row['schema']}.{row['name']}", _KINDS[row["kind"]]) for row in rows]
        columns = self._connection.rows(_COLUMNS, (sql.quoted(names),))
        if not columns:
            raise sql_errors.no_table(KIND, f" '{path}'")
        return [Entry(row["name"], "column", row["type"]) for row in columns]

    def rights(self) -> str:
        """What this user may do: with the table of the details, or in all. Raises BadInput when it is nothing."""
        if not self._details.table:
            found = self._connection.rows(f"SELECT count(*) AS n FROM ({_READABLE}) AS t")
            return f"{found[0]['n']} tables and views may be read" if found[0]["n"] else "this user may read no table"
        name = sql.quoted(sql.table(self._details.table))
        query = (
            "SELECT to_regclass($1::text) IS NOT NULL AS there, has_table_privilege(to_regclass($1::text), 'SELECT') "
            "AS read, has_table_privilege(to_regclass($1::text), 'INSERT') AS write"
        )
        found = self._connection.rows(query, (name,))
        if not found[0]["there"]:
            raise sql_errors.no_table(KIND, f" '{self._details.table}'")
        if not found[0]["read"]:
            raise sql_errors.no_right(KIND, f": it may not read '{self._details.table}'")
        return f"'{self._details.table}' may be read{' and written' if found[0]['write'] else ', not written'}"

    def target(self, name: str) -> Table:
        return sql.table(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._connection.execute("SET default_transaction_read_only = off")
        yield
        self._connection.execute("SET default_transaction_read_only = on")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self._connection.transaction():
            yield

    def columns(self, table: Table) -> list[str] | None:
        return [row["name"] for row in self._connection.rows(_COLUMNS, (sql.quoted(table),))] or None

    def form(self, kind: pa.DataType) -> Any:
        return forms.loaded_as(kind)

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        columns = [f"{sql.quoted((field.name,))} {forms.declaration(field.type)}" for field in schema]
        primary = [f"PRIMARY KEY ({sql.listed(keys)})"] if keys else []
        self._connection.execute(f"CREATE TABLE {sql.quoted(table)} ({', '.join([*columns, *primary])})")

    def empty(self, table: Table) -> None:
        # Not TRUNCATE: whoever reads meanwhile goes on seeing the old rows until all the new ones are there.
        self._connection.execute(f"DELETE FROM {sql.quoted(table)}")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        plan = self._plan(table, rows.schema)
        if plan.direct:
            return self._load(table, rows, plan, (), **_place(table))
        return self._through_staging(table, rows, plan, (), "")

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        others = [sql.quoted((name,)) for name in rows.schema.names if name not in keys]
        change = (
            f"DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in others)}" if others else "DO NOTHING"
        )
        plan = self._plan(table, rows.schema)
        return self._through_staging(table, rows, plan, keys, f" ON CONFLICT ({sql.listed(keys)}) {change}")

    def create_checkpoints(self) -> None:
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {CHECKPOINTS} "
            "(job_id text PRIMARY KEY, position text NOT NULL, kept_at timestamptz NOT NULL DEFAULT now())"
        )

    def lock_checkpoint(self, job_id: str) -> None:
        self._connection.rows("SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0)) IS NULL", (job_id,))

    def kept_position(self, job_id: str) -> str | None:
        query = f"SELECT position FROM {CHECKPOINTS} WHERE job_id = $1::text"
        found = self._connection.rows(query, (job_id,))
        return str(found[0]["position"]) if found else None

    def keep_position(self, job_id: str, position: str) -> None:
        self._connection.execute(
            f"INSERT INTO {CHECKPOINTS} (job_id, position) VALUES ($1::text, $2::text) "
            "ON CONFLICT (job_id) DO UPDATE SET position = excluded.position, kept_at = now()",
            (job_id, position),
        )

    def _order(self, described: pa.Schema, request: ReadRequest) -> str:
        """What puts the rows of `forms.plain_query` in the order of keys.

        The values to go on behind are bound to settings of this session: bound to the query itself they would have all
        of its rows sent as one result, where now they are a stream.
        """
        places = sql.key_places(request.order_by, described.names)
        types = [forms.key_type(described.field(place), self._details.numeric) for place in places]
        for n, (value, kind) in enumerate(zip(request.after or (), types, strict=False)):
            self._connection.rows(
                f"SELECT set_config('{_AFTER}{n}', ($1{kind})::text, false) IS NULL AS kept", (value,)
            )
        after = [f"current_setting('{_AFTER}{n}'){kind}" for n, kind in enumerate(types)]
        return sql.in_order([f"q.c{place}" for place in places], after if request.after else (), request.limit)

    def _fetched(self, query: str, parameters: tuple[Any, ...]) -> pa.RecordBatchReader:
        """The rows of a query with parameters, by a cursor: ADBC takes the whole result of one at once."""
        stack = ExitStack()
        with ExitStack() as failing:
            failing.callback(stack.close)
            stack.enter_context(self._connection.transaction())
            self._connection.execute(f"DECLARE {_CURSOR} NO SCROLL CURSOR FOR {query}", parameters)
            first = self._fetch(FIRST_ROWS)
            failing.pop_all()

        def batches() -> Iterator[pa.RecordBatch]:
            rows = first
            with stack:
                while rows.num_rows:
                    yield from rows.to_batches()
                    row_bytes = max(1.0, rows.nbytes / rows.num_rows)
                    rows = self._fetch(max(1, min(MOST_ROWS, int(int(BATCH_BYTES) / row_bytes))))

        return pa.RecordBatchReader.from_batches(first.schema, batches())

    def _fetch(self, rows: int) -> pa.Table:
        fetch = f"FETCH FORWARD {rows:d} FROM {_CURSOR}"
        return self._connection.query(fetch, (), **{"adbc.postgresql.use_copy": "false"}).read_all()

    def _plan(self, table: Table, schema: pa.Schema) -> forms.Plan:
        there = self._connection.schema_of(f"SELECT {sql.listed(schema.names)} FROM {sql.quoted(table)}")
        types = {row["name"]: row["type"] for row in self._connection.rows(_COLUMNS, (sql.quoted(table),))}
        return forms.plan(schema, there, types)

    def _load(
        self, table: Table, rows: pa.RecordBatchReader, plan: forms.Plan, keys: tuple[str, ...], **place: str
    ) -> int:
        with self.loading(rows, keys, plan.schema) as cast:
            self._connection.ingest(table[-1], cast.reader(), **place)
        return cast.count

    def _through_staging(
        self, table: Table, rows: pa.RecordBatchReader, plan: forms.Plan, keys: tuple[str, ...], conflict: str
    ) -> int:
        """Into a temporary table first, and from there with the database's own casts."""
        columns = [f"{sql.quoted((field.name,))} {forms.declaration(field.type)}" for field in plan.schema]
        self._connection.execute(f"CREATE TEMP TABLE {_STAGING} ({', '.join(columns)}) ON COMMIT DROP")
        count = self._load((_STAGING,), rows, plan, keys, **{"adbc.ingest.temporary": "true"})
        values = ", ".join(
            f"CAST({sql.quoted((name,))} AS {plan.casts[name]})" if name in plan.casts else sql.quoted((name,))
            for name in plan.schema.names
        )
        # Rows lie in a fresh table in the order in which they came: of each key the last one counts.
        only = f"DISTINCT ON ({sql.listed(keys)}) " if keys else ""
        order = f" ORDER BY {sql.listed(keys)}, ctid DESC" if keys else ""
        self._connection.execute(
            f"INSERT INTO {sql.quoted(table)} ({sql.listed(plan.schema.names)}) "
            f"SELECT {only}{values} FROM pg_temp.{_STAGING}{order}{conflict}"
        )
        self._connection.execute(f"DROP TABLE pg_temp.{_STAGING}")
        return count


class PostgresDriver:
    types: ClassVar[tuple[str, ...]] = ("POSTGRES", "POSTGRESQL")
    title: ClassVar[str] = "PostgreSQL"
    extra: ClassVar[str] = "postgres"
    needs: ClassVar[tuple[str, ...]] = ("adbc_driver_manager", "adbc_driver_postgresql")
    rebinding_safe: ClassVar[bool] = True  # libpq connects to hostaddr, and takes host for certificates alone
    details: ClassVar[type[PostgresDetails]] = PostgresDetails
    source: ClassVar[type[PostgresSource]] = PostgresSource

    @contextmanager
    def open(self, details: PostgresDetails, egress: Egress, timeout_s: float) -> Iterator[PostgresSource]:
        target = reach.resolve(details.host, details.port, egress)
        reach.connect(target, timeout_s).close()  # says which layer fails; libpq's own words may not be passed on
        with _connected(details, target, timeout_s) as source:
            yield source

    def test(self, details: PostgresDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        from bettong.drivers.postgres_tls import shake_hands

        known: dict[str, Any] = {}
        with ExitStack() as stack:

            def look_up() -> str:
                known["target"] = reach.resolve(details.host, details.port, egress)
                return reach.counted(known["target"])

            def connect() -> str:
                reach.connect(known["target"], timeout_s).close()
                return f"port {details.port} is open"

            def log_in() -> str:
                known["source"] = stack.enter_context(_connected(details, known["target"], timeout_s, timeout_s))
                return "logged in"

            yield from climb(
                [
                    (Stage.DNS, look_up),
                    (Stage.TCP, connect),
                    (
                        Stage.TLS,
                        None
                        if details.sslmode == "disable"
                        else lambda: shake_hands(known["target"], details.sslmode, details.ssl_ca, timeout_s),
                    ),
                    (Stage.LOGIN, log_in),
                    (Stage.PERMISSION, lambda: known["source"].rights()),
                    (Stage.SAMPLE, lambda: sql.sampled(known["source"], details.table)),
                ]
            )


@contextmanager
def _connected(
    details: PostgresDetails, target: reach.Target, timeout_s: float, statement_s: float | None = None
) -> Iterator[PostgresSource]:
    """Log in at the checked addresses. `statement_s` bounds each statement; streams are bounded by who reads them."""
    import adbc_driver_postgresql

    from bettong.drivers.adbc import Connection
    from bettong.drivers.postgres_tls import authority_file

    with authority_file(details.sslmode, details.ssl_ca) as authority:
        words = {
            "host": ",".join([target.host] * len(target.addresses)),
            "hostaddr": ",".join(target.addresses),
            "port": str(target.port),
            "user": details.user,
            "password": details.password.get_secret_value(),
            "dbname": details.database or details.user,
            "sslmode": details.sslmode,
            "sslrootcert": authority,
            "connect_timeout": str(max(2, int(timeout_s))),
            "passfile": "/nonexistent",
            "client_encoding": "UTF8",
            "application_name": "bettong",
        }
        conninfo = " ".join(f"{name}={_word(value)}" for name, value in words.items() if value)
        library = str(adbc_driver_postgresql._driver_path())
        connection = Connection(library, conninfo, no_connection)
    connection.translate_by(translated)
    try:
        connection.execute("SET default_transaction_read_only = on")
        connection.execute("SET TimeZone = 'UTC'")
        # A query whose reader was ended is not worth going on; servers that cannot look do without.
        connection.rows(
            "SELECT set_config(name, '2s', false) AS kept FROM pg_settings "
            "WHERE name = 'client_connection_check_interval' AND current_setting('server_version_num')::int >= 140000"
        )
        if statement_s is not None:
            connection.execute(f"SET statement_timeout = {int(statement_s * 1000):d}")
        if details.schema_:
            path = sql.quoted((details.schema_,))
            connection.rows("SELECT set_config('search_path', $1::text, false) AS kept", (path,))
        yield PostgresSource(connection, details)
    finally:
        connection.close()


def _place(table: Table) -> dict[str, str]:
    return {"adbc.ingest.target_db_schema": table[0]} if len(table) == 2 else {}


def _word(value: str) -> str:
    """A value as libpq's connection strings quote it."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
