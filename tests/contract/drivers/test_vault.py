"""Secrets from a real vault, on their way to a real database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from contract.drivers.cases import Case, new_calls
from services.openbao import TOKEN, OpenBao, running_openbao

from bettong.domain.drivers import Stage
from bettong.drivers.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def openbao() -> Iterator[OpenBao]:
    with running_openbao() as vault:
        yield vault


def test_a_password_from_a_vault_opens_a_database(mariadb_case: Case, openbao: OpenBao, tmp_path: Path) -> None:
    openbao.keep("team/warehouse", {"password": str(mariadb_case.details["password"]), "user": "bettong"})
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    calls = new_calls(managers={"vault": Vault(openbao.address, str(token))})
    details = {
        **mariadb_case.details,
        "user": {"$secret": "vault:secret/team/warehouse#user"},
        "password": {"$secret": "vault:secret/team/warehouse#password"},
    }

    report = Case("MARIADB", details, calls).test()

    assert report.ok, report
    assert (report.stages[1].stage, report.stages[1].said) == (Stage.SECRET, "2 resolved")


def test_what_the_vault_does_not_have_ends_the_report_at_the_secret(
    mariadb_case: Case, openbao: OpenBao, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("another token")
    details = {**mariadb_case.details, "password": {"$secret": "vault:secret/team/warehouse#password"}}

    refused = new_calls(managers={"vault": Vault(openbao.address, str(token))})

    report = Case("MARIADB", details, refused).test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.SECRET, False)
    assert "does not let this platform read" in report.stages[-1].said
