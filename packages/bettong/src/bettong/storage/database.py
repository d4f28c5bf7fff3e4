"""One database, SQLite or PostgreSQL: opening it, short transactions, and its errors in our words."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    StatementError,
    TimeoutError,
)

from bettong.errors import BadInput, BettongError, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection as Transaction
    from sqlalchemy import Table
    from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
    from sqlalchemy.dialects.sqlite import Insert as SqliteInsert

LOCK_WAIT_MS = 15_000
_UNIQUE = {"SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY", "23505"}
_FOREIGN_KEY = {"SQLITE_CONSTRAINT_FOREIGNKEY", "23503"}
_NO_SPACE = {"SQLITE_FULL", "53100"}
_DAMAGED = {"SQLITE_NOTADB", "SQLITE_CORRUPT"}
# Locks, files and connections; in SQLSTATE classes: connection, deadlock, resources, operator at work.
_TRANSIENT = ("SQLITE_BUSY", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY", "08", "40", "53", "57")
_UNSTORABLE = {"22021", "22P05", "22003"}  # a character, or a number, that the column cannot hold


class Database:
    """An open database. Safe to use from many threads; `close()` it when done.

    A transaction that was committed survives `kill -9` of this process: SQLite has handed it to the operating system
    (write-ahead log, synchronous=NORMAL), PostgreSQL has it on its own disk.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(bettong_writes=True)
        # SQLite takes one writer at a time and lets others poll for the lock. Queueing our own threads is fairer.
        self._one_writer: AbstractContextManager[Any] = threading.Lock() if self.is_sqlite else nullcontext()

    def __repr__(self) -> str:
        return f"Database({self._engine.dialect.name})"

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction for reading: what it sees does not change between statements on SQLite."""
        with _in_our_words(None, None), self._engine.begin() as transaction:
            yield transaction

    @contextmanager
    def write(self, *, taken: BettongError | None = None, unknown: BettongError | None = None) -> Iterator[Transaction]:
        """A transaction for writing, committed when the block ends and rolled back when it raises.

        Raises:
            taken: a unique constraint refused a row.
            unknown: a row refers to another one that does not exist.
            Unavailable: the database does not answer or stays locked.
            StorageFull: its disk is full.
            BadInput: a text or number that this database cannot hold.
        """
        with self._one_writer, _in_our_words(taken, unknown), self._writing.begin() as transaction:
            yield transaction

    def close(self) -> None:
        self._engine.dispose()


def open_database(url: str) -> Database:
    """Open the database at `url`: `sqlite:////path/to/file` or `postgresql://user:password@host/name`.

    A SQLite file and its folder are made when missing, readable by their owner alone. No table is made or read.

    Raises:
        BadInput: no such kind of database, or its driver is not installed.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise BadInput(
            "The database URL cannot be read.", "Write it as postgresql://user:password@host/name or sqlite:///path."
        ) from None
    kind = parsed.drivername.partition("+")[0]
    if kind == "sqlite":
        return Database(_open_sqlite(parsed))
    if kind in ("postgresql", "postgres"):
        return Database(_open_postgres(parsed.set(drivername="postgresql+psycopg")))
    raise BadInput(
        f"A database URL starts with '{kind}'.", "This release keeps its metadata in sqlite:/// or postgresql://."
    )


def upsert(transaction: Transaction, table: Table) -> SqliteInsert | PostgresInsert:
    """An INSERT for `table` that knows ON CONFLICT, in the words of the transaction's database."""
    if transaction.dialect.name == "sqlite":
        from sqlalchemy.dialects import sqlite

        return sqlite.insert(table)
    from sqlalchemy.dialects import postgresql  # imported where it is used: SQLite platforms never pay for it

    return postgresql.insert(table)


