"""HTTP as drivers speak it: the address that was checked is the one connected to, no redirect carries a credential to
another host, and no error holds a URL."""

from __future__ import annotations

import base64
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import httpcore

from bettong.domain.drivers import Egress
from bettong.drivers import egress as reach
from bettong.drivers.layers import HANDSHAKE_S
from bettong.drivers.packing import inflated
from bettong.errors import BadInput, TooLarge, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Mapping

MAX_REDIRECTS = 5
MAX_SMALL_BYTES = 4 * 2**20
ANYWHERE = Egress()
_OPEN_HEADERS = frozenset({"accept", "accept-encoding", "user-agent"})  # what another host may be told
_AGENT = "bettong"
_PLAIN = "/%:@!$&'()*+,;=~-._"  # stands in a path or query as it is


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL. Credentials that stood in it are in `login`, never in a text."""

    secure: bool
    host: str
    port: int
    target: str  # path and query
    login: tuple[str, str] | None

    def __repr__(self) -> str:  # path and query may hold a token
        return f"Address({self.host}:{self.port})"

    @property
    def origin(self) -> tuple[bool, str, int]:
        return self.secure, self.host, self.port


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and headers of an answer, and its body as it comes, content coding taken off."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    chunks: Iterator[bytes]
    path: str  # of the last redirect: its extension tells a format


def parse(url: str) -> Address:
    """Raises BadInput for what is no http:// or https:// URL, without repeating it."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
        host = parts.hostname.encode("idna").decode() if parts.hostname else ""
    except (ValueError, UnicodeError):
        parts, port, host = urlsplit(""), None, ""
    if parts.scheme not in ("http", "https") or not host:
        raise BadInput("The address is no URL of http:// or https://.", "Write it like https://host/path/file.json.")
    secure = parts.scheme == "https"
    path = quote(parts.path or "/", safe=_PLAIN)
    query = f"?{quote(parts.query, safe=_PLAIN + '?')}" if parts.query else ""
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Address(secure, host, port or (443 if secure else 80), path + query, login)


def host_header(address: Address) -> str:
    """What the Host header says: the port only where it is not the usual one."""
    bracketed = f"[{address.host}]" if ":" in address.host else address.host
    return bracketed if address.port == (443 if address.secure else 80) else f"{bracketed}:{address.port}"


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def tls_context(authority: str = "") -> ssl.SSLContext:
    """Trust in what this machine and certifi trust, or in `authority` (PEM) alone.

    Raises:
        BadInput: `authority` is no certificate.
    """
    if authority:
        try:
            return ssl.create_default_context(cadata=authority)
        except (ssl.SSLError, ValueError):
            raise BadInput("The authority is no certificate in PEM form.", "Paste it with its BEGIN and END.") from None
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def tls_context_for(ssl_mode: str, authority: str) -> ssl.SSLContext:
    """For details that say `verify`, or `require`: then whoever answers is believed. Raises as `tls_context` does."""
    context = tls_context(authority)
    if ssl_mode == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def shake_hands(target: reach.Target, context: ssl.SSLContext, timeout_s: float) -> str:
    """Try TLS with a server that speaks it at once; the protocol it came to. Raises Unavailable."""
    with reach.connect(target, timeout_s) as raw, secured(raw, context, target.host, timeout_s) as wrapped:
        return wrapped.version() or "TLS"


def secured(raw: socket.socket, context: ssl.SSLContext, host: str, timeout_s: float) -> ssl.SSLSocket:
    """TLS over a connection, whose waits take `timeout_s` from then on; those of the handshake at most `HANDSHAKE_S`.

    Raises Unavailable when it does not come about; the connection is closed then.
    """
    raw.settimeout(min(timeout_s, HANDSHAKE_S))
    try:
        wrapped = context.wrap_socket(raw, server_hostname=host)
    except OSError as failed:  # among them what ssl raises
        raw.close()
        raise tls_failed(host, failed) from None
    wrapped.settimeout(timeout_s)
    return wrapped


