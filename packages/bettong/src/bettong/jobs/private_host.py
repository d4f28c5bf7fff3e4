"""Asking a job's private deployment: HTTP with connections kept alive, Arrow both ways, and patience."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pyarrow as pa

from bettong.errors import BadInput, ModelFailed, TooLarge, Unavailable, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

ARROW = "application/vnd.apache.arrow.stream"
MOST_BYTES = 32 * 2**20  # of one request; more rows go in several
PATIENCE_S = 180.0  # a replica that died is started again meanwhile, with its models
MOST_LOST = 4  # how often a connection may end under the same rows
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
ANSWER_TIMEOUT_S = 660.0  # the deployment gives up first, and says so
_QUERY = "dataset.exclude[]=in&dataset.exclude[]=metadata"  # the inputs are here already
_REFUSED = {400: BadInput, 413: TooLarge, 415: UnsupportedFormat}
_FAILED = (500, 504)


@dataclass(frozen=True, slots=True)
class Address:
    """Where it is, and a token that it takes. The token is kept out of reprs."""

    url: str
    token: str

    def __repr__(self) -> str:
        return f"Address({self.url})"


class PrivateHost:
    """Safe to use from many threads; each has a connection of its own.

    Args:
        patience_s: for how long an answer may keep being unavailable.
        pause: waits for so many seconds; True when the job is to end, and nothing should be waited for.
    """

    def __init__(self, address: Address, pause: Callable[[float], bool], *, patience_s: float = PATIENCE_S) -> None:
        self._address = address  # replaced as a whole by another thread
        self._pause, self._patience_s = pause, patience_s
        self._local = threading.local()
        self._open: set[http.client.HTTPConnection] = set()

    def moved(self, address: Address) -> None:
        """Ask there from now on, with that token."""
        self._address = address

    def infer(self, rows: pa.Table) -> pa.Table:
        """As `Work.infer`. The `in.*` columns are those of `rows`, as they were sent."""
        if rows.nbytes > MOST_BYTES and rows.num_rows > 1:
            half = rows.num_rows // 2
            return pa.concat_tables([self.infer(rows.slice(0, half)), self.infer(rows.slice(half))])
        answer = self._answer(_encoded(rows))
        if answer.num_rows != rows.num_rows:
            raise ModelFailed(f"The pipeline answered {rows.num_rows} rows with {answer.num_rows}.")
        for at, name in enumerate(rows.column_names, start=1):  # behind `time`
            answer = answer.add_column(at, f"in.{name}", rows.column(name))
        return answer

    def close(self) -> None:
        """End all connections: nothing holds the deployment up any more when it is to drain."""
        for connection in list(self._open):
            connection.close()

    def _answer(self, body: pa.Buffer) -> pa.Table:
        until, pause_s, lost = time.monotonic() + self._patience_s, FIRST_PAUSE_S, 0
        while True:
            try:
                status, content = self._ask(body)
            except _Lost:
                if (lost := lost + 1) >= MOST_LOST:
                    raise ModelFailed(
                        "The process of the model ended each time that it was given these rows.",
                        "See whether it needs more memory than there is for as many rows.",
                    ) from None
                why = "it ends connections"
            except OSError as gone:
                why = f"it does not take connections ({gone.strerror or type(gone).__name__})"
            else:
                if status == 200:
                    return _decoded(content)
                if status in _REFUSED:
                    raise _REFUSED[status](_words(content))
                if status in _FAILED:
                    raise ModelFailed(_words(content))
                why = f"it answers {status}: {_words(content)}"
            if self._pause(min(pause_s, max(0.0, until - time.monotonic()))):
                raise Unavailable("The job was to end while its deployment was not there.")
            if time.monotonic() >= until:
                raise Unavailable(f"The job's deployment is not there for {self._patience_s:g} s: {why}.")
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    def _ask(self, body: pa.Buffer) -> tuple[int, bytes]:
        """Raises OSError: nobody took the request. _Lost: the connection ended before the answer."""
        address = self._address
        place = urlsplit(address.url)
        connection = self._connection(place.netloc)
        try:
            if connection.sock is None:
                connection.connect()
        except OSError:
            self._forget()
            raise
        headers = {"Content-Type": ARROW, "Accept": ARROW, "Authorization": f"Bearer {address.token}"}
        try:
            connection.request("POST", f"{place.path}?{_QUERY}", memoryview(body), headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._forget()
            raise _Lost from None
        if response.will_close:
            self._forget()
        return response.status, content

    def _connection(self, netloc: str) -> http.client.HTTPConnection:
        known: tuple[str, http.client.HTTPConnection] | None = getattr(self._local, "known", None)
        if known is None or known[0] != netloc:
            self._forget()
            known = self._local.known = (netloc, http.client.HTTPConnection(netloc, timeout=ANSWER_TIMEOUT_S))
            self._open.add(known[1])
        return known[1]

    def _forget(self) -> None:
        if (known := getattr(self._local, "known", None)) is not None:
            known[1].close()
            self._open.discard(known[1])
            self._local.known = None


class _Lost(Exception):
    """A connection ended before its answer: the server was ending it just then, or died over the request."""


def _encoded(rows: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema.remove_metadata()) as writer:
        writer.write_table(rows.combine_chunks())
    return sink.getvalue()


def _decoded(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(pa.py_buffer(content)) as reader:
        return reader.read_all()


def _words(content: bytes) -> str:
    """The reason in an error's body, which is our own engine's."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:500].decode("utf-8", "replace")
