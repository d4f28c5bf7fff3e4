"""BigQuery's Storage API: tables read and written as Arrow over gRPC, at an address that was checked."""

from __future__ import annotations

import queue
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from bettong.drivers import egress as reach
from bettong.drivers import web
from bettong.drivers.bigquery_errors import KIND, broken_off
from bettong.drivers.hygiene import without
from bettong.drivers.sql_errors import bad_values, broken

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from bettong.domain.drivers import Egress

MAX_ANSWER_BYTES = 128 * 2**20  # of one message; the service's own have about 10 MB
APPEND_BYTES = 4 * 2**20  # of one request; the service takes 10 MB
IN_FLIGHT = 4
RESUMED_AT_MOST = 5
NEW_TABLE_PAUSE_S = 0.5
_READ = "/google.cloud.bigquery.storage.v1.BigQueryRead"
_WRITE = "/google.cloud.bigquery.storage.v1.BigQueryWrite"
_BROKEN = ("UNAVAILABLE", "INTERNAL", "ABORTED")


@dataclass(frozen=True, slots=True)
class Session:
    """A table as it is now, ready to be read in the order of its rows. No stream: it has none."""

    schema: pa.Schema
    stream: str | None


@contextmanager
def opened(
    place: tuple[str, int, bool], bearer: Callable[[], str] | None, egress: Egress, timeout_s: float
) -> Iterator[Storage]:
    """A channel to `place` (host, port, whether TLS is spoken), to the first checked address that takes a
    connection; closed at the end.

    Raises:
        BadInput: egress forbids it.
        Unavailable: nobody is there.
    """
    import grpc

    host, port, secure = place
    target = reach.resolve(host, port, egress)
    with reach.connect(target, timeout_s) as socket:
        address = socket.getpeername()[0]
    where = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
    options = [
        ("grpc.default_authority", host),
        ("grpc.enable_http_proxy", 0),  # a proxy would look the name up again
        ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
        ("grpc.max_send_message_length", -1),
    ]
    if secure:
        options.append(("grpc.ssl_target_name_override", host))
        channel = grpc.secure_channel(where, grpc.ssl_channel_credentials(_authorities()), options)
    else:
        channel = grpc.insecure_channel(where, options)
    with channel:
        yield Storage(channel, bearer, timeout_s)


