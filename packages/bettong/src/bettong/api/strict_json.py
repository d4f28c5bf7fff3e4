"""JSON bodies, read strictly: what Python would take beyond JSON, or could not write back, is refused at the door."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import Body
from fastapi.routing import APIRoute
from starlette.requests import Request

from bettong.services.connections import MAX_DEPTH, deeper_than

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.responses import Response

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_LEVELS = MAX_DEPTH + 2  # connection details may use theirs inside the body


def parse(body: bytes) -> Any:
    """The JSON value of `body`: numbers exact, no NaN or infinity, no half surrogate pairs, not nested too deep.

    Raises:
        json.JSONDecodeError: it is none; the error holds nothing of the body.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise json.JSONDecodeError("The body is not valid JSON", "", 0) from None
    if body.count(b"[") + body.count(b"{") > _LEVELS and deeper_than(value, _LEVELS):
        raise json.JSONDecodeError("The body is nested too deep", "", 0)
    return value


def may_be_absent(model: Callable[[], Any]) -> Any:
    """For the annotation of a body all of whose fields are optional: no body at all is an empty one."""
    return Body(default_factory=model)


class StrictRequest(Request):
    async def json(self) -> Any:
        return parse(await self.body())


class StrictRoute(APIRoute):
    """A route whose JSON body goes through `parse`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(StrictRequest(request.scope, request.receive))

        return strict


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("beyond a double")
    return number
