"""uvicorn's HTTP protocol with the bounds it lacks: slow heads, slow bodies, slow readers, heads without end.

The hot path (a request that arrives whole) sets no timer: they start only when something is left waiting. And an
application that can answer such a request at once is asked before uvicorn is told of it: scope, task, events and the
answer's two messages cost 80 µs of CPU, more than a small model. What such an application has read in a head is kept
(`known_heads`): a request with the same head, whole in one read, goes past the parser. A large body of a known length
goes past it as well (`in_place`). Where it is not answered at once, it stands in its scope as `body` when its last
message comes, which has none.
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from bettong.engine.in_place import InPlace, length_in_place

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bettong.engine.known_heads import KnownHeads

    Fields = list[tuple[bytes, bytes]]

MAX_HEAD_BYTES = 64 * 2**10
# After a refusal, what the client still sends is taken: closing over it would reset the connection and lose our words.
QUIET_S, LINGER_S, LINGER_BYTES = 0.5, 2.0, 16 * 2**20
JOINED_BYTES = 64 * 2**10  # a larger answer is not copied behind its head
ASK_S = 0.5  # after which a client that closed its side, and is not answered yet, is asked whether it is there


class _Expects(Enum):
    """What a connection is waiting for from its client."""

    HEAD = auto()  # the first byte of a head, or the rest of one
    BODY = auto()
    NOTHING = auto()  # it has sent a whole request


class Prompt(Protocol):
    """An ASGI application that answers some requests without waiting for anything."""

    heads: KnownHeads  # what it has read in heads of requests that it answered at once

    def read_head(self, method: bytes, target: bytes, headers: Fields) -> Any | None:
        """What `answer_now` needs of a head, a matter of its bytes alone; None when `__call__` has to take the request,
        and always for HEAD. Never raises. Names of headers are in small letters."""

    def awaits(self, head: Any, length: int) -> bool:
        """Whether a body of so many bytes may come before anything is done for its request; else `__call__` is told of
        it now, and can refuse it. Never raises."""

    def answer_now(self, head: Any, body: bytes) -> tuple[int, Fields, bytes | memoryview] | None:
        """Status, headers and body of the answer to a whole request; None when `__call__` has to take it: nothing was
        done then. Never raises."""


class Departure:
    """Of a client: in the scope of each of its requests, as `departure`. Set `then` to what is to be done when it is
    gone before its answer; nothing more is done for it afterwards."""

    __slots__ = ("then",)

    def __init__(self) -> None:
        self.then: Callable[[], None] | None = None


class Bounds(Protocol):
    """How long a client may keep us waiting. A deployment file has these, and so have the platform's settings."""

    @property
    def head_timeout_s(self) -> float: ...
    @property
    def body_idle_timeout_s(self) -> float: ...


def guarded(bounds: Bounds, *, max_head_bytes: int = MAX_HEAD_BYTES) -> type[HttpToolsProtocol]:
    """A protocol class for `uvicorn.Config(http=…)` that ends connections which keep us waiting.

    - A head must be there `head_timeout_s` after its first byte (after the connection, for the first one): else 408.
    - A body may pause for `body_idle_timeout_s`: else 408. Time in which we do not read does not count.
    - A client that takes no byte of its answer for `body_idle_timeout_s` is cut off.
    - A head, its trailers and chunk headers included, may have `max_head_bytes`: else 431.

    Each of these ends the connection; an application that is reading sees `http.disconnect`.

    A request that asks for an upgrade is answered as if it had not asked: nothing here is upgraded to. A client that
    closes its side after a whole request gets its answer; one that is gone altogether is noticed a second later.
    """

    class Guarded(_GuardedProtocol):
        pass

    Guarded.head_timeout_s = bounds.head_timeout_s
    Guarded.body_idle_timeout_s = bounds.body_idle_timeout_s
    Guarded.max_head_bytes = max_head_bytes
    return Guarded


class _TooLong(Exception):
    """A head beyond its limit; the parser wraps it, and the protocol answers 431."""


