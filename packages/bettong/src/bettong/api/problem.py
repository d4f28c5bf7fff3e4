"""Errors as HTTP answers: `{msg, code, error, next_step, request_id}`, or the engine's body on the inference path.

No answer repeats a value of the request: validation errors are worded from where and what, never from the input.
"""

from __future__ import annotations

import errno
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from bettong.engine.problem import RETRY_AFTER_S, error_body, problem, status_of
from bettong.errors import BadInput, BettongError, NotFound, StorageFull, TooLarge, Unauthenticated, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fastapi import FastAPI
    from starlette.requests import Request

log = logging.getLogger("bettong.api")

INFERENCE_PREFIX = "/v1/api/pipelines/infer/"
_SHOWN_FAULTS = 5

# What is wrong with a field, by pydantic's error type; the rest says that it does not hold. In braces: bounds that the
# field's own declaration sets, never anything of the request.
_FAULTS = {
    "missing": "is missing",
    "string_type": "is not a text",
    "string_too_long": "is too long, the most is {max_length} characters",
    "string_pattern_mismatch": "has a character that it may not have",
    "int_type": "is not an integer",
    "int_from_float": "is not an integer",
    "int_parsing": "is not an integer",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "list_type": "is not a list",
    "dict_type": "is not a JSON object",
    "model_type": "is not a JSON object",
    "model_attributes_type": "is not a JSON object (sent with Content-Type: application/json)",
    "literal_error": "must be {expected}",
    "enum": "must be {expected}",
    "greater_than_equal": "is too small, the least is {ge}",
    "less_than_equal": "is too large, the most is {le}",
    "timezone_aware": "has no time zone",
    "datetime_type": "is not an ISO-8601 time",
    "datetime_parsing": "is not an ISO-8601 time",
    "datetime_from_date_parsing": "is not an ISO-8601 time",
    "datetime_object_invalid": "is not an ISO-8601 time",
    "json_invalid": "is not valid JSON",
}
_CHOICES = ("literal_error", "enum")  # whose words name all that is taken


def install(app: FastAPI) -> None:
    """Give every error that routes raise its answer. What is left over is for the gate: a fault of our own."""

    async def answered(request: Request, error: Exception) -> Response:
        return answer(error, request.url.path, request.state.request_id)

    for kind in (BettongError, RequestValidationError, HTTPException, ClientDisconnect, OSError):
        app.add_exception_handler(kind, answered)


def answer(error: Exception, path: str, request_id: str) -> Response:
    """The answer to a request on `path` that ended in `error`. What is not ours is logged, and told as a number."""
    ours = _ours(error)
    headers: dict[str, str] = {}
    status = error.status_code if isinstance(error, HTTPException) else status_of(ours)
    if isinstance(error, HTTPException) and error.headers:
        headers.update(error.headers)  # Allow, when a method is refused
    if isinstance(ours, Unauthenticated):
        return Response(
            ours.problem, 401, headers={"www-authenticate": "Bearer"}, media_type="text/plain; charset=utf-8"
        )
    if path.startswith(INFERENCE_PREFIX) and isinstance(error, HTTPException):
        return Response(error_body(status, str(ours)), status, headers, media_type="application/json")
    if path.startswith(INFERENCE_PREFIX):
        told = problem(ours, request_id)
        return Response(told.body, told.status, headers={k.decode(): v.decode() for k, v in told.headers})
    if not isinstance(ours, BettongError):
        log.error("unexpected_error path=%s request_id=%s", path, request_id, exc_info=ours)
        ours = BettongError("The platform failed on this request.", f"Its log says why, under request id {request_id}.")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["retry-after"] = str(RETRY_AFTER_S)
    body = {
        "msg": str(ours),
        "code": status,
        "error": ours.code,
        "next_step": ours.next_step,
        "request_id": request_id,
    }
    return Response(orjson.dumps(_plain(body)), status, headers, media_type="application/json")


def _ours(error: Exception) -> Exception:
    """`error` in our own classes, or itself when it is a fault of the platform."""
    if isinstance(error, RequestValidationError):
        named = all(each["type"] in _CHOICES for each in error.errors())
        return BadInput(
            _faults(error.errors()), "Send one of these." if named else "See the fields of this call at /docs."
        )
    if isinstance(error, HTTPException):
        return _from_http(error.status_code)
    if isinstance(error, ClientDisconnect):
        return BadInput("The connection ended before the request did.", "Send it again.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull("There is no space left on the platform's disk.", "Free some, then try again.")
    return error


def _from_http(status: int) -> BettongError:
    if status == HTTPStatus.NOT_FOUND:
        return NotFound("There is no such path on this server.", "See the paths at /docs.")
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return BadInput("This path does not take that method.", "Send a POST, as nearly every call is; see /docs.")
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge("The body is too large.", "Send less at once.")
    if status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return UnsupportedFormat("This content type is not taken here.", "See what this call takes at /docs.")
    return BadInput("The request could not be read.", "See what this call takes at /docs.")


def _faults(errors: Iterable[dict[str, Any]]) -> str:
    sentences = list(dict.fromkeys(_fault(error) for error in errors))
    if len(sentences) > _SHOWN_FAULTS:
        return " ".join([*sentences[:_SHOWN_FAULTS], f"{len(sentences) - _SHOWN_FAULTS} more fields do not hold."])
    return " ".join(sentences)


def _fault(error: dict[str, Any]) -> str:
    fault = _FAULTS.get(error["type"], "does not hold").format_map(error.get("ctx", {}))
    where, *parts = error["loc"]
    if not parts or error["type"] == "json_invalid":
        return f"The {where} {fault}."
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
    return f"Field '{name}' {fault}."


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Texts that can be written as UTF-8, whatever a model's message held."""
    return {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in value.items()}
