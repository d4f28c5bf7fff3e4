"""References reach what the operator named, and nothing else."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from contract.drivers.http_server import Files, serving_files

from bettong.drivers.leases import Loan
from bettong.drivers.references import ReferencePolicy, resolve, variables_for
from bettong.drivers.vault import Vault
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTHING = ReferencePolicy()
VARIABLES = {
    "WAREHOUSE_PASSWORD": "p1",
    "EXACT": "p2",
    "EXACTLY": "p3",
    "BETTONG_KEYS": "the platform's",
    "PATH": "/bin",
}


def resolved(reference: str, policy: ReferencePolicy, variables: dict[str, str] = VARIABLES) -> object:
    heard: list[str] = []
    found = resolve({"field": {"$secret": reference}}, policy, variables, {}, heard.append)["field"]
    assert heard == [found]
    return found


def test_variables_are_reached_by_name_or_prefix() -> None:
    policy = ReferencePolicy(env=("WAREHOUSE_*", "EXACT"))

    assert resolved("env:WAREHOUSE_PASSWORD", policy) == "p1"
    assert resolved("env:EXACT", policy) == "p2"
    for name in ("EXACTLY", "PATH", "MISSING"):
        with pytest.raises(BadInput, match="may not name here"):
            resolved(f"env:{name}", policy)


@pytest.mark.parametrize("pattern", ["*", "BETTONG_*", "BETTONG_KEYS", "bettong_*"])
def test_the_platforms_own_variables_are_out_of_reach_whatever_is_allowed(pattern: str) -> None:
    policy = ReferencePolicy(env=(pattern,))

    for name in ("BETTONG_KEYS", "bettong_keys"):
        with pytest.raises(BadInput, match="may not name here"):
            resolved(f"env:{name}", policy, {**VARIABLES, "bettong_keys": "x"})


def test_a_process_is_given_only_the_variables_that_are_named_and_allowed() -> None:
    policy = ReferencePolicy(env=("*",))
    details = {
        "a": {"$secret": "env:EXACT"},
        "b": [{"c": {"$secret": "env:BETTONG_KEYS"}}],
        "d": {"$secret": "env:NONE"},
    }

    assert variables_for(details, policy, VARIABLES) == {"EXACT": "p2"}


def test_files_are_reached_below_the_allowed_folders_whatever_links_say(tmp_path: Path) -> None:
    allowed, home, outside = tmp_path / "secrets", tmp_path / "secrets" / "home", tmp_path / "outside"
    for folder in (allowed, home, outside):
        folder.mkdir()
    (allowed / "token").write_text("abc\n")
    (home / "key").write_text("the platform's")
    (outside / "key").write_text("somebody's")
    (allowed / "link").symlink_to(outside / "key")
    (allowed / "home_link").symlink_to(home / "key")
    policy = ReferencePolicy(folders=(str(allowed),), forbidden=(str(home),))

    assert resolved(f"file:{allowed}/token", policy) == "abc"
    for path in (
        home / "key",
        outside / "key",
        allowed / "link",
        allowed / "home_link",
        f"{allowed}/../outside/key",
        "token",
    ):
        with pytest.raises(BadInput, match="may not name here") as refused:
            resolved(f"file:{path}", policy)
        assert "somebody" not in str(refused.value)


def test_nothing_is_reached_when_nothing_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for reference in ("env:EXACT", f"file:{tmp_path}/x", "vault:kv/x#y", "aws:x#y", "aws:x"):
        with pytest.raises(BadInput):
            resolved(reference, ReferencePolicy())


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "env:",
        "EXACT",
        "http://x",
        "vault:kv#x",
        "vault:kv/x",
        "vault:kv/../sys/x#y",
        "vault:/kv/x#y",
        "aws:#x",
        "aws:x#",
        7,
        None,
    ],
)
def test_what_is_no_reference_is_told_with_its_field(reference: Any) -> None:
    with pytest.raises(BadInput, match=r"'auth.0.password' is no reference"):
        resolve({"auth": [{"password": {"$secret": reference}}]}, ReferencePolicy(), {}, {}, print)


def test_a_reference_beside_other_keys_is_none() -> None:
    with pytest.raises(BadInput, match="'a' is no reference"):
        resolve({"a": {"$secret": "env:EXACT", "b": 1}}, ReferencePolicy(env=("*",)), VARIABLES, {}, print)


# --- managers of secrets ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """A server that speaks as a vault does, of which the test knows what it was asked."""
    (tmp_path / "vault-token").write_text("vault token\n")
    with serving_files() as files:
        files.bodies |= {
            "/v1/kv/data/team/pg": _body({"data": {"data": {"password": "from the vault", "n": 7}}}),
            "/v1/kv/data/broken": b"{}",
            "/v1/sys/internal/ui/mounts/old/team/pg": _mount("old/", "kv"),
            "/v1/old/team/pg": _body({"data": {"password": "of version 1"}, "lease_duration": 2764800}),
            "/v1/sys/internal/ui/mounts/database/config/pg": _mount("database/", "database"),
            "/v1/database/config/pg": _body({"data": {"username": "root"}}),
            "/v1/sys/internal/ui/mounts/cubbyhole/creds/x": _mount("cubbyhole/", "cubbyhole"),
            "/v1/cubbyhole/creds/x": _body({"data": {"username": "root"}}),
            "/v1/sys/internal/ui/mounts/auth/token/lookup-self": _mount("token/", "token"),
            "/v1/auth/token/lookup-self": _body({"data": {"id": "vault token"}}),
        }
        yield files


@pytest.fixture
def vault(files: Files, tmp_path: Path) -> Vault:
    return Vault(files.url, str(tmp_path / "vault-token"))


def _body(answer: object) -> bytes:
    return json.dumps(answer).encode()


def _mount(path: str, kind: str) -> bytes:
    return _body({"data": {"path": path, "type": kind, "options": None}})


def by_manager(details: dict[str, Any], vault: Vault, policy: ReferencePolicy = NOTHING) -> dict[str, Any]:
    """As the server asks a manager, and the process that does the work takes what it was given."""
    with closing(Loan({"vault": vault}, policy)) as loan:
        given = loan.take(details, 10)
    return resolve(details, policy, {}, json.loads(json.dumps(given)), lambda _: None)


def test_a_vault_is_asked_once_for_each_path_with_the_operators_token(files: Files, vault: Vault) -> None:
    details = {"a": {"$secret": "vault:kv/team/pg#password"}, "b": {"$secret": "vault:kv/team/pg#password"}}

    for _ in range(2):
        assert by_manager(details, vault) == {"a": "from the vault", "b": "from the vault"}

    assert [(path, headers["x-vault-token"]) for path, headers in files.seen] == [
        ("/v1/sys/internal/ui/mounts/kv/team/pg", "vault token"),  # what the mount is, is asked once
        ("/v1/kv/data/team/pg", "vault token"),
        ("/v1/kv/data/team/pg", "vault token"),
    ]


def test_only_the_fields_that_are_named_leave_the_server(vault: Vault) -> None:
    with closing(Loan({"vault": vault}, ReferencePolicy())) as loan:
        given = loan.take({"a": {"$secret": "vault:kv/team/pg#user"}}, 10)

    assert given == {"vault:kv/team/pg": {"fields": {}}}


def test_key_value_secrets_of_version_1_are_read_too(vault: Vault) -> None:
    assert by_manager({"a": {"$secret": "vault:old/team/pg#password"}}, vault) == {"a": "of version 1"}


@pytest.mark.parametrize(
    "reference",
    ["vault:auth/token/lookup-self#id", "vault:database/config/pg#username", "vault:cubbyhole/creds/x#username"],
)
def test_the_platforms_own_token_and_what_engines_are_set_up_with_are_out_of_reach(
    files: Files, vault: Vault, reference: str
) -> None:
    with pytest.raises(BadInput, match="neither values nor credentials"):
        by_manager({"a": {"$secret": reference}}, vault)
    assert all(path.startswith("/v1/sys/internal/ui/mounts/") for path, _ in files.seen)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("vault:kv/team/pg#user", "no text of that name"),
        ("vault:kv/team/pg#n", "no text of that name"),
        ("vault:kv/team/none#x", "nothing at that path"),
    ],
)
def test_what_a_vault_does_not_have_is_told(vault: Vault, reference: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        by_manager({"field": {"$secret": reference}}, vault)


def test_a_vault_that_answers_badly_or_not_at_all_is_unavailable(vault: Vault, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="neither a key-value secret nor credentials"):
        by_manager({"a": {"$secret": "vault:kv/broken#x"}}, vault)
    gone = Vault("http://127.0.0.1:1", str(tmp_path / "vault-token"))
    with pytest.raises(Unavailable, match="does not answer") as refused:
        by_manager({"a": {"$secret": "vault:kv/team/pg#password"}}, gone)
    assert "vault token" not in str(refused.value)


# --- environments ----------------------------------------------------------------------------------------------------


def test_one_reference_names_another_value_in_each_environment(vault: Vault, files: Files, tmp_path: Path) -> None:
    files.bodies["/v1/kv/data/staging/pg"] = _body({"data": {"data": {"password": "of staging"}}})
    (tmp_path / "staging").mkdir()
    (tmp_path / "staging" / "token").write_text("abc")
    details = {
        "a": {"$secret": "env:WAREHOUSE_{environment}"},
        "b": {"$secret": f"file:{tmp_path}/{{environment}}/token"},
        "c": {"$secret": "vault:kv/{environment}/pg#password"},
    }
    policy = ReferencePolicy(env=("WAREHOUSE_*",), folders=(str(tmp_path),), environment="staging")
    variables = variables_for(details, policy, {"WAREHOUSE_staging": "1", "WAREHOUSE_production": "2"})
    with closing(Loan({"vault": vault}, policy)) as loan:
        given = loan.take(details, 10)

    found = resolve(details, policy, variables, given, lambda _: None)

    assert variables == {"WAREHOUSE_staging": "1"}
    assert found == {"a": "1", "b": "abc", "c": "of staging"}


def test_what_is_allowed_is_looked_up_after_the_environment_took_its_place() -> None:
    with pytest.raises(BadInput, match="may not name here"):
        resolved("env:{environment}_KEYS", ReferencePolicy(env=("*",), environment="BETTONG"))
    with pytest.raises(BadInput, match="may not name here"):
        resolved("env:A_{environment}", ReferencePolicy(env=("A_{environment}",), environment="b"), {"A_b": "x"})


def test_a_platform_without_an_environment_names_the_setting(vault: Vault) -> None:
    for reference in ("env:A_{environment}", "vault:kv/{environment}/pg#password"):
        with pytest.raises(BadInput, match=r"'a' refers to .*no environment.*BETTONG_ENVIRONMENT"):
            by_manager({"a": {"$secret": reference}}, vault, ReferencePolicy(env=("*",)))
