from __future__ import annotations

import pytest

from bettong.engine.host_header import KnownHosts


@pytest.mark.parametrize(
    ("bound", "header", "taken"),
    [
        ("127.0.0.1", b"127.0.0.1:8080", True),
        ("127.0.0.1", b"LOCALHOST", True),
        ("127.0.0.1", b"[::1]:8080", True),
        ("127.0.0.1", b"models.example.org:443", True),
        ("127.0.0.1", b"models.example.org.", True),
        ("127.0.0.1", b"evil.example.com", False),
        ("127.0.0.1", b"127.0.0.1.evil.example.com", False),
        ("127.0.0.1", b"10.0.0.7", False),
        ("127.0.0.1", b"", False),
        ("127.0.0.1", b"[", False),
        ("127.0.0.1", b"\xff\xfe", False),
        ("10.0.0.7", b"10.0.0.7:80", True),
        ("0.0.0.0", b"10.0.0.7:80", True),
        ("::", b"[fe80::1]:80", True),
        ("0.0.0.0", b"evil.example.com", False),
    ],
)
def test_a_request_is_taken_only_under_a_known_name(bound: str, header: bytes, taken: bool) -> None:
    assert KnownHosts(bound, ("models.example.org",)).takes(header) is taken
