"""Access tokens: what they say, how long they hold, and that their key is made once and stays inside."""

from __future__ import annotations

import base64
import copy
import pickle
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bettong.domain.identity import Principal
from bettong.errors import BadInput, Unauthenticated
from bettong.secrets.signing import KEY_FILE, Signer, open_signer

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 1, 12, 0, 0, 500_000, tzinfo=UTC)
ANN = Principal("u-ann", "ann@example.com", False, frozenset({7, 3}))


@pytest.fixture
def signer() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


def signed_by(key: Ed25519PrivateKey, **changes: Any) -> str:
    claims = {"sub": "u", "email": "e", "adm": False, "ws": [], "aud": "bettong"}
    times = {"iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 60}
    return jwt.encode({k: v for k, v in {**claims, **times, **changes}.items() if v is not None}, key, "EdDSA")


def test_a_token_says_who_for_what_and_how_long(signer: Signer) -> None:
    token = signer.mint(ANN, NOW)

    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(signer.public_key))
    claims = jwt.decode(
        token, public, algorithms=["EdDSA"], audience="bettong", options={"verify_exp": False, "verify_iat": False}
    )
    issued = int(NOW.timestamp())
    assert claims == {
        "sub": "u-ann",
        "email": "ann@example.com",
        "adm": False,
        "ws": [3, 7],
        "aud": "bettong",
        "iat": issued,
        "exp": issued + 60,
    }
    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"


def test_a_token_proves_its_principal_until_it_runs_out(signer: Signer) -> None:
    token = signer.mint(ANN, NOW, life_s=10)

    assert signer.verify(token, NOW) == ANN
    assert signer.verify(token, NOW + timedelta(seconds=9)) == ANN
    for late in (timedelta(seconds=10), timedelta(days=1), timedelta(seconds=-5)):
        with pytest.raises(Unauthenticated, match="run out"):
            signer.verify(token, NOW + late)


@pytest.mark.parametrize("life_s", [0, -1, 61, 3600])
def test_no_token_lives_longer_than_a_minute(signer: Signer, life_s: int) -> None:
    with pytest.raises(ValueError, match="1 to 60 s"):
        signer.mint(ANN, NOW, life_s=life_s)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": None},
        {"exp": None},
        {"ws": None},
        {"ws": ["x"]},
        {"ws": 5},
        {"exp": "soon"},
        {"exp": int(NOW.timestamp()) + 3600},
        {"sub": None},
    ],
)
def test_a_signed_token_that_is_not_an_access_token_of_ours_does_not_hold(changes: dict[str, Any]) -> None:
    key = Ed25519PrivateKey.generate()
    assert Signer(key).verify(signed_by(key), NOW).user_id == "u"  # whole, it does

    with pytest.raises(Unauthenticated):
        Signer(key).verify(signed_by(key, **changes), NOW)


def test_forged_tokens_do_not_hold(signer: Signer) -> None:
    token = signer.mint(ANN, NOW)
    head, body, _ = token.split(".")
    unsigned = jwt.encode({"sub": "u-ann"}, "", algorithm="none")
    by_public_key = jwt.encode({"sub": "u-ann"}, signer.public_key, algorithm="HS256")

    for forged in (
        signed_by(Ed25519PrivateKey.generate()),
        f"{head}.{body}.",
        f"{head}.{body}",
        token[:-6] + "AAAAAA",
        unsigned,
        by_public_key,
        "",
        "bt_abc",
        "\ud800.é.x",
    ):
        with pytest.raises(Unauthenticated, match="does not hold"):
            signer.verify(forged, NOW)


def test_an_administrator_is_only_who_is_named_one(signer: Signer) -> None:
    admin = Principal("u", "e", True, frozenset())
    assert signer.verify(signer.mint(admin, NOW), NOW).is_admin

    key = Ed25519PrivateKey.generate()
    assert not Signer(key).verify(signed_by(key, adm="false"), NOW).is_admin


def test_the_key_is_made_once_private_and_the_same_for_all_who_start(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with ThreadPoolExecutor(8) as threads:
        signers = list(threads.map(lambda _: open_signer(folder), range(16)))

    assert len({signer.public_key for signer in signers}) == 1
    assert open_signer(folder).verify(signers[0].mint(ANN, NOW), NOW) == ANN
    assert [path.name for path in folder.iterdir()] == [KEY_FILE]
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_key_file_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    open_signer(tmp_path)
    file = tmp_path / KEY_FILE
    file.chmod(0o640)
    with pytest.raises(BadInput, match="has mode 0640"):
        open_signer(tmp_path)

    file.chmod(0o600)
    file.write_text("rubbish")
    with pytest.raises(BadInput, match="not an Ed25519 private key"):
        open_signer(tmp_path)
    assert file.read_text() == "rubbish"


def test_the_key_is_in_no_repr_and_no_pickle(tmp_path: Path) -> None:
    signer = open_signer(tmp_path)
    body = (tmp_path / KEY_FILE).read_text().splitlines()[1]

    assert body not in repr(signer) + str(signer)
    for copier in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="stays in its process"):
            copier(signer)
