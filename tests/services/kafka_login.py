"""A login in front of a Kafka that has none: nobody gets through to it who does not prove a password by SASL.

No broker that runs here takes a good login: Tansu in memory forgets its users as it is told of them. So this speaks the
broker's part of PLAIN (RFC 4616) and SCRAM (RFC 5802), whose proofs librdkafka checks, and hands the rest on.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket
import struct
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from services.tls_front import pump

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

USER, PASSWORD = "a,user=1", "the broker's secret ~&,="
MECHANISMS = {"PLAIN": "", "SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}
_ROUNDS = 4096
_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36
_UNSUPPORTED, _REFUSED = 33, 58


class _Refused(Exception):
    pass


@dataclass
class Login:
    """What the login does: `knows` the password or only claims so, takes some `mechanisms`; `heard` is what came."""

    knows: bool = True
    mechanisms: tuple[str, ...] = tuple(MECHANISMS)
    heard: bytearray = field(default_factory=bytearray)
    let_in: int = 0


@contextmanager
def login_in_front(port: int, behind: int, context: ssl.SSLContext | None = None) -> Iterator[Login]:
    """Takes connections on `port` of loopback, over TLS with a `context`, for a broker at port `behind`."""
    login = Login()
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=_serve, args=(listening, behind, context, login), daemon=True).start()
        yield login
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, behind: int, context: ssl.SSLContext | None, login: Login) -> None:
    with suppress(OSError):  # the end
        while True:
            raw, _ = listening.accept()
            threading.Thread(target=_joined, args=(raw, behind, context, login), daemon=True).start()


def _joined(raw: socket.socket, behind: int, context: ssl.SSLContext | None, login: Login) -> None:
    with (
        suppress(OSError),  # whoever ends or breaks off ends both
        closing(raw if context is None else context.wrap_socket(raw, server_side=True)) as front,
        socket.create_connection(("127.0.0.1", behind)) as back,
    ):
        if not _Admission(front, back, login).granted():
            return
        login.let_in += 1
        other = threading.Thread(target=pump, args=(back, front), daemon=True)
        other.start()
        pump(front, back)
        other.join()


class _Admission:
    """The requests of one connection, up to the one that proves the password."""

    def __init__(self, front: socket.socket, back: socket.socket, login: Login) -> None:
        self._front, self._back, self._login = front, back, login
        self._proof: _Plain | _Scram | None = None

    def granted(self) -> bool:
        while True:
            frame = _frame(self._front)
            self._login.heard += frame
            api, version, self._number, name_bytes = struct.unpack_from(">hhih", frame)
            body = frame[10 + max(0, name_bytes) :]
            if api == _API_VERSIONS:  # the broker itself says what it can
                self._back.sendall(struct.pack(">i", len(frame)) + frame)
                told = _frame(self._back)
                self._front.sendall(struct.pack(">i", len(told)) + told)
            elif api == _HANDSHAKE:
                if not self._begins(body[2:].decode()):
                    return False
            elif api == _AUTHENTICATE and version < 2 and self._proof is not None:
                ending = struct.pack(">q", 0) if version else b""
                try:
                    told, over = self._proof.step(body[4:])
                except _Refused:
                    self._answer(struct.pack(">hhi", _REFUSED, -1, 0) + ending)
                    return False
                self._answer(struct.pack(">hhi", 0, -1, len(told)) + told + ending)
                if over:
                    return True
            else:
                return False  # without a login there is nothing to be had

    def _begins(self, mechanism: str) -> bool:
        taken = mechanism in self._login.mechanisms
        names = b"".join(struct.pack(">h", len(name)) + name.encode() for name in self._login.mechanisms)
        code = 0 if taken else _UNSUPPORTED
        self._answer(struct.pack(">hi", code, len(self._login.mechanisms)) + names)
        if taken:
            self._proof = _Plain() if mechanism == "PLAIN" else _Scram(MECHANISMS[mechanism], self._login.knows)
        return taken

    def _answer(self, body: bytes) -> None:
        self._front.sendall(struct.pack(">ii", 4 + len(body), self._number) + body)


class _Plain:
    def step(self, said: bytes) -> tuple[bytes, bool]:
        """What to answer, and whether that was all. Raises _Refused."""
        if said.split(b"\0")[1:] != [USER.encode(), PASSWORD.encode()]:
            raise _Refused
        return b"", True


class _Scram:
    def __init__(self, digest: str, knows: bool) -> None:
        self._digest, self._knows = digest, knows
        self._salt, self._first, self._served = os.urandom(16), "", ""

    def step(self, said: bytes) -> tuple[bytes, bool]:
        return self._greeted(said.decode()) if not self._first else self._proved(said.decode())

    def _greeted(self, said: str) -> tuple[bytes, bool]:
        self._first = said.removeprefix("n,,")
        fields = _fields(self._first)
        if fields["n"].replace("=2C", ",").replace("=3D", "=") != USER:
            raise _Refused
        self._nonce = fields["r"] + base64.b64encode(os.urandom(18)).decode()
        self._served = f"r={self._nonce},s={base64.b64encode(self._salt).decode()},i={_ROUNDS}"
        return self._served.encode(), False

    def _proved(self, said: str) -> tuple[bytes, bool]:
        fields, bare = _fields(said), said.rpartition(",p=")[0]
        password = PASSWORD if self._knows else "what nobody ever told"
        salted = hashlib.pbkdf2_hmac(self._digest, password.encode(), self._salt, _ROUNDS)
        talk = f"{self._first},{self._served},{bare}".encode()
        client = self._hmac(salted, b"Client Key")
        signature = self._hmac(hashlib.new(self._digest, client).digest(), talk)
        wanted = bytes(one ^ other for one, other in zip(client, signature, strict=True))
        right = fields["r"] == self._nonce and hmac.compare_digest(wanted, base64.b64decode(fields["p"]))
        if self._knows and not right:
            raise _Refused
        verifier = self._hmac(self._hmac(salted, b"Server Key"), talk)
        return b"v=" + base64.b64encode(verifier), True

    def _hmac(self, key: bytes, text: bytes) -> bytes:
        return hmac.new(key, text, self._digest).digest()


def _fields(message: str) -> dict[str, str]:
    return {part[0]: part[2:] for part in message.split(",")}


def _frame(source: socket.socket) -> bytes:
    (size,) = struct.unpack(">i", _exactly(source, 4))
    return _exactly(source, size)


def _exactly(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        if not (more := source.recv(count - len(found))):
            raise ConnectionError
        found += more
    return found
