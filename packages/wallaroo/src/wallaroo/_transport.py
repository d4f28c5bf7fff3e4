"""The one place that talks HTTP. Foreign errors end here: an httpx exception may carry a URL, and a URL a secret."""

from __future__ import annotations

import json
import os
import ssl
import sys
import threading
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from http.client import HTTPException
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import httpx

from wallaroo._direct import Connections, Refused
from wallaroo._version import __version__
from wallaroo._wait import watched
from wallaroo.auth import Auth, NoAuth
from wallaroo.object import CommunicationError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

E = TypeVar("E", bound=WallarooAPIError)

PROGRESS_FROM_BYTES = 8 * 2**20
UPLOAD_ANSWER_TIMEOUT_S = 600.0  # the server hashes and checks the file before it answers
CONNECT_TIMEOUT_S = 3.0  # an address that is not to be had is given up for the next one
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_START_IT = "Run `bettong up` and call again, or make a new wallaroo.Client(), which starts the platform."


@dataclass(frozen=True)
class Reply:
    """An answer of any status."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Loss(Enum):
    """Why a request has no answer."""

    REFUSED = "nothing accepts connections there"
    DROPPED = "the connection ended before the answer"
    TIMED_OUT = "no answer in time"


@dataclass(frozen=True)
class InferenceRequest:
    """One inference as it goes over the wire. `instead` makes the one to send when this one is refused with 400."""

    content: bytes
    headers: Mapping[str, str]
    params: tuple[tuple[str, str], ...] = ()
    instead: Callable[[], InferenceRequest] | None = None


class Lodging(Protocol):
    """Where a platform of this machine lives, which may move."""

    def url_now(self) -> str | None:
        """Its address; None when it does not run."""
        ...

    def owns(self, url: str) -> bool:
        """Whether that is still its address, as far as this machine can tell without asking there."""
        ...


def new_request_id() -> str:
    return str(uuid.uuid4())


def error_of(kind: type[E], reply: Reply, prefix: str | None = None) -> E:
    """The error that an answer of 400 or more means: an engine's body, a control plane's, or plain text."""
    text = reply.content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        return kind(reply.status, error=text.strip()[:2000], prefix=prefix)
    code = body.get("code") if isinstance(body.get("code"), int) else reply.status
    if "msg" in body:
        return kind(int(code or reply.status), error=str(body["msg"]), response=body, prefix=prefix)
    return kind(
        int(code or reply.status),
        str(body.get("status") or "error"),
        str(body.get("error") or ""),
        str(body.get("source") or ""),
        body,
        prefix,
    )


class Transport:
    """Calls one platform. Raises CommunicationError or WallarooAPIError, never anything of httpx.

    Args:
        endpoint: `http://HOST:PORT`.
        timeout_s: for a call, unless it has its own.
        lodging: of a platform of this machine: asked where it runs when nothing listens at the endpoint any more, and
            whether it is still there before it gets an API token.

    Raises:
        ValueError: `endpoint` is no HTTP address.
    """

    def __init__(self, endpoint: str, timeout_s: float, lodging: Lodging | None = None) -> None:
        self.endpoint, self.shown_endpoint = _address(endpoint)
        self.timeout_s = timeout_s
        self._lodging = lodging
        self.auth: Auth = NoAuth()
        self._http = _new_http(self.endpoint)
        self._open: httpx.Client | None = None
        self._inference = _Pool(self.endpoint)
        self._direct = Connections()

    def close(self) -> None:
        """End all connections. The object can't be used afterwards."""
        self._http.close()
        if self._open is not None:
            self._open.close()
        self._inference.close()
        self._direct.drop()

    def post(self, path: str, body: Mapping[str, Any] | None = None, *, timeout_s: float | None = None) -> Any:
        """POST a JSON object; the answer's JSON, None for an empty one."""
        reply = self._call("POST", path, timeout_s=timeout_s, json=dict(body or {}))
        return _json(reply, path)

    def get(self, path: str, *, authorized: bool = True, timeout_s: float | None = None) -> Any:
        return _json(self._call("GET", path, authorized=authorized, timeout_s=timeout_s), path)

    def post_raw(
        self,
        path: str,
        params: Sequence[tuple[str, str]],
        accept: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> bytes:
        """POST a JSON object and take the answer's bytes, in the format asked for."""
        headers = {"Accept": accept}
        return self._call(
            "POST", path, timeout_s=timeout_s, params=list(params), json=dict(body or {}), headers=headers
        ).content

    @contextmanager
    def stream(
        self, path: str, body: Mapping[str, Any] | None, accept: str, *, timeout_s: float
    ) -> Generator[Iterator[bytes], None, None]:
        """POST a JSON object (GET without one) and take the answer's bytes as they come; leaving the block ends it.

        `timeout_s` bounds the time to each piece. Raises CommunicationError, from the pieces too, or WallarooAPIError.
        """
        with self._streamed(path, body, accept, timeout_s) as response:
            yield _pieces(response, f"{'GET' if body is None else 'POST'} {path} to {self.shown_endpoint}")

    def post_stream(
        self, path: str, params: Sequence[tuple[str, str]], content: Iterable[bytes], kind: str, *, timeout_s: float
    ) -> Any:
        """POST bytes as they are made; the answer's JSON. Not made again when the login had run out meanwhile."""
        reply = self._call(
            "POST", path, timeout_s=timeout_s, params=list(params), content=content, headers={"Content-Type": kind}
        )
        return _json(reply, path)

    def exchange(self, token: str) -> Mapping[str, Any]:
        """An access token for a token, and whose it is.

        Raises CommunicationError, and keeps the token here, when the platform of this machine is gone: another program
        may listen at its address by now.
        """
        if not (self._is_home() or (self._follow() and self._is_home())):
            raise CommunicationError(f"The platform of this machine is no longer at {self.shown_endpoint}. {_START_IT}")
        headers = {"Authorization": f"Bearer {token}"}
        reply = self._call("POST", "/v1/api/auth/token", authorized=False, json={}, headers=headers)
        answer: Mapping[str, Any] = _json(reply, "/v1/api/auth/token")
        return answer

    def upload(self, path: str, metadata: Mapping[str, Any], file: Path) -> Any:
        """Send a file from disk, in pieces, behind its metadata; a big one shows its progress to a person."""
        with file.open("rb") as opened:
            size = os.fstat(opened.fileno()).st_size
            shown = size > PROGRESS_FROM_BYTES and watched()
            source: Any = _Progress(opened, size) if shown else opened
            parts = [
                ("metadata", (None, json.dumps(metadata), "application/json")),
                ("file", (file.name, source, "application/octet-stream")),
            ]
            return _json(self._call("POST", path, timeout_s=UPLOAD_ANSWER_TIMEOUT_S, files=parts), path)

    def infer(self, url: str, request: InferenceRequest, request_id: str, timeout_s: float) -> Reply | Loss:
        """Send one inference to one address; an answer of any status, or why there is none."""
        headers = self.inference_headers(request, request_id)
        there = _url(url, request.params)
        if there.scheme == "http" and there.host in _LOOPBACK and not os.environ.get("WALLAROO_DEBUG_HTTPX"):
            return self._infer_here(there, request, headers, timeout_s)
        with self._inference.lease() as http:
            try:
                response = http.post(
                    there, content=request.content, headers=headers, timeout=inference_timeout(timeout_s)
                )
            except httpx.HTTPError as error:
                return loss_of(error)
            return Reply(response.status_code, response.headers, response.content)

    def _infer_here(
        self, url: httpx.URL, request: InferenceRequest, headers: Mapping[str, str], timeout_s: float
    ) -> Reply | Loss:
        """The same to a replica of this machine."""
        connect_s = min(timeout_s, CONNECT_TIMEOUT_S)
        try:
            answer = self._direct.post(
                url.host,
                url.port or 80,
                url.raw_path.decode("ascii"),
                request.content,
                headers,
                connect_timeout_s=connect_s,
                timeout_s=timeout_s,
            )
        except Refused:
            return Loss.REFUSED
        except TimeoutError:
            return Loss.TIMED_OUT
        except (OSError, HTTPException):
            return Loss.DROPPED
        return Reply(*answer)

    async def async_infer(
        self, http: httpx.AsyncClient, url: str, request: InferenceRequest, headers: Mapping[str, str], timeout_s: float
    ) -> Reply | Loss:
        """The same over a client of the caller's; `headers` are those of `inference_headers`."""
        try:
            response = await http.post(
                _url(url, request.params),
                content=request.content,
                headers=dict(headers),
                timeout=inference_timeout(timeout_s),
            )
        except httpx.HTTPError as error:
            return loss_of(error)
        return Reply(response.status_code, response.headers, response.content)

    def new_async_http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(**_options(self.endpoint))

    def open_http(self) -> httpx.Client:
        """An ordinary client for callers of their own; it is logged in here, and ends with this object."""
        if self._open is None:
            self._open = httpx.Client(**_options(self.endpoint), headers=_CLIENT_HEADERS, timeout=self.timeout_s)
        self._open.base_url = httpx.URL(self.endpoint)
        self._open.auth = _Login(self._open.base_url, self.auth)
        return self._open

    def drop_inference_connections(self) -> None:
        """The next inference opens a new connection; those in flight end in peace."""
        self._inference.drop()
        self._direct.drop()

    def inference_headers(self, request: InferenceRequest, request_id: str) -> dict[str, str]:
        return {**_CLIENT_HEADERS, **request.headers, "X-Request-Id": request_id, **self.auth.auth_header()}

    def _call(
        self,
        method: str,
        path: str,
        *,
        authorized: bool = True,
        timeout_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        **content: Any,
    ) -> Reply:
        reply = self._send(method, path, authorized, timeout_s, headers, content)
        again = "files" not in content and "content" not in content  # what was sent from a file or a stream is gone
        if reply.status == 401 and authorized and again and self.auth.renew():
            reply = self._send(method, path, authorized, timeout_s, headers, content)
        if reply.status >= 400:
            raise error_of(WallarooAPIError, reply)
        return reply

    def _send(
        self,
        method: str,
        path: str,
        authorized: bool,
        timeout_s: float | None,
        headers: Mapping[str, str] | None,
        content: Mapping[str, Any],
    ) -> Reply:
        login = self.auth.auth_header() if authorized else {}
        limit_s = self.timeout_s if timeout_s is None else timeout_s

        def once() -> Reply | Loss:
            try:
                response = self._http.request(
                    method,
                    f"{self.endpoint}{path}",
                    headers={**_CLIENT_HEADERS, **login, **(headers or {})},
                    timeout=httpx.Timeout(limit_s, connect=min(limit_s, 10.0)),
                    **content,
                )
            except httpx.HTTPError as error:
                return loss_of(error)
            return Reply(response.status_code, response.headers, response.content)

        outcome = once()
        if outcome is Loss.REFUSED and self._follow():  # nobody has taken the request, so it may be made again
            outcome = once()
        if isinstance(outcome, Loss):
            raise CommunicationError(self._in_words(f"{method} {path}", outcome, limit_s))
        return outcome

    @contextmanager
    def _streamed(
        self, path: str, body: Mapping[str, Any] | None, accept: str, timeout_s: float
    ) -> Generator[httpx.Response, None, None]:
        """An answer whose body is still to come. A login that ran out is renewed, a platform that moved is followed."""
        timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, 10.0))
        renewed = followed = False
        method = "GET" if body is None else "POST"
        sent: dict[str, Any] = {} if body is None else {"json": dict(body)}
        while True:
            headers = {**_CLIENT_HEADERS, "Accept": accept, **self.auth.auth_header()}
            asked = self._http.build_request(method, f"{self.endpoint}{path}", headers=headers, timeout=timeout, **sent)
            try:
                response = self._http.send(asked, stream=True)
            except httpx.HTTPError as error:
                loss = loss_of(error)
                if loss is Loss.REFUSED and not followed and self._follow():
                    followed = True
                    continue
                raise CommunicationError(self._in_words(f"{method} {path}", loss, timeout_s)) from None
            try:
                if response.status_code < 400:
                    yield response
                    return
                refused = _whole(response)
            finally:
                response.close()
            if refused.status == 401 and not renewed and self.auth.renew():
                renewed = True
                continue
            raise error_of(WallarooAPIError, refused)

    def _is_home(self) -> bool:
        return self._lodging is None or self._lodging.owns(self.endpoint)

    def _follow(self) -> bool:
        """Go where the platform runs now. False: it was named by its address, or runs nowhere."""
        url = self._lodging.url_now() if self._lodging else None
        if url is None:
            return False
        self.endpoint, self.shown_endpoint = _address(url)
        return True

    def _in_words(self, call: str, loss: Loss, limit_s: float) -> str:
        how_long = f" ({limit_s:g} s)" if loss is Loss.TIMED_OUT else ""
        if loss is Loss.REFUSED and self._lodging:
            advice = _START_IT
        else:
            advice = "See whether the platform runs (`bettong status`), then try again."
        return f"{call} to {self.shown_endpoint}: {loss.value}{how_long}. {advice}"


