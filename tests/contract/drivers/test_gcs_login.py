"""GCS: a service account's way to a token. The emulator takes whoever comes, so a server of ours looks at the login."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import jwt
import pytest
from contract.drivers.cases import Case, new_calls
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bettong.domain.drivers import Stage

if TYPE_CHECKING:
    from contract.drivers.http_server import Files

ROWS = b'[{"n": 1}, {"n": 2}]'


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def account(files: Files, key: rsa.RSAPrivateKey) -> dict[str, object]:
    """The details of a service account whose tokens `files` gives out, and a bucket there with one object."""
    files.login = "Bearer a token"
    files.bodies["/token"] = json.dumps({"access_token": "a token", "expires_in": 3600}).encode()
    objects = "/storage/v1/b/sales/o"
    files.bodies[objects] = json.dumps({"items": [{"name": "a.json", "size": len(ROWS)}]}).encode()
    files.bodies[f"{objects}/a.json?fields=size"] = json.dumps({"size": str(len(ROWS))}).encode()
    files.bodies[f"{objects}/a.json?alt=media"] = ROWS
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return {
        "type": "service_account",
        "client_email": "robot@project.example",
        "private_key": pem,
        "private_key_id": "key 1",
        "token_uri": f"{files.url}/token",
        "bucket": "sales",
        "endpoint": files.url,
    }


def test_a_service_account_signs_for_a_token_and_reads_with_it(
    files: Files, key: rsa.RSAPrivateKey, account: dict[str, object]
) -> None:
    case = Case("GCS", account, new_calls())

    assert case.test().ok
    assert case.read("a.json").to_pylist() == [{"n": 1}, {"n": 2}]

    asked = parse_qs(files.posted["/token"].decode())
    (signed,) = asked["assertion"]
    claims = jwt.decode(signed, key.public_key(), ["RS256"], audience=f"{files.url}/token")
    assert claims["iss"] == "robot@project.example"
    assert jwt.get_unverified_header(signed)["kid"] == "key 1"


def test_the_whole_json_may_stand_in_one_field(account: dict[str, object]) -> None:
    whole = {"bucket": account["bucket"], "endpoint": account["endpoint"], "service_account": json.dumps(account)}

    assert Case("GCS", whole, new_calls()).read("a.json").num_rows == 2


def test_a_key_that_is_none_is_told_at_the_login_without_it(account: dict[str, object]) -> None:
    report = Case("GCS", {**account, "private_key": "no key, but secret"}, new_calls()).test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert "but secret" not in repr(report)


def test_without_a_login_the_machines_own_is_not_used(account: dict[str, object]) -> None:
    report = Case("GCS", {"bucket": "sales", "endpoint": account["endpoint"]}, new_calls()).test()

    assert "no service account" in report.stages[-1].said
