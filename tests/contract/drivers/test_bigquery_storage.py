"""BIGQUERY's Storage API where the emulator is too kind: TLS, refusals, and streams that break."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import pyarrow as pa
import pytest
from certificates import NAME, Authority
from contract.drivers.cases import Case, new_calls, trusting
from contract.drivers.http_server import serving_files

from bettong.domain.drivers import Egress, Stage
from bettong.drivers import web
from bettong.drivers.bigquery_api import Api, Reference
from bettong.drivers.bigquery_source import STAGED_FOR_S
from bettong.errors import DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from contract.drivers.http_server import Files

ROWS = pa.record_batch({"n": [1, 2, 3, 4, 5, 6]})
TABLE = "/bigquery/v2/projects/p/datasets/d/tables/t"
_METHODS = "google.cloud.bigquery.storage.v1.BigQueryRead"


@dataclass
class Storage:
    """A Storage API of a single table. `refusal` is the code with which it refuses to begin; `breaks` how many rows
    each stream gives before it breaks; `offsets` where streams began."""

    refusal: grpc.StatusCode | None = None
    breaks: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    asked: list[dict[str, str]] = field(default_factory=list)

    def create(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        from google.cloud.bigquery_storage_v1 import types

        self.asked.append({str(name): str(value) for name, value in context.invocation_metadata()})
        if self.refusal is not None:
            context.abort(self.refusal, "whatever it says, such as a password")
        schema = types.ArrowSchema(serialized_schema=ROWS.schema.serialize().to_pybytes())
        session = types.ReadSession(arrow_schema=schema, streams=[types.ReadStream(name="the stream")])
        return bytes(types.ReadSession.serialize(session))

    def read(self, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        from google.cloud.bigquery_storage_v1 import types

        offset = types.ReadRowsRequest.deserialize(request).offset
        self.offsets.append(offset)
        give = self.breaks.pop(0) if self.breaks else ROWS.num_rows
        for n in range(offset, min(ROWS.num_rows, offset + give)):
            data = ROWS.slice(n, 1).serialize().to_pybytes()
            batch = types.ArrowRecordBatch(serialized_record_batch=data)
            yield bytes(types.ReadRowsResponse.serialize(types.ReadRowsResponse(arrow_record_batch=batch)))
        if offset + give < ROWS.num_rows:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the stream was reset")


@contextmanager
def serving(storage: Storage, credentials: Any = None) -> Iterator[int]:
    """The port on which it listens."""
    handlers = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(storage.create),
        "ReadRows": grpc.unary_stream_rpc_method_handler(storage.read),
    }
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_METHODS, handlers),))
        address = "127.0.0.1:0"
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        server.start()
        try:
            yield port
        finally:
            server.stop(None).wait()


def answer(files: Files) -> None:
    """What the REST API says of the one table, and of a test."""
    schema = {"fields": [{"name": "n", "type": "INTEGER"}]}
    rows = [{"f": [{"v": str(n)}]} for n in ROWS["n"].to_pylist()]
    files.bodies |= {
        "/bigquery/v2/projects/p/datasets": b"{}",
        "/bigquery/v2/projects/p/jobs": b'{"statistics": {"query": {"statementType": "SELECT"}}}',
        TABLE: json.dumps({"type": "TABLE", "schema": schema}).encode(),
        f"{TABLE}/data": json.dumps({"rows": rows}).encode(),
    }


@pytest.fixture
def made(files: Files) -> Iterator[Callable[[Storage], Case]]:
    """A connection to the table at a Storage API of the test's."""
    answer(files)
    with ExitStack() as stack:

        def make(storage: Storage) -> Case:
            port = stack.enter_context(serving(storage))
            places = {"api_endpoint": files.url, "grpc_endpoint": f"127.0.0.1:{port}"}
            return Case("BIGQUERY", {"project_id": "p", "dataset": "d", "table": "t", **places}, new_calls())

        yield make


@pytest.mark.parametrize("refusal", [grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED])
def test_a_login_that_may_not_read_that_way_reads_by_rest_and_is_told_so(
    made: Callable[[Storage], Case], refusal: grpc.StatusCode
) -> None:
    case = made(Storage(refusal))

    report = case.test()

    assert report.ok, report
    permission = next(result.said for result in report.stages if result.stage is Stage.PERMISSION)
    assert "by REST" in permission
    assert "bigquery.readsessions.create" in permission
    assert case.read("t")["n"].to_pylist() == ROWS["n"].to_pylist()


def test_a_refusal_of_another_kind_is_told_in_words_of_ours(made: Callable[[Storage], Case]) -> None:
    with pytest.raises(Unavailable) as refused:
        made(Storage(grpc.StatusCode.RESOURCE_EXHAUSTED)).read("t")

    assert "is busy" in str(refused.value)
    assert "password" not in str(refused.value)