def _pieces(response: httpx.Response, call: str) -> Iterator[bytes]:
    try:
        yield from response.iter_raw()
    except httpx.HTTPError as error:
        raise CommunicationError(f"{call}: {loss_of(error).value}. Look at the platform, then try again.") from None


def _whole(response: httpx.Response) -> Reply:
    try:
        return Reply(response.status_code, response.headers, response.read())
    except httpx.HTTPError:
        return Reply(response.status_code, response.headers, b"")


@lru_cache(maxsize=64)
def _url(url: str, params: tuple[tuple[str, str], ...]) -> httpx.URL:
    """An address with its query: the same few over and over, and 0.1 ms to parse anew."""
    return httpx.URL(url).copy_merge_params(params) if params else httpx.URL(url)


def loss_of(error: httpx.HTTPError) -> Loss:
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol)):
        return Loss.REFUSED
    if isinstance(error, httpx.TimeoutException):
        return Loss.TIMED_OUT
    return Loss.DROPPED


def inference_timeout(timeout_s: float) -> httpx.Timeout:
    return httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S))


class _Login(httpx.Auth):
    """The login on calls to the platform, never on calls to anyone else; a refused token is renewed once."""

    def __init__(self, platform: httpx.URL, auth: Auth) -> None:
        self._platform, self._auth = platform, auth

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        there = self._platform
        if (request.url.scheme, request.url.host, request.url.port) != (there.scheme, there.host, there.port):
            yield request
            return
        request.headers.update(self._auth.auth_header())
        response = yield request
        if response.status_code == 401 and self._auth.renew():
            request.headers.update(self._auth.auth_header())
            yield request


