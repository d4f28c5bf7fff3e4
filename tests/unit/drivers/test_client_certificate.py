"""A certificate of ours is taken from memory, and one that does not hold is told without a word of its key."""

from __future__ import annotations

import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from certificates import Authority
from cryptography.hazmat.primitives import serialization

from bettong.drivers.client_certificate import LONGEST, add_client_certificate
from bettong.errors import BadInput


def test_a_certificate_and_its_key_are_taken_and_leave_no_file_open() -> None:
    ours = Authority().sign()
    open_files = Path("/dev/fd")
    before = len(list(open_files.iterdir()))

    add_client_certificate(ssl.create_default_context(), ours.certificate.decode(), ours.key.decode())

    assert len(list(open_files.iterdir())) == before


@pytest.mark.parametrize("given", ["foreign", "nothing", "long"])
def test_one_that_does_not_hold_is_told(given: str) -> None:
    ours, foreign = Authority().sign(), Authority().sign()
    key = {"foreign": foreign.key.decode(), "nothing": "no key at all", "long": "k" * (LONGEST + 1)}[given]

    with pytest.raises(BadInput) as refused:
        add_client_certificate(ssl.create_default_context(), ours.certificate.decode(), key)

    assert key[:20] not in str(refused.value)
    assert refused.value.__context__ is None


def test_a_key_with_a_password_asks_nobody() -> None:
    ours = Authority().sign()
    key = serialization.load_pem_private_key(ours.key, None).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    code = f"""
import ssl
from bettong.drivers.client_certificate import add_client_certificate
from bettong.errors import BadInput
try:
    add_client_certificate(ssl.create_default_context(), {ours.certificate.decode()!r}, {key.decode()!r})
except BadInput as refused:
    print(refused.next_step)
"""

    said = subprocess.run(
        [sys.executable, "-c", code], input="", capture_output=True, text=True, timeout=30, check=True
    )

    assert "without a password" in said.stdout
    assert not said.stderr
