"""MYSQL and MARIADB: through PyMySQL, rows turned into Arrow a batch at a time."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from bettong.domain.drivers import Entry, ReadOrder, ReadRequest, Stage, StageResult
from bettong.drivers import egress as reach
from bettong.drivers import mysql_types as forms
from bettong.drivers import sql, sql_errors
from bettong.drivers.layers import climb
from bettong.drivers.mysql_errors import KIND, NO_TLS, translated
from bettong.drivers.server_details import ServerDetails
from bettong.drivers.sql_sink import CHECKPOINTS, SqlSink
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from bettong.domain.drivers import Egress
    from bettong.drivers.sql import Table

INSERT_ROWS = 5_000
_STAGING = "_bettong_rows"
_ORDER = "_bettong_order"
_MARK = "`"


class MySqlDetails(ServerDetails):
    schemes: ClassVar[tuple[str, ...]] = ("mysql", "mariadb", "mysql+pymysql")

    port: int = Field(3306, ge=1, le=65535)
    ssl: Literal["prefer", "require", "verify", "disable"] = Field(
        "prefer", description="Whether TLS is used and the server's certificate checked."
    )
    ssl_ca: str = Field("", description="The authority of the server's certificate, as PEM text.")


class MySqlSource(SqlSink):
    """One connection; one stream at a time. It reads only, but for the time of a write."""

    read_order: ClassVar[ReadOrder] = ReadOrder.KEYS

    def __init__(self, connection: Any, details: MySqlDetails) -> None:
        self._connection, self._details = connection, details

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        text = request.query or self._details.table
        if not text:
            raise BadInput("Nothing says what to read.", "Send a query or a table, or name a table in the details.")
        if named := sql.table_named(text):
            limit = f" LIMIT {request.limit:d}" if request.limit is not None and not request.order_by else ""
            text = f"SELECT * FROM {sql.quoted(named, _MARK)}{limit}"
        if request.order_by:
            text = self._ordered(text.rstrip().rstrip(";"), request)
        parameters = (*request.parameters, *(request.after or ()))
        return forms.stream(self._connection, text, parameters, request.batch_rows, self._failed)

    def browse(self, path: str) -> list[Entry]:
        if not path:
            query = (
                "SELECT table_schema, table_name, table_type FROM information_schema.tables WHERE table_schema "
                "NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys') ORDER BY 1, 2"
            )
            return [
                Entry(f"{schema}.{name}", "view" if "VIEW" in kind else "table")
                for schema, name, kind in self._rows(query)
            ]
        columns = self._described(sql.table(path.replace('"', _MARK)))
        if not columns:
            raise sql_errors.no_table(KIND, f" '{path}'")
        return [Entry(name, "column", kind) for name, kind in columns]

    def rights(self) -> str:
        found = self._rows(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema "
            "NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')"
        )
        if self._details.table and not self._described(sql.table(self._details.table)):
            raise sql_errors.no_table(KIND, f" '{self._details.table}'")
        return f"{found[0][0]} tables and views are seen" if found[0][0] else "this user sees no table"

    def target(self, name: str) -> Table:
        return sql.table(name)

    @contextmanager
    def writing(self) -> Iterator[None]:
        self._run("SET SESSION TRANSACTION READ WRITE")
        yield
        self._run("SET SESSION TRANSACTION READ ONLY")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self._run("SET autocommit = 0")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with suppress(BettongError):  # a broken connection rolls back by itself; the first error is the one to tell
                self._run("ROLLBACK")
            raise
        self._run("SET autocommit = 1")

    def columns(self, table: Table) -> list[str] | None:
        return [name for name, _ in self._described(table)] or None

    def form(self, kind: pa.DataType) -> Any:
        return forms.loaded_as(kind)

    def create(self, table: Table, schema: pa.Schema, keys: tuple[str, ...]) -> None:
        columns = [f"{_name(field.name)} {forms.declaration(field.type, key=field.name in keys)}" for field in schema]
        primary = [f"PRIMARY KEY ({_names(keys)})"] if keys else []
        engine = "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        self._run(f"CREATE TABLE {sql.quoted(table, _MARK)} ({', '.join([*columns, *primary])}) {engine}")

    def empty(self, table: Table) -> None:
        self._run(f"DELETE FROM {sql.quoted(table, _MARK)}")

    def append(self, table: Table, rows: pa.RecordBatchReader) -> int:
        return self._load(sql.quoted(table, _MARK), rows, ())

    def upsert(self, table: Table, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        self._check_unique(table, keys)
        names = rows.schema.names
        columns = [f"{_name(field.name)} {forms.declaration(self.form(field.type))}" for field in rows.schema]
        self._run(f"DROP TEMPORARY TABLE IF EXISTS {_STAGING}")  # of a write that failed: it outlives a rollback
        self._run(
            f"CREATE TEMPORARY TABLE {_STAGING} ({', '.join(columns)}, {_ORDER} BIGINT AUTO_INCREMENT PRIMARY KEY) "
            "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        )
        count = self._load(_STAGING, rows, keys)
        # A key on which nothing else changes is set to itself: there is no DO NOTHING.
        changed = [name for name in names if name not in keys] or list(keys)
        change = ", ".join(f"{_name(name)} = VALUES({_name(name)})" for name in changed)
        self._run(
            f"INSERT INTO {sql.quoted(table, _MARK)} ({_names(names)}) SELECT {_names(names)} FROM {_STAGING} "
            f"ORDER BY {_ORDER} ON DUPLICATE KEY UPDATE {change}"
        )
        self._run(f"DROP TEMPORARY TABLE {_STAGING}")
        return count

    def check_transactional(self, table: Table) -> None:
        found = self._rows(
            "SELECT e.transactions, t.engine FROM information_schema.tables t JOIN information_schema.engines e "
            "ON e.engine = t.engine WHERE t.table_name = %s AND t.table_schema = coalesce(%s, database())",
            (table[-1], table[0] if len(table) == 2 else None),
        )
        if not found or found[0][0] != "YES":
            raise BadInput(
                f"Table '{'.'.join(table)}' has an engine without transactions.",
                "ALTER it to InnoDB.",
            )

    def create_checkpoints(self) -> None:
        self._run(
            f"CREATE TABLE IF NOT EXISTS {CHECKPOINTS} (job_id VARCHAR(255) PRIMARY KEY, position TEXT NOT NULL) "
            "ENGINE=InnoDB DEFAULT CHARSET=utf8mb4"
        )

    def lock_checkpoint(self, job_id: str) -> None:
        self._rows(f"SELECT job_id FROM {CHECKPOINTS} WHERE job_id = %s FOR UPDATE", (job_id,))

    def kept_position(self, job_id: str) -> str | None:
        found = self._rows(f"SELECT position FROM {CHECKPOINTS} WHERE job_id = %s", (job_id,))
        return str(found[0][0]) if found else None

    def keep_position(self, job_id: str, position: str) -> None:
        self._run(
            f"INSERT INTO {CHECKPOINTS} (job_id, position) VALUES (%s, %s) "
            "ON DUPLICATE KEY UPDATE position = VALUES(position)",
            (job_id, position),
        )

    def _ordered(self, query: str, request: ReadRequest) -> str:
        """The query for rows in the order of keys."""
        looking = f"SELECT * FROM (\n{query}\n) AS q LIMIT 0"
        described = forms.stream(self._connection, looking, request.parameters, 1, self._failed).read_all().schema
        sql.key_places(request.order_by, described.names)
        keys = [described.field(key) for key in request.order_by]
        by = [forms.key(f"q.{_name(key.name)}", key) for key in keys]
        if request.after is None:
            after = []
        else:
            after = [forms.key("%s", key) for key in keys]
            if not request.parameters:  # now that values are bound, a % of the query's own has to be doubled
                query = query.replace("%", "%%")
        return f"SELECT * FROM (\n{query}\n) AS q{sql.in_order(by, after, request.limit)}"

    def _check_unique(self, table: Table, keys: tuple[str, ...]) -> None:
        """MySQL takes any unique index for the one that was meant: see that there is one on just the keys."""
        found = self._rows(
            "SELECT index_name, column_name FROM information_schema.statistics WHERE non_unique = 0 "
            "AND table_name = %s AND table_schema = coalesce(%s, database())",
            (table[-1], table[0] if len(table) == 2 else None),
        )
        indexes: dict[str, set[str]] = {}
        for index, column in found:
            indexes.setdefault(index, set()).add(column.lower())
        if {key.lower() for key in keys} not in indexes.values():
            raise sql_errors.no_unique(KIND)

    def _load(self, place: str, rows: pa.RecordBatchReader, keys: tuple[str, ...]) -> int:
        """By LOAD DATA LOCAL from memory where the server takes it, else by INSERTs of many rows."""
        fast = self._rows("SELECT @@local_infile")[0][0] == 1
        with self.loading(rows, keys) as cast:
            for batch in cast.batches():
                names = batch.schema.names
                if fast:
                    with self._failed(""):
                        forms.load(self._connection, place, batch)
                    continue
                marks = ", ".join(["%s"] * len(names))
                statement = f"INSERT INTO {place} ({_names(names)}) VALUES ({marks})"
                for start in range(0, batch.num_rows, INSERT_ROWS):
                    values = [list(row.values()) for row in batch.slice(start, INSERT_ROWS).to_pylist()]
                    with self._failed(""), self._connection.cursor() as cursor:
                        cursor.executemany(statement, values)
        return cast.count

    def _described(self, table: Table) -> list[tuple[str, str]]:
        found = self._rows(
            "SELECT column_name, column_type FROM information_schema.columns WHERE table_name = %s "
            "AND table_schema = coalesce(%s, database()) ORDER BY ordinal_position",
            (table[-1], table[0] if len(table) == 2 else None),
        )
        return [(str(name), str(kind)) for name, kind in found]

    def _rows(self, query: str, parameters: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        with self._failed(query), self._connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return list(cursor.fetchall())

    def _run(self, statement: str, parameters: tuple[object, ...] = ()) -> None:
        with self._failed(statement), self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)

    @contextmanager
    def _failed(self, query: str) -> Iterator[None]:
        import pymysql

        try:
            yield
            return
        except (pymysql.MySQLError, OSError) as failed:
            ours = translated(failed, query)
        raise ours


class MySqlDriver:
    types: ClassVar[tuple[str, ...]] = ("MYSQL", "MARIADB")
    title: ClassVar[str] = "MySQL and MariaDB"
    extra: ClassVar[str] = "mysql"
    needs: ClassVar[tuple[str, ...]] = ("pymysql",)
    rebinding_safe: ClassVar[bool] = True  # the socket is ours
    details: ClassVar[type[MySqlDetails]] = MySqlDetails
    source: ClassVar[type[MySqlSource]] = MySqlSource

    @contextmanager
    def open(self, details: MySqlDetails, egress: Egress, timeout_s: float) -> Iterator[MySqlSource]:
        with _connected(details, reach.resolve(details.host, details.port, egress), timeout_s) as source:
            yield source

    def test(self, details: MySqlDetails, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        known: dict[str, Any] = {}
        with ExitStack() as stack:

            def look_up() -> str:
                known["target"] = reach.resolve(details.host, details.port, egress)
                return reach.counted(known["target"])

            def connect() -> str:
                reach.connect(known["target"], timeout_s).close()
                return f"port {details.port} is open"

            def shake_hands() -> str:
                from bettong.drivers import mysql_tls

                assert details.ssl != "disable"
                return mysql_tls.shake_hands(known["target"], details.ssl, details.ssl_ca, timeout_s)

            def log_in() -> str:
                known["source"] = stack.enter_context(_connected(details, known["target"], timeout_s))
                return "logged in"

            yield from climb(
                [
                    (Stage.DNS, look_up),
                    (Stage.TCP, connect),
                    (Stage.TLS, None if details.ssl == "disable" else shake_hands),
                    (Stage.LOGIN, log_in),
                    (Stage.PERMISSION, lambda: known["source"].rights()),
                    (Stage.SAMPLE, lambda: sql.sampled(known["source"], details.table)),
                ]
            )


@contextmanager
def _connected(details: MySqlDetails, target: reach.Target, timeout_s: float) -> Iterator[MySqlSource]:
    """Log in; where TLS is only preferred, without it when the server has none."""
    import pymysql

    connection: Any = None
    failed: BaseException | None = None
    for tls in {"disable": (False,), "prefer": (True, False)}.get(details.ssl, (True,)):
        try:
            connection = _log_in(details, target, timeout_s, tls=tls)
            break
        except (pymysql.MySQLError, OSError) as error:
            failed = error
            if error.args[:1] != (NO_TLS,):
                break
    if connection is None:
        assert failed is not None
        raise translated(failed, "") from None
    try:
        source = MySqlSource(connection, details)
        source._run("SET SESSION TRANSACTION READ ONLY")
        source._run("SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE'")
        yield source
    finally:
        if connection.open:
            connection.close()


def _log_in(details: MySqlDetails, target: reach.Target, timeout_s: float, *, tls: bool) -> Any:
    import pymysql

    from bettong.drivers import mysql_tls

    context = mysql_tls.context(details.ssl, details.ssl_ca) if tls and details.ssl != "disable" else None
    connection = pymysql.Connection(
        host=target.host,
        port=target.port,
        user=details.user,
        password=details.password.get_secret_value(),
        database=details.database or None,
        charset="utf8mb4",
        local_infile=True,
        ssl=context,
        ssl_disabled=not tls,
        autocommit=True,
        defer_connect=True,
        connect_timeout=timeout_s,
    )
    # Whatever it is asked, a server can answer with the wish for a file of ours: only mysql_types.load grants one.
    connection._local_infile = False
    connection.connect(reach.connect(target, timeout_s))
    return connection


def _name(name: str) -> str:
    return sql.quoted((name,), _MARK)


def _names(names: tuple[str, ...] | list[str]) -> str:
    return sql.listed(names, _MARK)
