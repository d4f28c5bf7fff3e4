"""Snowflake's own client, kept on a short lead: it connects only to addresses that were checked, reads no configuration
of the machine, writes nothing on its disk, reports to nobody, and none of its texts gets out."""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.drivers import egress as reach
from bettong.drivers import snowflake_types as forms
from bettong.drivers.hygiene import without
from bettong.drivers.snowflake_errors import no_connection, translated
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from io import BytesIO

    from bettong.domain.drivers import Egress
    from bettong.drivers.snowflake_types import Column


@dataclass(frozen=True, slots=True)
class Done:
    """What a statement gave: its rows as tuples, and how many rows it changed."""

    rows: list[tuple[Any, ...]]
    changed: int


class Client:
    """One session. Every call raises BadInput, NotFound or Unavailable in our words."""

    def __init__(self, connection: Any, door: _Door) -> None:
        self._connection, self._door = connection, door

    @property
    def place(self) -> tuple[str, str]:
        """The database and the schema in which names without them are looked for; "" for none."""
        return _bare(self._connection.database), _bare(self._connection.schema)

    @property
    def warehouse(self) -> str:
        return str(self._connection.warehouse or "")

    def run(self, statement: str, parameters: Sequence[object] = ()) -> Done:
        with self._cursor(statement) as cursor:
            cursor.execute(statement, forms.bound(parameters))
            rows = cursor.fetchall()
            return Done([tuple(row) for row in rows], int(cursor.rowcount or 0))

    def describe(self, query: str, parameters: Sequence[object] = ()) -> list[Column]:
        """The columns that a query would give. It is not run."""
        with self._cursor(query) as cursor:
            return forms.columns(cursor.describe(query, forms.bound(parameters)))

    def stream(self, query: str, parameters: Sequence[object] = ()) -> pa.RecordBatchReader:
        """The rows of a query. They are fetched in parts of the server's making, a few ahead."""
        with self._failed(query):
            cursor = self._connection.cursor()
            cursor.execute(query, forms.bound(parameters))
            there = forms.columns(cursor.description)
        schema = forms.schema(there)

        def batches() -> Iterator[pa.RecordBatch]:
            with self._failed(query), cursor:
                for part in cursor.fetch_arrow_batches(force_microsecond_precision=True):
                    for batch in part.to_batches():
                        yield forms.read(batch, schema)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def put(self, data: BytesIO, name: str, stage: str) -> None:
        """A file from memory into a stage, whose name is quoted already."""
        statement = f"PUT file://{name} @{stage} AUTO_COMPRESS=FALSE SOURCE_COMPRESSION=NONE"
        with self._cursor("") as cursor:
            cursor.execute(statement, file_stream=data)

    @contextmanager
    def _cursor(self, query: str) -> Iterator[Any]:
        with self._failed(query), self._connection.cursor() as cursor:
            yield cursor

    @contextmanager
    def _failed(self, query: str) -> Iterator[None]:
        import snowflake.connector.errors as theirs

        self._door.refused = None
        try:
            yield
            return
        except (theirs.Error, OSError) as failed:
            ours = self._door.refused or translated(failed, query)
        raise ours


@contextmanager
def opened(arguments: Mapping[str, Any], egress: Egress, timeout_s: float) -> Iterator[Client]:
    """A session by these arguments of `snowflake.connector.connect`. Each wait is bounded, and so is a statement."""
    whole_s = max(1, math.ceil(timeout_s))
    checked = _checked_connection()
    door = _Door(egress, timeout_s)
    ours: BettongError | None = None
    try:
        connection = checked(
            door,
            **arguments,
            paramstyle="qmark",
            arrow_number_to_decimal=True,
            timezone="UTC",
            validate_default_parameters=True,
            session_parameters={
                "CLIENT_TELEMETRY_ENABLED": False,
                "MULTI_STATEMENT_COUNT": 1,
                "STATEMENT_TIMEOUT_IN_SECONDS": whole_s,
                "QUERY_TAG": "bettong",
            },
            application="bettong",
            log_imported_packages_in_telemetry=False,
            login_timeout=whole_s,
            network_timeout=whole_s,
            socket_timeout=whole_s,
            disable_ocsp_checks=True,  # certificates are checked; who revoked one is asked over other addresses
            client_store_temporary_credential=False,
            client_request_mfa_token=False,
            enable_crl_file_cache=False,
        )
    except Exception as failed:  # its errors, and those of the libraries below
        ours = door.refused or no_connection(failed)
    if ours is not None:
        raise ours
    try:
        connection.telemetry_enabled = False
        yield Client(connection, door)
    finally:
        with suppress(Exception):
            connection.close(retry=False)


