"""Secrets from a real vault, on their way to a real database; users that it makes there for one use."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from contract.drivers.cases import Case, children, new_calls
from services.openbao import TOKEN, OpenBao, running_openbao

from bettong.domain.drivers import Stage
from bettong.drivers.vault import Vault
from bettong.errors import NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from postgres import Postgres

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


# --- leased ---------------------------------------------------------------------------------------------------------


@dataclass
class Lending:
    """A connection as whom the vault says, each time anew; the vault makes the users, in a database of our own."""

    case: Case
    owner: psycopg.Connection[Any]
    path: str

    def users(self) -> dict[str, datetime]:
        """Those that are there, and until when they may log in."""
        role = self.path.rpartition("/")[2][:8]
        query = "select rolname, rolvaliduntil from pg_roles where rolname like %s"
        return dict(self.owner.execute(query, [f"v-%{role}-%"]).fetchall())

    def until(self, holds: Callable[[dict[str, datetime]], bool], what: str) -> None:
        until = time.monotonic() + 30
        while not holds(self.users()):
            assert time.monotonic() < until, what
            time.sleep(0.02)


@pytest.fixture
def lending(postgres_case: Case, postgres: Postgres, openbao: OpenBao, tmp_path: Path) -> Iterator[Lending]:
    with psycopg.connect(postgres.url(), autocommit=True) as owner:
        path = openbao.lend(postgres.port, lasts_s=4, most_s=60)
        yield Lending(borrowing(postgres_case, openbao, path, openbao.token(path), tmp_path), owner, path)


def borrowing(case: Case, openbao: OpenBao, path: str, token: str, folder: Path) -> Case:
    file = folder / "token"
    file.write_text(token)
    details = {
        **case.details,
        "user": {"$secret": f"vault:{path}#username"},
        "password": {"$secret": f"vault:{path}#password"},
    }
    return replace(case, details=details, calls=new_calls(managers={"vault": Vault(openbao.address, str(file))}))


def test_a_user_is_there_for_one_use_and_gone_after_it(lending: Lending) -> None:
    seen = []
    for _ in range(2):
        with lending.case.reading("select session_user as me") as rows:
            (user,) = lending.users()
            assert rows.read_all()["me"].to_pylist() == [user]
            seen.append(user)
        lending.until(lambda users: not users, "the user of a use that is over is gone")

    assert len(set(seen)) == 2


def test_a_test_takes_one_lease_for_both_fields_and_gives_it_back(lending: Lending) -> None:
    report = lending.case.test()

    assert report.ok, report
    assert report.stages[1].said == "2 resolved"
    lending.until(lambda users: not users, "the user of a test is gone")


def test_what_is_leased_lasts_as_long_as_the_stream_that_is_read(lending: Lending) -> None:
    with lending.case.reading("select n, session_user as me from generate_series(1, 100000) n") as rows:
        ((user, first_end),) = lending.users().items()
        lending.until(lambda users: users[user] > first_end, "the user may log in for longer")
        lending.until(lambda _: datetime.now(UTC) > first_end, "the first end is over")
        assert rows.read_all()["me"].unique().to_pylist() == [user]
        assert set(lending.users()) == {user}
    lending.until(lambda users: not users, "the user is gone")


def test_a_use_whose_process_is_killed_gives_back_what_it_was_lent(lending: Lending) -> None:
    with lending.case.reading("select n from generate_series(1, 10000000) n") as rows:
        assert lending.users()
        for process in children():
            process.kill()
        with pytest.raises(Unavailable, match="ended by signal 9"):
            rows.read_all()
    lending.until(lambda users: not users, "the user is gone")


def test_a_use_that_fails_gives_back_what_it_was_lent(lending: Lending) -> None:
    with pytest.raises(NotFound), lending.case.reading("there_is_no_such_table"):
        pass

    lending.until(lambda users: not users, "the user is gone")


def test_a_lease_that_may_not_be_given_back_is_told_and_ends_by_itself(
    lending: Lending, openbao: OpenBao, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = borrowing(lending.case, openbao, lending.path, openbao.token(lending.path, gives_back=False), tmp_path)

    case.read("select 1 as one")

    assert f"lease not given back place=vault:{lending.path} ends_within_s=" in caplog.text
    assert "sys/leases/revoke" in caplog.text
    lending.until(lambda users: not users, "the user is gone by itself")


def test_no_process_of_a_driver_knows_the_token_of_the_vault(lending: Lending, tmp_path: Path) -> None:
    """What it knew it would have been told, and all that it is told is this."""
    loan = lending.case.calls.loan()
    try:
        told = lending.case.calls.handed_over(lending.case.kind, lending.case.details, loan, 30)
    finally:
        loan.close()

    text = json.dumps(told)
    assert (tmp_path / "token").read_text() not in text
    assert str(tmp_path / "token") not in text
    (given,) = told["given"].values()
    assert sorted(given["fields"]) == ["password", "username"]