class _Pool:
    """Connections to replicas. After `drop`, new requests use new ones; old ones are closed when nobody uses them."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._http = _new_http(endpoint)
        self._users: dict[httpx.Client, int] = {self._http: 0}

    @contextmanager
    def lease(self) -> Iterator[httpx.Client]:
        with self._lock:
            http = self._http
            self._users[http] += 1
        try:
            yield http
        finally:
            with self._lock:
                self._users[http] -= 1
                self._close_unused()

    def drop(self) -> None:
        with self._lock:
            self._http = _new_http(self._endpoint)
            self._users[self._http] = 0
            self._close_unused()

    def close(self) -> None:
        with self._lock:
            for http in self._users:
                http.close()

    def _close_unused(self) -> None:
        for http in [http for http, users in self._users.items() if not users and http is not self._http]:
            del self._users[http]
            http.close()


class _Progress:
    """A file that shows how much of it was read, on one line."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size, self._percent = file, size, -1

    def read(self, count: int = -1) -> bytes:
        chunk = self._file.read(count)
        percent = 100 * self._file.tell() // self._size
        if percent != self._percent:
            self._percent = percent
            end = "\n" if percent == 100 else ""
            sys.stdout.write(f"\rUploading {self._size / 2**20:.1f} MiB: {percent:3d}%{end}")
            sys.stdout.flush()
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