class _Door:
    """The way out for one session: who resolves and connects. What it refused is kept, for the client says something
    else."""

    def __init__(self, egress: Egress, timeout_s: float) -> None:
        self._egress, self._timeout_s = egress, timeout_s
        self.refused: BettongError | None = None

    def connect(self, host: str, port: int, timeout: object) -> Any:
        wait = float(timeout) if isinstance(timeout, (int, float)) else self._timeout_s
        try:
            connected = reach.connect(reach.resolve(host, port, self._egress), wait)
        except BadInput as refused:
            self.refused = refused
            raise
        except BettongError as refused:
            self.refused = refused
            raise OSError(f"no way to {host}") from None  # the client tries such again
        self.refused = None
        connected.settimeout(wait)
        return connected


class _NoLogs:
    """In place of what reads the client's files of configuration."""

    def __init__(self, **_: object) -> None:
        pass

    def create_log(self) -> None:
        pass


def _bare(name: str | None) -> str:
    """A name that the service tells, between quotes where it needs them."""
    return name[1:-1].replace('""', '"') if name and name[0] == '"' else name or ""


def _checked_connection() -> Any:
    """The client's connection, for which nobody but a door opens a socket: to its service, and to the stores in which
    that keeps results and takes files."""
    logging.getLogger("snowflake").setLevel(logging.CRITICAL + 1)  # it logs queries
    with without("pandas", "boto3", "botocore"):
        from snowflake.connector import connection
        from snowflake.connector.auth import _auth
        from snowflake.connector.session_manager import ProxySupportAdapter
        from snowflake.connector.vendored.urllib3.connection import HTTPConnection, HTTPSConnection
        from snowflake.connector.vendored.urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    # Settings that it takes from the machine alone: files that ask for logs, and which cloud this is.
    connection.EasyLoggingConfigPython = _NoLogs
    _auth.detect_platforms = lambda **_: []

    def pools(door: _Door) -> dict[str, Any]:
        class Plain(HTTPConnection):  # type: ignore[misc]
            def _new_conn(self) -> Any:
                return door.connect(self._dns_host, self.port, self.timeout)

        class Secure(HTTPSConnection):  # type: ignore[misc]
            def _new_conn(self) -> Any:
                return door.connect(self._dns_host, self.port, self.timeout)

        class PlainPool(HTTPConnectionPool):  # type: ignore[misc]
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):  # type: ignore[misc]
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}

    class Adapter(ProxySupportAdapter):  # type: ignore[misc]
        def __init__(self, door: _Door, **more: Any) -> None:
            self._pools = pools(door)
            super().__init__(**more)

        def init_poolmanager(self, *sizes: Any, **more: Any) -> None:
            super().init_poolmanager(*sizes, **more)
            self.poolmanager.pool_classes_by_scheme = self._pools

        def send(self, request: Any, **more: Any) -> Any:
            return super().send(request, **{**more, "proxies": {}})  # one would resolve names by itself

    class Checked(connection.SnowflakeConnection):  # type: ignore[misc]
        def __init__(self, door: _Door, **arguments: Any) -> None:
            self._door = door
            super().__init__(**arguments)

        @property
        def _http_config(self) -> Any:
            return self.__dict__["_checked"]

        @_http_config.setter
        def _http_config(self, config: Any) -> None:
            adapters = (lambda **more: Adapter(self._door, **more)) if config is not None else None
            self.__dict__["_checked"] = config.copy_with(adapter_factory=adapters) if config is not None else None

    return Checked
