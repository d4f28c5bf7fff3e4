"""PostgreSQL's way into TLS: it is asked for in the clear, and the server says whether it has it."""

from __future__ import annotations

import ssl
import struct
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bettong.drivers import egress as reach
from bettong.drivers.layers import HANDSHAKE_S
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

_SSL_REQUEST = struct.pack(">II", 8, 80877103)


def shake_hands(target: reach.Target, sslmode: str, authority: str, timeout_s: float) -> str:
    """What a login with this `sslmode` meets; the protocol it came to, in words. Raises Unavailable when it cannot."""
    from bettong.drivers import web  # a login alone has no use for it

    with reach.connect(target, timeout_s) as raw:
        raw.settimeout(min(timeout_s, HANDSHAKE_S))
        try:
            raw.sendall(_SSL_REQUEST)
            answer = raw.recv(1)
        except OSError:
            raise Unavailable(
                f"'{target.host}' does not look like PostgreSQL: it took the connection and did not answer.",
                "Check host and port.",
            ) from None
        if answer == b"N" and sslmode == "prefer":
            return "the server has none, and sslmode does not demand it"
        if answer != b"S":
            said = "has no TLS" if answer == b"N" else "does not look like PostgreSQL"
            raise Unavailable(f"'{target.host}' {said}.", "Check host, port and sslmode.")
        with web.secured(raw, _context(sslmode, authority), target.host, timeout_s) as wrapped:
            return wrapped.version() or "TLS"


@contextmanager
def authority_file(sslmode: str, authority: str) -> Iterator[str]:
    """The path of a file with the authorities to trust, for libpq; "" when it looks at none."""
    if not sslmode.startswith("verify"):
        yield ""
        return
    if not authority:
        import certifi

        yield certifi.where()
        return
    with tempfile.NamedTemporaryFile(suffix=".pem") as file:  # a public thing
        file.write(authority.encode())
        file.flush()
        yield file.name


def _context(sslmode: str, authority: str) -> ssl.SSLContext:
    from bettong.drivers import web

    context = web.tls_context(authority)
    context.check_hostname = sslmode == "verify-full"
    if not sslmode.startswith("verify"):
        context.verify_mode = ssl.CERT_NONE
    return context