class Storage:
    """One channel. Each answer may take `timeout_s`; a stream lasts as long as it is read."""

    def __init__(self, channel: Any, bearer: Callable[[], str] | None, timeout_s: float) -> None:
        self._channel, self._bearer, self._timeout_s = channel, bearer, timeout_s

    def session(self, project: str, table: str) -> Session | None:
        """Begin to read a table, by its path, on behalf of a project. None when this login may not read this way, or
        this service does not know how."""
        import grpc

        types = _types()
        request = types.CreateReadSessionRequest(
            parent=f"projects/{project}",
            read_session=types.ReadSession(table=table, data_format=types.DataFormat.ARROW),
            max_stream_count=1,  # several would not keep the order of the rows
        )
        call = self._channel.unary_unary(
            f"{_READ}/CreateReadSession", types.CreateReadSessionRequest.serialize, types.ReadSession.deserialize
        )
        metadata = self._metadata(**{"read_session.table": table})
        with _translated(table):
            try:
                found = call(request, timeout=self._timeout_s, metadata=metadata)
            except grpc.RpcError as failed:
                if failed.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED):
                    return None
                raise
        schema = pa.ipc.read_schema(pa.py_buffer(found.arrow_schema.serialized_schema))
        return Session(schema, found.streams[0].name if found.streams else None)

    def batches(self, session: Session, table: str) -> Iterator[pa.RecordBatch]:
        """The rows. A stream that breaks is taken up again where it broke, as long as that gets further."""
        if session.stream is None:
            return
        read, failures = 0, 0
        while True:
            try:
                for batch in self._from(session.stream, session.schema, read, table):
                    yield batch
                    read, failures = read + batch.num_rows, 0
                return
            except _Broken:
                failures += 1
                if failures > RESUMED_AT_MOST:
                    raise broken(KIND) from None

    def append(self, table: str, schema: pa.Schema, rows: Iterable[pa.RecordBatch]) -> None:
        """Add rows to a table, by its path. When this returns all of them are there; after an error some may be."""
        types = _types()
        stream = self._write_stream(table)
        outgoing: queue.SimpleQueue[Any] = queue.SimpleQueue()
        call = self._channel.stream_stream(
            f"{_WRITE}/AppendRows", types.AppendRowsRequest.serialize, types.AppendRowsResponse.deserialize
        )
        # The library takes requests from a thread of its own. Rows are made in this one: their errors belong to it.
        answers = call(iter(outgoing.get, None), metadata=self._metadata(write_stream=stream))
        unanswered, offset = 0, 0
        try:
            for batch in _slices(rows):
                data = types.AppendRowsRequest.ArrowData(
                    rows=types.ArrowRecordBatch(serialized_record_batch=batch.serialize().to_pybytes())
                )
                if not offset:
                    data.writer_schema = types.ArrowSchema(serialized_schema=schema.serialize().to_pybytes())
                outgoing.put(types.AppendRowsRequest(write_stream=stream, offset=offset, arrow_rows=data))
                offset += batch.num_rows
                unanswered += 1
                if unanswered == IN_FLIGHT:
                    self._taken(answers, table)
                    unanswered -= 1
            outgoing.put(None)
            for _ in range(unanswered):
                self._taken(answers, table)
        except BaseException:
            answers.cancel()
            outgoing.put(None)
            raise

    def _from(self, stream: str, schema: pa.Schema, offset: int, table: str) -> Iterator[pa.RecordBatch]:
        types = _types()
        call = self._channel.unary_stream(
            f"{_READ}/ReadRows", types.ReadRowsRequest.serialize, types.ReadRowsResponse.deserialize
        )
        request = types.ReadRowsRequest(read_stream=stream, offset=offset)
        with _translated(table, may_resume=True):
            answers = call(request, metadata=self._metadata(read_stream=stream))
            try:
                for answer in answers:
                    data = answer.arrow_record_batch.serialized_record_batch
                    if data:
                        batch = pa.ipc.read_record_batch(pa.py_buffer(data), schema)
                        batch.validate(full=True)  # whoever answers here may be named by the details
                        yield batch
            finally:
                answers.cancel()

    def _write_stream(self, table: str) -> str:
        """A stream whose rows are there at once, each just once. A table that was made a moment ago may not be known
        to this part of the service yet: it is asked for until there is no more time."""
        import grpc

        types = _types()
        call = self._channel.unary_unary(
            f"{_WRITE}/CreateWriteStream", types.CreateWriteStreamRequest.serialize, types.WriteStream.deserialize
        )
        kind = types.WriteStream(type_=types.WriteStream.Type.COMMITTED)
        request = types.CreateWriteStreamRequest(parent=table, write_stream=kind)
        until = time.monotonic() + self._timeout_s
        while True:
            with _translated(table):
                try:
                    found = call(request, timeout=self._timeout_s, metadata=self._metadata(parent=table))
                    return str(found.name)
                except grpc.RpcError as failed:
                    if failed.code() is not grpc.StatusCode.NOT_FOUND or time.monotonic() > until:
                        raise
            time.sleep(NEW_TABLE_PAUSE_S)

    def _taken(self, answers: Any, table: str) -> None:
        with _translated(table):
            answer = next(answers, None)
        if answer is None:
            raise broken(KIND)
        if answer.row_errors or answer.error.code == 3:
            raise bad_values(KIND)
        if answer.error.code:
            raise broken_off(_name(answer.error.code), table)

    def _metadata(self, **routing: str) -> list[tuple[str, str]]:
        words = "&".join(f"{name}={quote(value, safe='')}" for name, value in routing.items())
        login = [("authorization", f"Bearer {self._bearer()}")] if self._bearer else []
        return [("x-goog-request-params", words), *login]


def _types() -> Any:
    """The messages of the service."""
    with without("pandas"):
        from google.cloud.bigquery_storage_v1 import types
    return types


class _Broken(Exception):
    """A stream ended before its end."""


@contextmanager
def _translated(table: str, *, may_resume: bool = False) -> Iterator[None]:
    import grpc

    try:
        yield
        return
    except grpc.RpcError as failed:
        code = failed.code().name
    if may_resume and code in _BROKEN:
        raise _Broken
    raise broken_off(code, table.rpartition("/")[2])


def _name(code: int) -> str:
    import grpc

    return next((status.name for status in grpc.StatusCode if status.value[0] == code), "UNKNOWN")


def _slices(rows: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in rows:
        if not batch.num_rows:
            continue
        step = max(1, int(APPEND_BYTES / max(1.0, batch.nbytes / batch.num_rows)))
        for start in range(0, batch.num_rows, step):
            yield batch.slice(start, step)


def _authorities() -> bytes:
    """Who is trusted here, as our own HTTP trusts them."""
    trusted = web.tls_context().get_ca_certs(binary_form=True)
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in trusted).encode()