def _open_sqlite(url: URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise BadInput("A SQLite URL names no file.", "Write it as sqlite:////absolute/path/bettong.db.")
    _make_private(Path(url.database))
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite", query={}),
        hide_parameters=True,
        json_serializer=_to_json,
        # We say BEGIN ourselves: Python's sqlite3 would start transactions late and never for DDL.
        connect_args={"isolation_level": None, "timeout": LOCK_WAIT_MS / 1000, "check_same_thread": False},
        pool_size=4,
        max_overflow=60,  # more than the server has threads
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        _log_ahead(connection)
        for setting in ("synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={LOCK_WAIT_MS}"):
            connection.execute(f"PRAGMA {setting}")

    @event.listens_for(engine, "begin")
    def begin(connection: Transaction) -> None:
        # IMMEDIATE takes the write lock at once: a reader that turns writer could only fail when it is outrun.
        writes = connection.get_execution_options().get("bettong_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log, or find it on. While somebody else is switching, SQLite gives up at once, whatever
    time it was given to wait for locks: so the waiting is done here."""
    ends_at = time.monotonic() + LOCK_WAIT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as refused:
            if refused.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > ends_at:
                raise
        time.sleep(0.005)


def _make_private(file: Path) -> None:
    """Make the file, if missing, with mode 0600; SQLite gives its -wal and -shm files the same mode."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as refused:
        raise Unavailable(
            f"The database file {file} cannot be opened ({refused.strerror}).", "Check the folder and its owner."
        ) from refused
    try:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _open_postgres(url: URL) -> Engine:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise BadInput("The PostgreSQL driver is not installed.", "Run: pip install 'bettong[postgres]'") from None
    return create_engine(
        url,
        hide_parameters=True,
        json_serializer=_to_json,
        pool_size=5,
        max_overflow=15,
        pool_timeout=LOCK_WAIT_MS / 1000,
        pool_pre_ping=True,
    )


def _to_json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        raise BadInput("A document has a number that is NaN or infinite.", "JSON has finite numbers only.") from None


@contextmanager
def _in_our_words(taken: BettongError | None, unknown: BettongError | None) -> Iterator[None]:
    """Translate what the database raises. The driver's text goes no further: it may quote a value or a password."""
    try:
        yield
    except IntegrityError as refused:
        reason = _reason(refused)
        if taken is not None and reason in _UNIQUE:
            raise taken from None
        if unknown is not None and reason in _FOREIGN_KEY:
            raise unknown from None
        raise
    except (OverflowError, UnicodeEncodeError):
        raise _unstorable() from None
    except DBAPIError as failed:
        reason = _reason(failed)
        if reason in _NO_SPACE:
            raise StorageFull(
                "The database's disk is full.", "Free some space; nothing of this call was kept."
            ) from None
        if reason in _UNSTORABLE or "NUL (0x00)" in str(failed.orig):
            raise _unstorable() from None
        if reason in _DAMAGED:
            raise Unavailable(
                f"The database file is damaged or is none ({reason}).",
                "Stop the platform and restore it from a backup.",
            ) from None
        unreached = not reason and isinstance(failed, (OperationalError, InterfaceError))
        if unreached or failed.connection_invalidated or reason.startswith(_TRANSIENT):
            raise Unavailable(
                f"The database does not answer ({reason or type(failed.orig).__name__}).",
                "Check that it runs, that its URL and password are right and that it may be written; then try again.",
            ) from None
        raise
    except TimeoutError:
        raise Unavailable("All database connections are in use.", "Try again in a moment.") from None
    except StatementError as failed:
        if isinstance(failed.orig, BettongError):  # ours, from _to_json
            raise failed.orig from None
        raise


def _reason(failed: DBAPIError) -> str:
    """SQLite's error name or PostgreSQL's SQLSTATE, "" when the connection was not even made."""
    reason = getattr(failed.orig, "sqlite_errorname", None) or getattr(failed.orig, "sqlstate", None)
    return str(reason or "")


def _unstorable() -> BadInput:
    return BadInput(
        "A text or a number of this request cannot be stored.",
        "Use texts without NUL or unpaired surrogate characters, and integers of at most 64 bits.",
    )
