"""A server of files on loopback, with the manners that real ones have: logins, redirects, slow and broken answers."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from certificates import NAME

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@dataclass
class Files:
    """What is served, by path, and what was asked for.

    A body is bytes, or a function that writes what it likes to the connection. `login` is the Authorization header that
    has to come, if any.
    """

    port: int = 0
    secure: bool = False
    login: str = ""
    bodies: dict[str, Any] = field(default_factory=dict)
    content_types: dict[str, str] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    posted: dict[str, bytes] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    ending: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}" if self.secure else f"http://127.0.0.1:{self.port}"


@contextmanager
def serving_files(login: str = "", context: ssl.SSLContext | None = None) -> Iterator[Files]:
    files = Files(login=login, secure=context is not None)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path if self.path in files.bodies else self.path.partition("?")[0]
            files.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            if path in files.redirects:
                self.send_response(302)
                self.send_header("location", files.redirects[path])
                self.send_header("content-length", "0")
                self.end_headers()
            elif files.login and self.headers.get("authorization") != files.login:
                self._answer(401, b"who are you?", "text/plain")
            elif path not in files.bodies:
                self._answer(404, b"nothing here", "text/plain")
            elif callable(files.bodies[path]):
                self.close_connection = True
                files.bodies[path](self.connection)
            else:
                kind = files.content_types.get(path, "application/octet-stream")
                self._answer(200, files.bodies[path], kind)

        def do_POST(self) -> None:
            files.posted[self.path] = self.rfile.read(int(self.headers["content-length"]))
            self._answer(200, files.bodies[self.path], "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # whoever asked has heard enough
                super().handle()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET

    with Server(("127.0.0.1", 0), Handler) as server:
        files.port = server.server_address[1]
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=lambda: server.serve_forever(0.01))
        thread.start()
        try:
            yield files
        finally:
            files.ending.set()
            server.shutdown()
            thread.join()
