"""MySQL's way into TLS: the server greets in the clear and says whether it has it, and the client asks for it."""

from __future__ import annotations

import ssl
import struct
from typing import TYPE_CHECKING

from bettong.drivers import egress as reach
from bettong.drivers import web
from bettong.drivers.layers import HANDSHAKE_S
from bettong.errors import Unavailable

if TYPE_CHECKING:
    import socket
    from typing import Literal

    Mode = Literal["prefer", "require", "verify"]

# What both sides say they can do, by the bits of the protocol.
_PROTOCOL_41, _SSL, _SECURE_CONNECTION = 1 << 9, 1 << 11, 1 << 15
_ASKED = struct.pack("<IIB23x", _PROTOCOL_41 | _SSL | _SECURE_CONNECTION, 2**24 - 1, 45)
_SCRAMBLE = 8 + 1  # between the number of the connection and the server's abilities


def shake_hands(target: reach.Target, mode: Mode, authority: str, timeout_s: float) -> str:
    """What a login with this mode meets; the protocol it came to, in words. Raises Unavailable when it cannot."""
    with reach.connect(target, timeout_s) as raw:
        raw.settimeout(min(timeout_s, HANDSHAKE_S))
        if not _offered(_greeting(raw, target.host)):
            if mode == "prefer":
                return "the server has none, and ssl does not demand it"
            raise Unavailable(f"MySQL at '{target.host}' has no TLS.", "Turn it on there, or set ssl to 'prefer'.")
        try:
            raw.sendall(struct.pack("<I", len(_ASKED))[:3] + b"\x01" + _ASKED)
        except OSError as failed:
            raise web.tls_failed(target.host, failed) from None
        with web.secured(raw, context(mode, authority), target.host, timeout_s) as wrapped:
            return wrapped.version() or "TLS"


def context(mode: Mode, authority: str) -> ssl.SSLContext:
    """What is trusted: with `verify` the authorities and the name, else whoever answers."""
    made = web.tls_context(authority)
    if mode != "verify":
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def _greeting(raw: socket.socket, host: str) -> bytes:
    try:
        with raw.makefile("rb") as file:
            head = file.read(4)
            return file.read(int.from_bytes(head[:3], "little")) if len(head) == 4 else b""
    except OSError:
        raise Unavailable(
            f"'{host}' does not look like MySQL: it took the connection and did not greet.", "Check host and port."
        ) from None


def _offered(greeting: bytes) -> bool:
    """Whether a greeting, which begins with a 10, a version and a zero, says that the server has TLS. An error in its
    place is told by the login, which meets it, too."""
    _, zero, rest = greeting.partition(b"\0")
    place = 4 + _SCRAMBLE
    if greeting[:1] != b"\x0a" or not zero or len(rest) < place + 2:
        return True
    return bool(int.from_bytes(rest[place : place + 2], "little") & _SSL)
