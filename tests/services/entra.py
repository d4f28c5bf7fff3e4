"""Microsoft's login as far as a program uses it: a client's secret is exchanged for a token, over TLS."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import jwt
from certificates import NAME

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

TENANT, CLIENT, SECRET = "a-tenant", "a-client", "the client's secret ~&+"
STORAGE = "https://storage.azure.com"
_ISSUER = f"https://sts.windows.net/{TENANT}/"


@dataclass
class Entra:
    """A login. `audience` and `hours` are what its tokens are for, and for how long."""

    url: str
    audience: str = STORAGE
    hours: float = 1.0
    given: list[str] = field(default_factory=list)

    def token(self) -> str:
        now = int(time.time())
        claims = {
            "aud": self.audience,
            "iss": _ISSUER,
            "iat": now,
            "nbf": now - 60,
            "exp": now + int(self.hours * 3600),
        }
        self.given.append(jwt.encode({**claims, "appid": CLIENT}, "a key of the tests, that nobody looks at", "HS256"))
        return self.given[-1]


@contextmanager
def running_entra(context: ssl.SSLContext) -> Iterator[Entra]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            asked = {name: values[0] for name, values in form.items()}
            wanted = {"grant_type": "client_credentials", "scope": f"{STORAGE}/.default", "client_id": CLIENT}
            if self.path != f"/{TENANT}/oauth2/v2.0/token" or not wanted.items() <= asked.items():
                self._answer(400, {"error": "invalid_request"})
            elif asked.get("client_secret") != SECRET:
                self._answer(401, {"error": "invalid_client"})
            else:
                self._answer(200, {"token_type": "Bearer", "expires_in": 3600, "access_token": login.token()})

        def _answer(self, status: int, told: dict[str, object]) -> None:
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    login = Entra(f"https://{NAME}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield login
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