def test_a_stream_that_breaks_goes_on_where_it_broke_and_no_row_is_lost_or_doubled(
    made: Callable[[Storage], Case],
) -> None:
    storage = Storage(breaks=[2, 0, 3])

    rows = made(storage).read("t")

    assert rows["n"].to_pylist() == ROWS["n"].to_pylist()
    assert storage.offsets == [0, 2, 2, 5]


def test_a_stream_that_gets_no_further_ends_in_an_error_and_not_in_fewer_rows(
    made: Callable[[Storage], Case],
) -> None:
    with pytest.raises(Unavailable, match="broke"):
        made(Storage(breaks=[2, *[0] * 20])).read("t")


JOBS = "/bigquery/v2/projects/p/jobs"
SELECT = {"statistics": {"query": {"statementType": "SELECT"}}}


def test_the_rows_of_a_query_come_from_the_table_where_they_lie(made: Callable[[Storage], Case], files: Files) -> None:
    """The emulator keeps no such table; BigQuery itself always does."""
    storage, fields = Storage(), [{"name": "n", "type": "INTEGER"}]
    lies = {"projectId": "p", "datasetId": "_hidden", "tableId": "anon1"}
    case = made(storage)
    files.bodies |= {
        JOBS: json.dumps({**SELECT, "jobReference": {"jobId": "job-1", "location": "EU"}}).encode(),
        f"{JOBS}/job-1": json.dumps({"configuration": {"query": {"destinationTable": lies}}}).encode(),
        "/bigquery/v2/projects/p/queries/job-1": json.dumps(
            {"jobComplete": True, "schema": {"fields": fields}}
        ).encode(),
    }

    rows = case.read("SELECT n FROM t")

    assert rows["n"].to_pylist() == ROWS["n"].to_pylist()
    assert "datasets%2F_hidden%2Ftables%2Fanon1" in storage.asked[0]["x-goog-request-params"]
    assert all("location=EU" in path for path, _ in files.seen if "job-1" in path)
    asked = json.loads(files.posted[JOBS])["configuration"]
    assert int(asked["jobTimeoutMs"]) == 30_000  # it does not run on when nobody waits for it any more
    assert asked["query"]["useLegacySql"] is False


def test_a_query_that_does_not_end_is_cancelled_there(files: Files) -> None:
    cancel = f"{JOBS}/job-1/cancel?location=EU"
    files.bodies |= {
        JOBS: json.dumps({**SELECT, "jobReference": {"jobId": "job-1", "location": "EU"}}).encode(),
        "/bigquery/v2/projects/p/queries/job-1": b'{"jobComplete": false}',
        cancel: b"{}",
    }

    with web.Client(Egress(), 10) as client, pytest.raises(DeadlineExceeded, match="in time"):
        Api(client, files.url, "p", None, 0.2).run("SELECT n FROM t")

    assert cancel in files.posted


def test_a_table_of_rows_on_their_way_is_made_to_expire(files: Files) -> None:
    """The emulator keeps no such time, so what was asked for is looked at."""
    files.bodies[TABLE.rpartition("/")[0]] = b"{}"
    now = time.time()

    with web.Client(Egress(), 10) as client:
        api = Api(client, files.url, "p", None, 10)
        api.create(Reference("p", "d", "rows"), [{"name": "n", "type": "INTEGER"}], STAGED_FOR_S)

    asked = json.loads(files.posted[TABLE.rpartition("/")[0]])
    assert asked["tableReference"] == {"projectId": "p", "datasetId": "d", "tableId": "rows"}
    assert now < int(asked["expirationTime"]) / 1000 <= time.time() + 24 * 3600


def test_both_apis_are_trusted_by_name_and_the_route_is_said(tmp_path: Path) -> None:
    authority, storage = Authority(), Storage()
    certificate = authority.sign(NAME)
    credentials = grpc.ssl_server_credentials([(certificate.key, certificate.certificate)])
    with serving_files(context=certificate.context(tmp_path)) as files, serving(storage, credentials) as port:
        answer(files)
        details = {"project_id": "p", "dataset": "d", "table": "t", "api_endpoint": files.url}
        trusted = Case("BIGQUERY", {**details, "grpc_endpoint": f"{NAME}:{port}"}, trusting(authority, tmp_path))
        stranger = Case("BIGQUERY", trusted.details, new_calls())
        elsewhere = Case("BIGQUERY", {**details, "grpc_endpoint": f"127.0.0.1:{port}"}, trusted.calls)

        assert trusted.test().ok
        assert trusted.read("t")["n"].to_pylist() == ROWS["n"].to_pylist()
        for case, why in ((stranger, "nobody here knows"), (elsewhere, "another name")):
            report = case.test()
            assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.TLS, False)
            assert why in report.stages[-1].said
            with pytest.raises(Unavailable):
                case.read("t")

    assert storage.asked[0]["x-goog-request-params"] == "read_session.table=projects%2Fp%2Fdatasets%2Fd%2Ftables%2Ft"
