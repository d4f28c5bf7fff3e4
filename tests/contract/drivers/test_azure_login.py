"""AZURE: a client's secret is exchanged for a token, and the token opens the container. The storage is azurite, which
looks at tokens as the real one does; the login is a server of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from certificates import NAME, Authority
from contract.drivers.cases import Case, new_calls, new_name, trusting
from services.azurite import ACCOUNT, CONTAINER, running_azurite
from services.entra import CLIENT, SECRET, TENANT, Entra, running_entra

from bettong.domain.drivers import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.drivers import TestReport

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def storage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_azurite(authority.sign(NAME).write(tmp_path_factory.mktemp("storage"))) as endpoint:
        yield endpoint


@pytest.fixture
def login(authority: Authority, tmp_path: Path) -> Iterator[Entra]:
    with running_entra(authority.sign(NAME).context(tmp_path)) as login:
        yield login


@pytest.fixture
def case(authority: Authority, storage: str, login: Entra, tmp_path: Path) -> Case:
    client = {"tenant_id": TENANT, "client_id": CLIENT, "client_secret": SECRET, "authority": login.url}
    details = {"container": CONTAINER, "account_name": ACCOUNT, "endpoint": storage, **client}
    return Case("AZURE", details, trusting(authority, tmp_path))


def refused_at_login(case: Case, login: Entra) -> TestReport:
    report = case.test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False), report
    for secret in (SECRET, "wrong but secret", *login.given):
        assert secret not in repr(report)
    return report


def test_a_clients_secret_opens_a_container(case: Case, login: Entra) -> None:
    name = f"{new_name()}.parquet"

    case.write(name, pa.table({"n": [1]}))

    assert case.read(name)["n"].to_pylist() == [1]
    assert case.test().ok
    assert login.given


def test_a_wrong_secret_is_told_at_the_login_without_it(case: Case, login: Entra) -> None:
    wrong = Case("AZURE", {**case.details, "client_secret": "wrong but secret"}, case.calls)

    report = refused_at_login(wrong, login)

    assert "refuses this login" in report.stages[-1].said
    assert not login.given


@pytest.mark.parametrize("change", [{"audience": "https://vault.azure.net"}, {"hours": -0.5}], ids=["audience", "age"])
def test_a_token_that_the_storage_does_not_take_is_told_at_the_login(
    case: Case, login: Entra, change: dict[str, object]
) -> None:
    for name, value in change.items():
        setattr(login, name, value)

    report = refused_at_login(case, login)

    assert "refuses this login" in report.stages[-1].said


def test_a_secret_goes_over_tls_alone(case: Case, login: Entra) -> None:
    for clear in ("authority", "endpoint"):
        details = {**case.details, clear: str(case.details[clear]).replace("https:", "http:")}

        assert "over TLS alone" in new_calls().test("AZURE", details, 30).stages[-1].said

    assert not login.given