class _GuardedProtocol(HttpToolsProtocol):  # type: ignore[misc]  # uvicorn is untyped to us
    head_timeout_s: float
    body_idle_timeout_s: float
    max_head_bytes: int
    parser: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._expects = _Expects.HEAD
        self._begun = False  # the first byte of a request is here, and not yet its last
        self._head_bytes = 0
        self._body_bytes = 0
        self._refusal: HTTPStatus | None = None
        self._plain_head: bytes | None = None  # of a request that asked for an upgrade, without that
        self._lingers: _Linger | None = None  # once refused
        self._reading: asyncio.TimerHandle | None = None
        self._reading_for: _Expects | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._prompt: Any = self.app if hasattr(self.app, "answer_now") else None
        self._heads: KnownHeads | None = self._prompt.heads if self._prompt is not None else None
        self._told = True  # uvicorn knows of the request that is coming in
        self._held: list[bytes] = []  # the body so far of one that it does not know of
        self._answered = False  # a request was answered at once under this `data_received`
        self._read_head: Any = None  # what the application read in its head, when that went well
        self._awaiting: Any = None  # the same of a request whose body is received in place, until it is whole
        self._asking: asyncio.TimerHandle | None = None  # whether a client that closed its side is still there
        self._departure = Departure()
        self._idle_since: float | None = None  # after an answer at once; uvicorn times its own
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait_for(_Expects.HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingers is not None:
            self._lingers.stop()
        self._stop_waiting()
        self._stop_write_watch()
        self._unset_keepalive_if_required()
        for timer in (self._idle, self._asking):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)
        if self._departure.then is not None:
            self._departure.then()

    def data_received(self, data: bytes) -> None:
        if self._lingers is not None:
            self._lingers.take(len(data))
            return
        if self._heads is not None and not self._begun and self._is_free() and self._answer_known(data):
            return
        begun, body_before, self._answered, self._idle_since = self._begun, self._body_bytes, False, None
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except HttpParserError:
            self.send_400_response("")
        if self._answered and self._expects is _Expects.NOTHING:  # the whole of what came, and keep-alive has begun
            if self._reading is not None:
                self._stop_waiting()
            if not begun and self._read_head is not None and self._idle_since is not None:
                assert self._heads is not None
                self._heads.keep(data, self.headers, self._read_head)
            return
        if self.transport.is_closing() or self._lingers is not None:
            self._stop_waiting()
            return
        if self._expects is _Expects.BODY:  # it has not come whole
            if not self._told and not _has_path(self.url):  # of a whole one the parser says so
                self.send_400_response("")
                return
            if self._fill():
                return
            self._hand_on()
        if self._expects is not _Expects.NOTHING and self._body_bytes == body_before:
            self._head_bytes += len(data)  # of a head, trailer or chunk header that is not complete yet
            if self._head_bytes > self.max_head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
                return
        if self._expects is _Expects.BODY:
            self._wait_for(_Expects.BODY)
        elif self._expects is _Expects.HEAD:
            if self._reading_for is not _Expects.HEAD:
                self._wait_for(_Expects.HEAD)
        elif self.cycle is None or self.cycle.response_complete:
            # answered already, and what came since (blank lines) began no new request
            if self._reading_for is not _Expects.HEAD:
                self._wait_for(_Expects.HEAD)
        else:
            self._stop_waiting()

    def eof_received(self) -> bool:
        """Whether the connection stays open for answers that are on their way; it is closed after the last one."""
        owes = self._expects is _Expects.NOTHING and self.cycle is not None and not self.cycle.response_complete
        if owes:
            self.cycle.keep_alive = False  # the last one's: those before it are answered first
            self._asking = self.loop.call_later(ASK_S, self._ask_whether_there)
        return owes

    def shutdown(self) -> None:
        """Close the connection, after the answer to a request whose head is here."""
        if self._awaiting is not None:
            self._awaiting = None
            self._hand_on()
        super().shutdown()

    def _ask_whether_there(self) -> None:
        """A client that has closed its side may wait for its answer, or be gone. One that is gone refuses what it is
        sent, so it is sent an interim response, which others skip; the next one finds the connection reset."""
        self._asking = None
        if self.cycle.response_complete or self.transport.is_closing():
            return
        if not self.pipeline and not self.cycle.response_started and self.parser.get_http_version() == "1.1":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._asking = self.loop.call_later(ASK_S, self._ask_whether_there)

    def _parse(self, data: bytes) -> None:
        """Feed the parser. It takes a body for bytes of the other protocol when an upgrade is asked for, and what comes
        after them for the next request, so such a request goes through a new one, as RFC 9110 7.8 lets us answer it.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except HttpParserUpgrade as asked:
                if self._plain_head is None:
                    raise HttpParserError("a method that upgrades by itself") from None
                data = self._plain_head + data[asked.args[0] :]
                self._plain_head = None
                self._renew_parser()

    def _renew_parser(self) -> None:
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the first one of uvicorn's

    # --- a large body

    def _fill(self) -> bool:
        """Whether the rest of a body is received in place from now on, and its application told when it is whole."""
        if self._prompt is None or self._told:
            return False
        if (length := length_in_place(self.headers, self._held)) is None:
            return False
        place, self._held = InPlace(self, length, self._held), []
        head = self._prompt.read_head(self.parser.get_method(), self.url, self.headers)
        if head is not None and self._prompt.awaits(head, length):
            self._awaiting = head
        else:
            self._hand_on()
        self.transport.set_protocol(place)
        self._wait_for(_Expects.BODY)
        return True

    def came(self) -> None:
        if self.timeout_keep_alive_task is not None:  # it was answered before its body was here
            self._unset_keepalive_if_required()
        self._wait_for(_Expects.BODY)

    def filled(self, body: bytearray) -> None:
        self.transport.set_protocol(self)
        self._expects, self._begun = _Expects.NOTHING, False
        self._stop_waiting()
        head, self._awaiting = self._awaiting, None
        answered = head is not None and self._answer_awaited(head, body)
        self._hand_on()
        self._renew_parser()  # the one before still waits for the body
        if answered:
            self._let_others()
            return
        if self.cycle.response_complete:
            self._wait_for(_Expects.HEAD)
            return
        self.scope["body"], self.cycle.more_body = body, False  # uvicorn would copy it into its message
        self.cycle.message_event.set()

    def _let_others(self) -> None:
        """Read nothing more in this turn of the loop: uvloop reads on from a client whose bytes filled its buffer, one
        request after another, while others wait (four clients with images: a p99 of 130 ms instead of 27)."""
        if not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    # --- what the parser tells

    def on_message_begin(self) -> None:
        self._expects, self._begun, self._head_bytes = _Expects.HEAD, True, 0
        if self._reading_for is _Expects.BODY:
            self._stop_waiting()
        # what uvicorn does, but for the scope: most requests never need one
        self.url, self.expect_100_continue = b"", False
        self.headers: Fields = []
        self._told = False

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        size = self._head_bytes + len(name) + len(value) + 4
        if size > self.max_head_bytes:
            self._count(size)
        self._head_bytes = size
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        if parser.should_upgrade() and parser.get_method() != b"CONNECT":
            version, fields = parser.get_http_version(), [h for h in self.headers if h[0] != b"upgrade"]
            self._plain_head = b"%b %b HTTP/%b\r\n%b\r\n" % (
                parser.get_method(),
                self.url,
                version.encode(),
                b"".join(b"%b: %b\r\n" % field for field in fields),
            )
            return
        self._expects, self._head_bytes = _Expects.BODY, 0
        if self._reading is not None:
            self._stop_waiting()
        self._held = []
        if (
            self._prompt is None
            or self._answered  # at most one at a time: others wait for the loop, too
            or self.expect_100_continue
            or not self._is_free()
            or parser.should_upgrade()
        ):
            self._hand_on()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._told:
            self._take(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._plain_head is not None:
            return
        self._expects, self._begun = _Expects.NOTHING, False
        if len(self._held) != 1:
            self._held = [b"".join(self._held)]
        if self._told or not self._answer_now(self._held[0]):
            self._hand_on()
            super().on_message_complete()

    # --- answering at once

    def _is_free(self) -> bool:
        """Whether nothing is owed to the client, and it takes what it is sent."""
        return (self.cycle is None or self.cycle.response_complete) and not self.flow.write_paused

    def _answer_known(self, data: bytes) -> bool:
        """Whether `data` was one whole request with a known head, and was answered: the parser need not see it. It is
        between two requests before and after, and what it would tell of this one is known."""
        assert self._heads is not None
        if (found := self._heads.find(data)) is None or self.transport.is_closing():
            return False
        reply = self._prompt.answer_now(*found)
        if reply is None:
            return False
        self._expects = _Expects.NOTHING
        if self._reading is not None:
            self._stop_waiting()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._write(reply, keep_alive=True)
        return True

    def _hand_on(self) -> None:
        """Tell uvicorn what it was not told of a request: it makes a scope and a task for it."""
        if self._told:
            return
        self._told, self._idle_since = True, None
        url, headers, expected = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.scope["departure"] = self._departure
        self.url, self.expect_100_continue = url, expected
        self.headers += headers  # the scope's list
        super().on_headers_complete()
        for part in self._held:
            self._take(part)
        self._held = []

    def _take(self, body: bytes) -> None:
        """Hand a part of the body on. uvicorn copies it twice, unless it is all that the application has to read."""
        if not self.cycle.body:
            self.cycle.body, body = body, b""
        super().on_body(body)

    def _answer_now(self, body: bytes) -> bool:
        """Whether the application answered the whole request; then the answer is written."""
        head = self._prompt.read_head(self.parser.get_method(), self.url, self.headers)
        return head is not None and self._answer_awaited(head, body)

    def _answer_awaited(self, head: Any, body: bytes | bytearray) -> bool:
        """The same when the head was read before."""
        reply = self._prompt.answer_now(head, body)
        if reply is None:
            return False
        self._told = self._answered = True
        self._read_head = head if reply[0] == HTTPStatus.OK else None
        self._write(reply, self.parser.should_keep_alive() and self.parser.get_http_version() != "1.0")
        return True

    def _write(self, reply: tuple[int, Fields, bytes | memoryview], keep_alive: bool) -> None:
        status, headers, content = reply
        parts = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            if name == b"connection":
                keep_alive = False
            else:
                parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n" if keep_alive else b"connection: close\r\n\r\n")
        if len(content) > JOINED_BYTES:
            self.transport.writelines((b"".join(parts), content))
        else:
            self.transport.write(b"".join((*parts, content)))
        self.server_state.total_requests += 1
        if not keep_alive:
            self._idle_since = None
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.timeout_keep_alive, self._look_idle)

    def _look_idle(self) -> None:
        """Close a connection that was idle for the keep-alive time. One timer lasts for many requests."""
        self._idle = None
        if self._idle_since is not None and not self.transport.is_closing():
            left = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left <= 0:
                self.transport.close()
            else:
                self._idle = self.loop.call_later(left, self._look_idle)

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.max_head_bytes:
            self._refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise _TooLong

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or HTTPStatus.BAD_REQUEST)

    # --- waiting for the client to send

    def _wait_for(self, what: _Expects) -> None:
        self._stop_waiting()
        delay = self.body_idle_timeout_s if what is _Expects.BODY else self.head_timeout_s
        self._reading_for = what
        self._reading = self.loop.call_later(delay, self._waited)

    def _stop_waiting(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = self._reading_for = None

    def _waited(self) -> None:
        what = self._reading_for
        self._reading = self._reading_for = None
        if self.transport.is_closing() or what is None:
            return
        if self.flow.read_paused:  # we are the ones who do not read
            self._wait_for(what)
            return
        self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer with `status` and end the connection; just end it when an answer has begun or nothing was asked."""
        self._stop_waiting()
        cycle = self.cycle
        answering = cycle is not None and not cycle.response_complete
        if answering:
            answered = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
        else:
            answered = False
        if not answered and (self._begun or status is not HTTPStatus.REQUEST_TIMEOUT):
            self.transport.write(_refusal(status, self._why(status)))
            if not answering and status is not HTTPStatus.REQUEST_TIMEOUT:
                self._lingers = _Linger(self.loop, self.transport)
                return
        self.transport.close()

    def _why(self, status: HTTPStatus) -> str:
        if status is HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            return f"The request's head is longer than {self.max_head_bytes} bytes. Send fewer or shorter headers."
        if status is HTTPStatus.REQUEST_TIMEOUT and self._expects is _Expects.BODY:
            return f"No byte of the body came for {self.body_idle_timeout_s:g} s. Send the request again."
        if status is HTTPStatus.REQUEST_TIMEOUT:
            return f"The head was not complete after {self.head_timeout_s:g} s. Send the request again."
        return "This is not an HTTP/1.1 request. Check the client, and that the address is not one for https."

    # --- waiting for the client to take

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._writing is None:
            self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_write_watch()
        super().resume_writing()

    def _watch_writing(self, left: int) -> None:
        self._writing = self.loop.call_later(self.body_idle_timeout_s, self._check_writing, left)

    def _stop_write_watch(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_writing(self, left_before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left < left_before:
            self._watch_writing(left)
        else:
            self._writing = None
            self.transport.abort()


class _Linger:
    """Closes a connection once its client has fallen silent, or has been talking for too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop, self._transport = loop, transport
        self._left, self._until = LINGER_BYTES, loop.time() + LINGER_S
        self._timer = loop.call_later(QUIET_S, transport.close)

    def take(self, size: int) -> None:
        self._left -= size
        self._timer.cancel()
        if self._left <= 0:
            self._transport.close()
        else:
            self._timer = self._loop.call_at(min(self._loop.time() + QUIET_S, self._until), self._transport.close)

    def stop(self) -> None:
        self._timer.cancel()


def _has_path(target: bytes) -> bool:
    """Whether uvicorn can make a scope of a request's target."""
    try:
        return parse_url(target).path is not None
    except HttpParserError:
        return False


def _refusal(status: HTTPStatus, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
