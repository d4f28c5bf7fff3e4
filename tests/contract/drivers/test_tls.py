"""TLS where it is asked for: who is trusted, for which name, and that nobody talks a connection out of it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from certificates import NAME, Authority, Certificate
from contract.drivers.cases import SECRET, Case, new_calls, trusting
from contract.drivers.http_server import serving_files
from postgres import running_postgres
from services.mariadb import running_mariadb
from services.moto import BUCKET, running_moto

from bettong.domain.drivers import Stage
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.mariadb import MariaDb

    from bettong.domain.drivers import TestReport

ADDRESS = "127.0.0.1"
KINDS = [
    "http",
    pytest.param("postgres", marks=pytest.mark.service),
    pytest.param("mariadb", marks=pytest.mark.service),
]
DATABASES = [pytest.param(kind, marks=pytest.mark.service) for kind in ("postgres", "mariadb")]


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.sign(NAME)


@pytest.fixture(scope="module")
def http_details(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with serving_files(context=certificate.context(tmp_path_factory.mktemp("certificate"))) as files:
        files.bodies["/rows.json"] = b'[{"n": 1}]'
        yield {"url": f"{files.url}/rows.json"}


@pytest.fixture(scope="module")
def postgres_details(certificate: Certificate) -> Iterator[dict[str, Any]]:
    with running_postgres(certificate) as server:
        login = {"user": "bettong", "password": SECRET, "database": "postgres", "sslmode": "verify-full"}
        yield {"host": NAME, "port": server.port, **login}


@pytest.fixture(scope="module")
def mariadb_details(certificate: Certificate) -> Iterator[dict[str, Any]]:
    with running_mariadb(certificate) as server:
        yield {**server.details, "host": NAME, "ssl": "verify"}


@pytest.fixture
def details(request: pytest.FixtureRequest) -> dict[str, Any]:
    return cast("dict[str, Any]", request.getfixturevalue(f"{request.param}_details"))


EVERY = pytest.mark.parametrize("details", KINDS, indirect=True)


def kind_of(details: dict[str, Any]) -> str:
    if "url" in details:
        return "HTTP"
    return "POSTGRES" if "sslmode" in details else "MARIADB"


def case_of(details: dict[str, Any], **changes: Any) -> Case:
    return Case(kind_of(details), {**details, **changes}, new_calls())


def at_address(details: dict[str, Any]) -> dict[str, Any]:
    """The same server under a name that its certificate does not hold."""
    return {"url": details["url"].replace(NAME, ADDRESS)} if "url" in details else {"host": ADDRESS}


def fails_at_tls(case: Case) -> str:
    """What the test says, having ended at TLS; and whoever does not test first gets no further."""
    report = case.test()
    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.TLS, False), report
    with pytest.raises(BettongError):
        case.read(query_of(case))
    return report.stages[-1].said


def query_of(case: Case) -> str:
    return "" if case.kind in ("HTTP", "S3") else "SELECT 1 AS n"


def tls_of(report: TestReport) -> str:
    assert report.ok, report
    return next(result.said for result in report.stages if result.stage is Stage.TLS)


@pytest.mark.parametrize(
    ("kind", "more", "words", "next_step"),
    [
        ("REDIS", {"ssl": "require"}, "did not answer the TLS handshake", "Perhaps it speaks no TLS there"),
        ("POSTGRES", {}, "does not look like PostgreSQL", "Check host and port"),
        ("MYSQL", {}, "does not look like MySQL", "Check host and port"),
    ],
)
def test_a_server_that_is_silent_about_tls_is_told_in_time_and_with_what_it_may_be(
    kind: str, more: dict[str, Any], words: str, next_step: str
) -> None:
    with socket.create_server((ADDRESS, 0)) as silent:
        details = {"host": ADDRESS, "port": silent.getsockname()[1], "user": "somebody", **more}

        report = new_calls().test(kind, details, 20.0)

    last = report.stages[-1]
    assert (last.stage, last.ok) == (Stage.TLS, False), report
    assert words in last.said
    assert next_step in last.next_step
    assert (last.took_ms or 99_999) < 7_000


@EVERY
def test_with_its_authority_a_server_is_trusted_and_read(details: dict[str, Any], authority: Authority) -> None:
    case = case_of(details, ssl_ca=authority.pem)

    assert tls_of(case.test()).startswith("TLSv1")
    assert case.read(query_of(case))["n"].to_pylist() == [1]


@EVERY
def test_an_authority_that_did_not_sign_the_certificate_is_of_no_use(details: dict[str, Any]) -> None:
    # Of the same name as the right one, so that only its key tells.
    assert "cannot be trusted" in fails_at_tls(case_of(details, ssl_ca=Authority().pem))


@EVERY
def test_without_an_authority_one_of_our_own_making_is_not_trusted(details: dict[str, Any]) -> None:
    assert "an authority that nobody here knows" in fails_at_tls(case_of(details))


@EVERY
def test_a_certificate_for_another_name_is_refused(details: dict[str, Any], authority: Authority) -> None:
    case = case_of(details, ssl_ca=authority.pem, **at_address(details))

    assert "its certificate is for another name" in fails_at_tls(case)


@EVERY
def test_what_is_no_authority_is_told_without_it(details: dict[str, Any]) -> None:
    said = fails_at_tls(case_of(details, ssl_ca="-----BEGIN no certificate but secret-----"))

    assert said == "The authority is no certificate in PEM form."


def test_a_certificate_that_has_expired_is_refused(authority: Authority, tmp_path: Path) -> None:
    with serving_files(context=authority.sign(expired=True).context(tmp_path)) as files:
        files.bodies["/rows.json"] = b"[]"

        said = fails_at_tls(case_of({"url": f"{files.url}/rows.json"}, ssl_ca=authority.pem))

    assert "its certificate has expired" in said


@pytest.mark.parametrize("details", DATABASES, indirect=True)
def test_tls_without_checks_takes_any_certificate(details: dict[str, Any]) -> None:
    mode = "sslmode" if "sslmode" in details else "ssl"

    for wanted in ("require", "prefer"):
        case = case_of(details, **{mode: wanted}, **at_address(details))
        assert tls_of(case.test()).startswith("TLSv1")


@pytest.mark.service
def test_verify_ca_trusts_an_authority_whatever_the_name(
    postgres_details: dict[str, Any], authority: Authority
) -> None:
    right = case_of(postgres_details, sslmode="verify-ca", ssl_ca=authority.pem, host=ADDRESS)
    wrong = case_of(postgres_details, sslmode="verify-ca", ssl_ca=Authority().pem, host=ADDRESS)

    assert tls_of(right.test()).startswith("TLSv1")
    assert "cannot be trusted" in fails_at_tls(wrong)


@pytest.mark.service
def test_the_rows_go_by_tls_and_not_only_the_test(
    postgres_details: dict[str, Any], mariadb_details: dict[str, Any], authority: Authority
) -> None:
    postgres = case_of(postgres_details, ssl_ca=authority.pem)
    mariadb = case_of(mariadb_details, ssl_ca=authority.pem)

    encrypted = postgres.read("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    cipher = mariadb.read("SHOW STATUS LIKE 'Ssl_cipher'")

    assert encrypted["ssl"].to_pylist() == [True]
    assert cipher["Value"].to_pylist() != [""]


@pytest.mark.service
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("sslmode", "require"),
        ("sslmode", "verify-ca"),
        ("sslmode", "verify-full"),
        ("ssl", "require"),
        ("ssl", "verify"),
    ],
)
def test_a_postgres_without_tls_is_not_talked_to_in_the_clear_where_it_is_asked_for(
    postgres_case: Case, authority: Authority, name: str, mode: str
) -> None:
    case = Case("POSTGRES", {**postgres_case.details, name: mode, "ssl_ca": authority.pem}, postgres_case.calls)

    assert "has no TLS" in fails_at_tls(case)


@pytest.mark.service
@pytest.mark.parametrize("mode", ["require", "verify"])
def test_a_mysql_without_tls_is_not_talked_to_in_the_clear_where_it_is_asked_for(
    mariadb: MariaDb, authority: Authority, mode: str
) -> None:
    case = Case("MARIADB", {**mariadb.details, "ssl": mode, "ssl_ca": authority.pem}, new_calls())

    assert "has no TLS" in fails_at_tls(case)


@pytest.mark.service
def test_where_tls_is_preferred_a_server_without_it_is_read_and_the_test_says_so(
    postgres_case: Case, mariadb: MariaDb
) -> None:
    assert "the server has none" in tls_of(postgres_case.test(sslmode="prefer"))
    assert "the server has none" in tls_of(Case("MARIADB", mariadb.details, new_calls()).test(ssl="prefer"))


@pytest.mark.service
def test_a_bucket_is_trusted_by_what_the_machine_trusts(
    certificate: Certificate, authority: Authority, tmp_path: Path
) -> None:
    with running_moto(certificate.write(tmp_path)) as endpoint:
        calls = trusting(authority, tmp_path)
        details = {"bucket": BUCKET, "endpoint": endpoint, "access_key_id": "AKIATEST", "secret_access_key": SECRET}
        trusted = Case("S3", details, calls)
        stranger = Case("S3", details, new_calls())
        elsewhere = Case("S3", {**details, "endpoint": endpoint.replace(NAME, ADDRESS)}, calls)

        trusted.write("rows.parquet", pa.table({"n": [1]}))

        assert tls_of(trusted.test()).startswith("TLSv1")
        assert trusted.read("rows.parquet")["n"].to_pylist() == [1]
        assert "an authority that nobody here knows" in fails_at_tls(stranger)
        assert "another name" in fails_at_tls(elsewhere)