_CLIENT_HEADERS = {"User-Agent": f"WallarooSDK/{__version__}", "X-Bettong-Client": f"wallaroo/{__version__}"}


def _new_http(endpoint: str) -> httpx.Client:
    return httpx.Client(**_options(endpoint))


def _options(endpoint: str) -> dict[str, Any]:
    url = httpx.URL(endpoint)
    options: dict[str, Any] = {"follow_redirects": False, "limits": httpx.Limits(keepalive_expiry=30.0)}
    if url.host in _LOOPBACK:
        options["trust_env"] = False  # a proxy of the environment has no business between us and this machine
    if url.scheme == "http":
        # Reading the trusted certificates takes longer than a call. This context trusts none, and is never asked.
        options["verify"] = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if os.environ.get("WALLAROO_DEBUG_HTTPX"):
        options["event_hooks"] = {"request": [_show_request]}
    return options


def _show_request(request: httpx.Request) -> None:
    sys.stderr.write(f"{request.method} {request.url.path}\n")


def is_address(endpoint: str) -> bool:
    try:
        url = httpx.URL(endpoint)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host)


def _address(endpoint: str) -> tuple[str, str]:
    """An endpoint for calls, and for people: without a user or password in it."""
    if not is_address(endpoint):
        raise ValueError("api_endpoint (or WALLAROO_URL) is no HTTP address. Write it as http://HOST:PORT.")
    url = httpx.URL(endpoint)
    return endpoint.rstrip("/"), f"{url.scheme}://{url.netloc.decode('ascii')}"


def _json(reply: Reply, path: str) -> Any:
    if not reply.content:
        return None
    try:
        return json.loads(reply.content)
    except ValueError:
        raise CommunicationError(f"{path} answered {reply.status} with something that is not JSON.") from None
