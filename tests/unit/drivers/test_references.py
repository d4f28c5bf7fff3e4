"""References reach what the operator named, and nothing else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from contract.drivers.http_server import Files, serving_files

from bettong.drivers.references import ReferencePolicy, resolve, variables_for
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = {
    "WAREHOUSE_PASSWORD": "p1",
    "EXACT": "p2",
    "EXACTLY": "p3",
    "BETTONG_KEYS": "the platform's",
    "PATH": "/bin",
}


def resolved(reference: str, policy: ReferencePolicy, variables: dict[str, str] = VARIABLES) -> object:
    heard: list[str] = []
    found = resolve({"field": {"$secret": reference}}, policy, variables, heard.append, 10)["field"]
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
    for reference in ("env:EXACT", f"file:{tmp_path}/x", "vault:kv/x#y"):
        with pytest.raises(BadInput):
            resolved(reference, ReferencePolicy())


@pytest.mark.parametrize(
    "reference",
    ["", "env:", "EXACT", "http://x", "vault:kv#x", "vault:kv/x", "vault:kv/../sys/x#y", "vault:/kv/x#y", 7, None],
)
def test_what_is_no_reference_is_told_with_its_field(reference: Any) -> None:
    with pytest.raises(BadInput, match=r"'auth.0.password' is no reference"):
        resolve({"auth": [{"password": {"$secret": reference}}]}, ReferencePolicy(), {}, print, 10)


def test_a_reference_beside_other_keys_is_none() -> None:
    with pytest.raises(BadInput, match="'a' is no reference"):
        resolve({"a": {"$secret": "env:EXACT", "b": 1}}, ReferencePolicy(env=("*",)), VARIABLES, print, 10)


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[tuple[Files, ReferencePolicy]]:
    """A server that speaks as a vault does, and the policy that leads to it."""
    token = tmp_path / "vault-token"
    token.write_text("vault token\n")
    with serving_files() as files:
        files.bodies["/v1/kv/data/team/pg"] = json.dumps(
            {"data": {"data": {"password": "from the vault", "n": 7}, "metadata": {"version": 3}}}
        ).encode()
        files.bodies["/v1/kv/data/broken"] = b"{}"
        yield files, ReferencePolicy(vault_addr=files.url, vault_token_file=str(token))


def test_a_vault_is_asked_once_for_each_path_with_the_operators_token(vault: tuple[Files, ReferencePolicy]) -> None:
    files, policy = vault
    details = {"a": {"$secret": "vault:kv/team/pg#password"}, "b": {"$secret": "vault:kv/team/pg#password"}}

    found = resolve(details, policy, {}, lambda _: None, 10)

    assert found == {"a": "from the vault", "b": "from the vault"}
    assert [(path, headers["x-vault-token"]) for path, headers in files.seen] == [
        ("/v1/kv/data/team/pg", "vault token")
    ]


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("vault:kv/team/pg#user", "no text of that name"),
        ("vault:kv/team/pg#n", "no text of that name"),
        ("vault:kv/team/none#x", "nothing at that path"),
    ],
)
def test_what_a_vault_does_not_have_is_told(vault: tuple[Files, ReferencePolicy], reference: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        resolved(reference, vault[1])


def test_a_vault_that_answers_badly_or_not_at_all_is_unavailable(vault: tuple[Files, ReferencePolicy]) -> None:
    with pytest.raises(Unavailable, match="no key-value secret"):
        resolved("vault:kv/broken#x", vault[1])
    gone = ReferencePolicy(vault_addr="http://127.0.0.1:1", vault_token_file=vault[1].vault_token_file)
    with pytest.raises(Unavailable, match="does not answer") as refused:
        resolved("vault:kv/team/pg#password", gone)
    assert "vault token" not in str(refused.value)
