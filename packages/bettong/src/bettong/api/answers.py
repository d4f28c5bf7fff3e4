"""JSON answers from plain values. Routes build them directly: lists of thousands are not worth validating twice."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
from starlette.responses import Response

if TYPE_CHECKING:
    from datetime import datetime


class Answer(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            return orjson.dumps(content)
        except TypeError:  # an integer beyond 64 bits that a caller stored: JSON has no bound, orjson does
            return json.dumps(content, ensure_ascii=True, allow_nan=False).encode()


def iso(time: datetime) -> str:
    """ISO-8601 UTC with microseconds and offset."""
    return time.isoformat(timespec="microseconds")
