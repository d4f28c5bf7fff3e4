"""A private Snowflake: fakesnow behind its HTTP server, in an environment of its own, and before it a door at which
logins are checked (the emulator takes any)."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

# The server imports what only the connector before 4 has; the client in our own environment is newer.
PACKAGES = ("fakesnow[server]==0.12.1", "snowflake-connector-python<4", "pyjwt", "cryptography")
ACCOUNT, USER, DATABASE, SCHEMA = "bettong-test", "robot", "contract", "public"
DOOR = Path(__file__).with_name("snowflake_door.py")


@dataclass(frozen=True)
class Snowflake:
    """Where it is, and all three ways to log in."""

    endpoint: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    private_key: str = field(repr=False)

    @property
    def place(self) -> dict[str, Any]:
        """Details that lack nothing but a login."""
        named = {"database": DATABASE, "schema": SCHEMA, "warehouse": "small"}
        return {"account": ACCOUNT, "user": USER, "endpoint": self.endpoint, **named}

    @property
    def details(self) -> dict[str, Any]:
        return {**self.place, "private_key": self.private_key}

    def asked(self) -> list[str]:
        """The path of every request so far."""
        with urllib.request.urlopen(f"{self.endpoint}/asked", timeout=30) as answer:
            found: list[str] = json.load(answer)
        return found


@contextmanager
def running_snowflake(password: str) -> Iterator[Snowflake]:
    binaries, port = environment("snowflake", *PACKAGES), free_port()
    private_key, public_key = new_pair()
    token = "a programmatic access token"
    told = {"password": password, "token": token, "public_key": public_key, "database": DATABASE, "schema": SCHEMA}
    with tempfile.TemporaryDirectory(prefix="bettong-snowflake-") as home:
        secrets = Path(home) / "logins.json"
        secrets.write_text(json.dumps(told))
        variables = {"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": home}
        command = [str(binaries / "python"), "-P", str(DOOR), str(port), str(secrets)]
        with serving(command, port, environment=variables, cwd=Path(home)):
            yield Snowflake(f"http://127.0.0.1:{port}", password, token, private_key)


def new_pair() -> tuple[str, str]:
    """A key pair that nobody knows, as PEM."""
    key = rsa.generate_private_key(65537, 2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()
