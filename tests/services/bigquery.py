"""A private BigQuery: bqemulator, and beside it the desk at which service accounts get their tokens.

The emulator takes any token; the desk gives one to nobody but who signs with the key of an account that it made.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from services.place import environment, run
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROJECT, DATASET = "test-project", "contract"
# DuckDB is inside of it, and wants an extension that it would download; numpy is needed and not declared.
PACKAGES = ("bqemulator==1.4.0", "duckdb==1.5.5", "duckdb-extension-spatial==1.5.5", "numpy", "pyarrow")


@dataclass(frozen=True)
class BigQuery:
    """Where the emulator and the desk are. `account` is a service account's JSON, as one downloads it."""

    api_endpoint: str
    grpc_endpoint: str
    account: Mapping[str, str] = field(repr=False)

    @property
    def details(self) -> dict[str, Any]:
        """The JSON with a dataset, as in the tutorials, and the emulator's addresses."""
        places = {"api_endpoint": self.api_endpoint, "grpc_endpoint": self.grpc_endpoint}
        return {**self.account, "dataset": DATASET, **places}

    def new_dataset(self, name: str) -> None:
        made = urllib.request.Request(
            f"{self.api_endpoint}/bigquery/v2/projects/{PROJECT}/datasets",
            data=json.dumps({"datasetReference": {"projectId": PROJECT, "datasetId": name}}).encode(),
            headers={"content-type": "application/json"},
        )
        urllib.request.urlopen(made, timeout=30).close()


@contextmanager
def running_bigquery() -> Iterator[BigQuery]:
    binaries, port, grpc_port = environment("bigquery", *PACKAGES), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="bettong-bigquery-") as home, token_desk() as account:
        _place_extension(binaries, Path(home))
        command = [
            *(str(binaries / "bqemulator"), "start", "--rest-port", str(port), "--grpc-port", str(grpc_port)),
            *("--project", PROJECT),
        ]
        variables = {"PATH": os.environ["PATH"], "HOME": home}
        with serving(command, port, environment=variables, cwd=Path(home)):
            server = BigQuery(f"http://127.0.0.1:{port}", f"127.0.0.1:{grpc_port}", account)
            server.new_dataset(DATASET)
            yield server


@contextmanager
def token_desk() -> Iterator[dict[str, str]]:
    """A service account, and a server that gives tokens for it for as long as this lasts."""
    key = rsa.generate_private_key(65537, 2048)
    with ThreadingHTTPServer(("127.0.0.1", 0), _handler(key.public_key())) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield _account(key, f"http://127.0.0.1:{server.server_address[1]}/token")
        finally:
            server.shutdown()
            thread.join()


def new_key() -> str:
    """A private key that nobody knows."""
    return _pem(rsa.generate_private_key(65537, 2048))


def _account(key: rsa.RSAPrivateKey, token_uri: str) -> dict[str, str]:
    email = f"robot@{PROJECT}.iam.example"
    return {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "key-1",
        "private_key": _pem(key),
        "client_email": email,
        "client_id": "100000000000000000001",
        "auth_uri": "https://accounts.example/o/oauth2/auth",
        "token_uri": token_uri,
        "auth_provider_x509_cert_url": "https://accounts.example/oauth2/v1/certs",
        "client_x509_cert_url": f"https://accounts.example/robot/v1/metadata/x509/{email}",
    }


def _pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _handler(public: rsa.RSAPublicKey) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            try:
                # Whom a token is for is the desk's own address; each test that runs has another one.
                jwt.decode(asked["assertion"][0], public, ["RS256"], options={"verify_aud": False})
            except (KeyError, jwt.PyJWTError):
                self._answer(400, {"error": "invalid_grant"})
            else:
                self._answer(200, {"access_token": "a token", "expires_in": 3600, "token_type": "Bearer"})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Handler


def _place_extension(binaries: Path, home: Path) -> None:
    """Put DuckDB's extension where it looks for what it once downloaded."""
    said = run([str(binaries / "python"), "-c", "import duckdb; print(*duckdb.sql('PRAGMA platform').fetchone())"])
    found = next(binaries.parent.rglob("spatial.duckdb_extension"))
    version = found.parent.name
    folder = home / ".duckdb" / "extensions" / version / said.strip()
    folder.mkdir(parents=True)
    (folder / found.name).symlink_to(found)
