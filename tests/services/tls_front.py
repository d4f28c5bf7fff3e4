"""TLS in front of a server that has none: what comes over it is handed on in the clear, on this machine."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator


@contextmanager
def tls_in_front(port: int, behind: int, context: ssl.SSLContext) -> Iterator[None]:
    """Takes connections on `port` of loopback, for a server at port `behind`."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=_serve, args=(listening, behind, context), daemon=True).start()
        yield
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, behind: int, context: ssl.SSLContext) -> None:
    with suppress(OSError):  # the end
        while True:
            raw, _ = listening.accept()
            threading.Thread(target=_joined, args=(raw, behind, context), daemon=True).start()


def _joined(raw: socket.socket, behind: int, context: ssl.SSLContext) -> None:
    # Whoever ends or breaks off, or does not like our certificate, ends both.
    with (
        suppress(OSError),
        raw,
        context.wrap_socket(raw, server_side=True) as front,
        socket.create_connection(("127.0.0.1", behind)) as back,
    ):
        other = threading.Thread(target=pump, args=(back, front), daemon=True)
        other.start()
        pump(front, back)
        other.join()


def pump(source: socket.socket, sink: socket.socket) -> None:
    """Hand on what comes until one of them ends, and end both."""
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
