"""Each kind of source that the suite runs on: files and a server of our own at once, real services where marked."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from contract.drivers.cases import SECRET, SERVICES, Case, new_calls
from contract.drivers.http_server import Files, serving_files
from services.azurite import ACCOUNT, KEY, running_azurite
from services.azurite import CONTAINER as AZURE_CONTAINER
from services.bigquery import BigQuery, new_key, running_bigquery
from services.gcs import BUCKET as GCS_BUCKET
from services.gcs import running_gcs
from services.mariadb import MariaDb, running_mariadb
from services.moto import BUCKET as S3_BUCKET
from services.moto import running_moto
from services.snowflake import Snowflake, new_pair, running_snowflake

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from postgres import Postgres


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A case of a real service makes its test a service test, whichever way the case was named."""
    for item in items:
        kinds = getattr(getattr(item, "callspec", None), "params", {})
        if kinds.get("case") in SERVICES:
            item.add_marker(pytest.mark.service)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case:
    return cast("Case", request.getfixturevalue(f"{request.param.lower()}_case"))


@pytest.fixture
def sqlite_case(tmp_path: Path) -> Case:
    def kept_as(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_nested(kind):
            return pa.string()
        return pa.float64() if pa.types.is_decimal(kind) or pa.types.is_floating(kind) else kind

    case = Case("SQLITE", {"path": str(tmp_path / "data.db")}, new_calls(tmp_path), kept_as=kept_as)
    case.write("first", pa.table({"a": [1]}))
    return case


@pytest.fixture
def duckdb_case(tmp_path: Path) -> Case:
    case = Case("DUCKDB", {"path": str(tmp_path / "data.duckdb")}, new_calls(tmp_path))
    case.write("first", pa.table({"a": [1]}))
    return case


@pytest.fixture
def file_case(tmp_path: Path) -> Case:
    case = Case("FILE", {"path": str(tmp_path / "data")}, new_calls(tmp_path))
    case.write("first", pa.table({"a": [1]}))
    return case


@pytest.fixture
def files() -> Iterator[Files]:
    with serving_files() as files:
        yield files


@pytest.fixture
def http_case(files: Files) -> Case:
    files.login = f"Bearer {SECRET.encode('ascii', 'ignore').decode()}"
    token = files.login.removeprefix("Bearer ")

    def put(name: str, rows: pa.Table) -> None:
        sink = io.BytesIO()
        pq.write_table(rows, sink)
        files.bodies[f"/data/{name}.parquet"] = sink.getvalue()

    put("first", pa.table({"a": [1]}))
    return Case(
        "HTTP",
        {"url": f"{files.url}/data/first.parquet", "token": token},
        new_calls(),
        at=lambda name: f"/data/{name}.parquet",
        put=put,
        wrong_login={"token": "wrong but secret"},
        nowhere={"url": "http://nowhere.invalid/data"},
    )


@pytest.fixture
def postgres_case(postgres: Postgres, empty_postgres_url: str) -> Case:
    database = empty_postgres_url.rpartition("/")[2]
    details = {"host": "127.0.0.1", "port": postgres.port, "user": "bettong", "password": SECRET, "database": database}

    def kept_as(kind: pa.DataType) -> pa.DataType:
        return pa.string() if pa.types.is_struct(kind) else kind

    return Case(
        "POSTGRES",
        details,
        new_calls(),
        kept_as=kept_as,
        mark="$1",
        wrong_login={"user": "somebody_else"},
        nowhere={"host": "nowhere.invalid"},
    )


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDb]:
    with running_mariadb() as server:
        yield server


@pytest.fixture
def mariadb_case(mariadb: MariaDb) -> Case:
    def kept_as(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_nested(kind):
            return pa.string()
        if pa.types.is_boolean(kind):
            return pa.int8()
        return pa.timestamp("us") if pa.types.is_timestamp(kind) else kind

    return Case(
        "MARIADB",
        mariadb.details,
        new_calls(),
        kept_as=kept_as,
        mark="%s",
        wrong_login={"password": "wrong but secret"},
        nowhere={"host": "nowhere.invalid"},
    )


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    with running_moto() as endpoint:
        yield endpoint


@pytest.fixture
def s3_case(moto: str) -> Case:
    details = {"bucket": S3_BUCKET, "endpoint": moto, "access_key_id": "AKIATEST", "secret_access_key": SECRET}
    return Case("S3", details, new_calls(), nowhere={"endpoint": "http://nowhere.invalid"})


@pytest.fixture(scope="session")
def fake_gcs() -> Iterator[str]:
    with running_gcs() as endpoint:
        yield endpoint


@pytest.fixture
def gcs_case(fake_gcs: str) -> Case:
    details = {"bucket": GCS_BUCKET, "endpoint": fake_gcs, "anonymous": True}
    return Case("GCS", details, new_calls(), nowhere={"endpoint": "http://nowhere.invalid"})


@pytest.fixture(scope="session")
def azurite() -> Iterator[str]:
    with running_azurite() as endpoint:
        yield endpoint


@pytest.fixture
def azure_case(azurite: str) -> Case:
    details = {"container": AZURE_CONTAINER, "account_name": ACCOUNT, "account_key": KEY, "endpoint": azurite}
    return Case(
        "AZURE",
        details,
        new_calls(),
        wrong_login={"account_key": "d3Jvbmcga2V5IHRoYXQgaXMgYmFzZTY0"},
        nowhere={"endpoint": "http://nowhere.invalid/x"},
    )


@pytest.fixture(scope="session")
def bigquery() -> Iterator[BigQuery]:
    with running_bigquery() as server:
        yield server


@pytest.fixture
def bigquery_case(bigquery: BigQuery) -> Case:
    def kept_as(kind: pa.DataType) -> pa.DataType:
        return pa.decimal128(38, 9) if pa.types.is_decimal(kind) else kind

    return Case(
        "BIGQUERY",
        bigquery.details,
        new_calls(),
        kept_as=kept_as,
        null_list=[],
        without=("named",),  # the emulator takes no structs that are loaded as Arrow
        odd_names=("`odd-name`", "select", "a b", "ümlaut"),
        unique_keys=False,
        wrong_login={"private_key": new_key()},
        nowhere={"api_endpoint": "http://nowhere.invalid"},
    )


@pytest.fixture(scope="session")
def snowflake() -> Iterator[Snowflake]:
    with running_snowflake(SECRET) as server:
        yield server


@pytest.fixture
def snowflake_case(snowflake: Snowflake) -> Case:
    def kept_as(kind: pa.DataType) -> pa.DataType:
        return pa.string() if pa.types.is_nested(kind) else kind

    return Case(
        "SNOWFLAKE",
        snowflake.details,
        new_calls(),
        kept_as=kept_as,
        unique_keys=False,
        wrong_login={"private_key": new_pair()[0]},
        nowhere={"endpoint": "http://nowhere.invalid"},
    )
