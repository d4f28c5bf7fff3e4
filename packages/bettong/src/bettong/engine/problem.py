"""Exceptions as HTTP answers, in the engine's error body (spec 1.0, 7.6)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import orjson

from bettong.errors import (
    BadInput,
    BettongError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    ModelFailed,
    NotFound,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedFormat,
)

RETRY_AFTER_S = 1

_STATUS: dict[type[BettongError], int] = {
    BadInput: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    UnsupportedFormat: 415,
    ModelFailed: 500,
    Unavailable: 503,
    DeadlineExceeded: 504,
    StorageFull: 507,
}

logger = logging.getLogger("bettong.engine")


@dataclass(frozen=True, slots=True)
class Problem:
    """A failed request's answer: what to send, headers beside content-length and the request id included."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def status_of(error: BaseException) -> int:
    """The HTTP status of an exception: its nearest class of ours decides; 500 for anything foreign."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def problem(error: Exception, request_id: str) -> Problem:
    """The answer to an inference that ended in `error`.

    An exception that is not ours is a fault of the platform: its traceback is logged under the request id, and the
    answer says no more than that id.
    """
    status = status_of(error)
    if isinstance(error, Unauthenticated):  # clients of the reference system expect plain text here
        return Problem(status, ((b"content-type", b"text/plain; charset=utf-8"),), error.problem.encode())
    if isinstance(error, BettongError):
        text = str(error)
    else:
        logger.error("inference failed inside the engine request_id=%s", request_id, exc_info=error)
        text = f"The engine failed on this request. The platform's log says why, under request id {request_id}."
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"application/json"),)
    if status == 503:
        headers += ((b"retry-after", b"%d" % RETRY_AFTER_S),)
    return Problem(
        status, headers, error_body(status, text, "sidekick" if isinstance(error, ModelFailed) else "engine")
    )


def error_body(status: int, text: str, source: str = "engine") -> bytes:
    """The engine's error object as JSON bytes. `source` is `sidekick` when a model's own code failed."""
    content = text.encode("utf-8", "replace").decode()  # a model's message may hold half a surrogate pair
    return orjson.dumps({"code": status, "status": "error", "error": content, "source": source})