def tls_failed(host: str, failed: BaseException) -> Unavailable:
    """The words for a handshake that did not come about."""
    if isinstance(failed, ssl.SSLCertVerificationError):
        why = {
            10: "its certificate has expired",
            18: "its certificate is signed by itself",
            19: "its certificate comes from an authority that nobody here knows",
            20: "its certificate comes from an authority that nobody here knows",
            62: "its certificate is for another name",
            64: "its certificate is for another name",  # the same, of an address
        }.get(failed.verify_code, "its certificate does not hold")
        return Unavailable(
            f"'{host}' cannot be trusted: {why}.", "Use the name in the certificate, or give its authority."
        )
    if isinstance(failed, TimeoutError):
        return Unavailable(
            f"'{host}' did not answer the TLS handshake.",
            "Perhaps it speaks no TLS there: check the port, or turn TLS off in the details, such as ssl=disable.",
        )
    return Unavailable(f"'{host}' does not speak TLS there.", "Check the port, or use the form without TLS.")


class Client:
    """Connections to checked addresses, kept for further requests. Close it, or use it as a context."""

    def __init__(self, egress: Egress, timeout_s: float, context: ssl.SSLContext | None = None) -> None:
        self._timeout_s = timeout_s
        self._pool = httpcore.ConnectionPool(
            ssl_context=context or tls_context(), network_backend=_Checked(egress), max_connections=4
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def send(
        self,
        method: str,
        address: Address,
        headers: Mapping[str, str],
        content: bytes | Iterator[bytes] | None = None,
        *,
        max_bytes: int,
    ) -> Iterator[Answer]:
        """One request and its answer; redirects are answers. Raises as `get` does."""
        sent = {"accept": "*/*", "accept-encoding": "gzip", "user-agent": _AGENT, **_lowered(headers)}
        with self._asked(method, address, sent, content) as response:
            answered = {name.decode("latin-1").lower(): v.decode("latin-1") for name, v in response.headers}
            chunks = _unpacked(_read(response, address.host, self._timeout_s), answered)
            yield Answer(response.status, answered, _bounded(chunks, max_bytes), urlsplit(address.target).path)

    @contextmanager
    def _asked(
        self, method: str, address: Address, headers: Mapping[str, str], content: bytes | Iterator[bytes] | None
    ) -> Iterator[httpcore.Response]:
        url = httpcore.URL(
            scheme=b"https" if address.secure else b"http",
            host=address.host.encode(),
            port=address.port,
            target=address.target.encode(),
        )
        # As bytes: of texts httpcore takes no more than ASCII, and servers do.
        given = [(name.encode(), value.encode()) for name, value in {"host": host_header(address), **headers}.items()]
        waits = dict.fromkeys(("connect", "read", "write", "pool"), self._timeout_s)
        try:
            with self._pool.stream(
                method, url, headers=given, content=content, extensions={"timeout": waits}
            ) as response:
                yield response
                return
        except (
            httpcore.NetworkError,
            httpcore.TimeoutException,
            httpcore.ProtocolError,
            UnicodeError,
            ValueError,
        ) as failed:
            translated = _translated(failed, address.host, self._timeout_s)
        raise translated


@contextmanager
def get(
    url: str,
    headers: Mapping[str, str],
    egress: Egress,
    timeout_s: float,
    *,
    max_bytes: int,
    context: ssl.SSLContext | None = None,
) -> Iterator[Answer]:
    """GET, redirects followed within the egress policy. `timeout_s` bounds each wait, `max_bytes` the unpacked body.

    `headers` go to the host of `url` alone; after a redirect to another one, only those that say nothing.

    Raises:
        BadInput: not a URL, a host out of reach, too many redirects, or one from https to http.
        TooLarge: while reading: the body is longer than `max_bytes`.
        Unavailable: no connection, no TLS, no answer, or one that breaks off.
    """
    address = parse(url)
    sent = _lowered(headers)
    if address.login and "authorization" not in sent:
        sent["authorization"] = basic(*address.login)
    with Client(egress, timeout_s, context) as client:
        for _ in range(MAX_REDIRECTS + 1):
            with client.send("GET", address, sent, max_bytes=max_bytes) as answer:
                place = answer.headers.get("location")
                if answer.status not in (301, 302, 303, 307, 308) or place is None:
                    yield answer
                    return
            there = parse(urljoin(_text(address), place))
            if address.secure and not there.secure:
                raise BadInput(f"'{address.host}' redirects to an address without TLS.", "Use its new address.")
            if there.origin != address.origin:
                sent = {name: value for name, value in sent.items() if name in _OPEN_HEADERS}
            address = there
    raise BadInput(f"'{address.host}' redirects more than {MAX_REDIRECTS} times.", "Use the last address.")


def send_small(
    method: str, url: str, headers: Mapping[str, str], content: bytes, timeout_s: float
) -> tuple[int, bytes]:
    """Status and body of something that the operator named, wherever it is; redirects are answers. Raises as `get`."""
    sized = {**headers, "content-length": str(len(content))} if content else headers
    with (
        Client(ANYWHERE, timeout_s, _trust()) as client,
        client.send(method, parse(url), sized, content or None, max_bytes=MAX_SMALL_BYTES) as answer,
    ):
        return answer.status, b"".join(answer.chunks)


@cache
def _trust() -> ssl.SSLContext:
    """Made once, since it takes 40 ms: what the machine trusts later counts from the next start on."""
    return tls_context()


class _Checked(httpcore.NetworkBackend):
    """Resolves a name once, checks what it gave, and connects to just that. TLS still asks for the name."""

    def __init__(self, egress: Egress) -> None:
        self._egress, self._backend = egress, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        target = reach.resolve(host, port, self._egress)
        until = time.monotonic() + (timeout or 60.0)
        for n, address in enumerate(target.addresses, 1):
            left = max(0.1, until - time.monotonic())
            try:
                return self._backend.connect_tcp(address, port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if n == len(target.addresses):
                    raise
        raise AssertionError("a name that resolves has an address")


def _read(response: httpcore.Response, host: str, timeout_s: float) -> Iterator[bytes]:
    try:
        yield from response.iter_stream()
        return
    except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as failed:
        translated = _translated(failed, host, timeout_s)
    raise translated


def _translated(failed: Exception, host: str, timeout_s: float) -> BadInput | Unavailable:
    cause = failed.__cause__ or failed.__context__
    if isinstance(failed, (UnicodeError, ValueError, httpcore.LocalProtocolError)):
        return BadInput("A header of this connection holds a character that HTTP does not allow.", "Correct it.")
    if isinstance(cause, ssl.SSLError):
        return tls_failed(host, cause)
    if isinstance(failed, httpcore.TimeoutException):
        return Unavailable(f"'{host}' did not answer within {timeout_s:g} s.", "Try again, or look at that server.")
    if isinstance(failed, httpcore.ConnectError):
        return Unavailable(f"'{host}' takes no connection.", "Check host and port, and that the service runs.")
    if isinstance(failed, httpcore.RemoteProtocolError):
        return Unavailable(f"'{host}' broke its answer off, or it was no HTTP.", "Try again, or look at that server.")
    return Unavailable(f"The connection to '{host}' broke.", "Try again.")


def _unpacked(chunks: Iterable[bytes], headers: Mapping[str, str]) -> Iterator[bytes]:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from chunks
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise Unavailable("The answer has a content coding that was not asked for.", "Use a server that sends gzip.")
    yield from inflated(chunks)


def _bounded(chunks: Iterator[bytes], max_bytes: int) -> Iterator[bytes]:
    seen = 0
    for chunk in chunks:
        seen += len(chunk)
        if seen > max_bytes:
            raise TooLarge(
                f"The answer is longer than {max_bytes} bytes.", "Read a part of it, or raise max_bytes in the details."
            )
        if chunk:
            yield chunk


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _text(address: Address) -> str:
    return f"{'https' if address.secure else 'http'}://{host_header(address)}{address.target}"
