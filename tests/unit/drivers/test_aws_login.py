"""Who the platform is at AWS: where its keys come from, and what a signature is made of."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from contract.drivers.http_server import serving_files

from bettong.drivers.aws_login import Keys, credentials_file, keys_of, signed
from bettong.drivers.aws_secrets import SecretsManager
from bettong.drivers.references import found_in
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)


def test_a_request_is_signed_as_aws_says_in_its_examples() -> None:
    headers = signed(KEYS, "us-east-1", "service", "https://example.amazonaws.com/", {}, b"", NOW)

    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
    )


def test_keys_that_end_are_signed_with_their_session() -> None:
    headers = signed(Keys("a", "b", "session"), "r", "s", "http://127.0.0.1:5000", {}, b"x", NOW)

    assert (headers["x-amz-security-token"], headers["host"]) == ("session", "127.0.0.1:5000")
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in headers["authorization"]


def test_keys_come_from_the_servers_variables_first(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[default]\naws_access_key_id = file\naws_secret_access_key = file-secret\n")
    given = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s3cret", "AWS_SESSION_TOKEN": "t0ken"}

    found = keys_of({**given, "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}, 10)

    assert found == Keys("a", "s3cret", "t0ken")
    assert "s3cret" not in repr(found)
    assert "t0ken" not in repr(found)


def test_keys_come_from_a_profile_which_is_read_anew_each_time(tmp_path: Path) -> None:
    file = tmp_path / "credentials"
    variables = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "bettong"}
    for number in ("1", "2"):
        file.write_text(f"[bettong]\naws_access_key_id = a{number}\naws_secret_access_key = 50%{number}\n")
        assert keys_of(variables, 10) == Keys(f"a{number}", f"50%{number}")

    for text in ("[default]\naws_access_key_id = a\n", "no ini at all", ""):
        file.write_text(text)
        with pytest.raises(Unavailable, match="no keys of AWS"):
            keys_of(variables, 10)
    assert credentials_file({}).endswith("/.aws/credentials")


def test_keys_come_from_the_agent_of_a_container(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("who-we-are\n")
    with serving_files(login="who-we-are") as files:
        files.bodies["/creds"] = json.dumps({"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t"}).encode()
        variables = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{files.url}/creds"}
        tokened = {**variables, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(tmp_path / "token")}

        assert keys_of(tokened, 10) == Keys("a", "s", "t")
        with pytest.raises(Unavailable, match="gives this platform no keys"):
            keys_of(variables, 10)


def test_a_name_that_is_not_allowed_is_asked_of_nobody() -> None:
    with serving_files() as files:
        variables = {"AWS_ENDPOINT_URL": files.url, "AWS_REGION": "r"}
        for name in ("prod", "prod/", "other", "production/x"):
            (reference,) = found_in({"a": {"$secret": f"aws:{name}"}})
            with pytest.raises(BadInput, match=r"may not name here.*BETTONG_AWS_SECRETS"):
                SecretsManager(("prod/x", "prod/db*"), variables).ask(reference, 10)
            with pytest.raises(BadInput, match=r"this platform has none.*BETTONG_AWS_SECRETS"):
                SecretsManager((), variables).ask(reference, 10)
        assert (files.seen, files.posted) == ([], {})


def test_a_platform_without_a_region_says_what_to_set() -> None:
    (reference,) = found_in({"a": {"$secret": "aws:prod"}})

    with pytest.raises(Unavailable, match="AWS_REGION"):
        SecretsManager(("prod",), {}).ask(reference, 10)
