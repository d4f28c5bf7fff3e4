"""Which model takes a request: by weight or by the value of a column. One decision for all rows of a request."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

import orjson

from bettong.domain.models import default_runtime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bettong.domain.deployments import ModelSpec


class Weights:
    """Shares of [0, 1), one after another, as large as the weights: numbers of 0 or more whose sum is above 0."""

    def __init__(self, weights: Sequence[float]) -> None:
        total = sum(weights)
        self._ends = [end / total for end in accumulate(weights)]
        self._last = max(at for at, weight in enumerate(weights) if weight)  # rounding may leave the end below 1

    def choose(self, point: float) -> int:
        """The position of the share in which `point`, of [0, 1), lies; never that of a weight of 0."""
        return min(bisect_right(self._ends, point), self._last)


def point_of(value: object) -> float:
    """Where in [0, 1) a value of a hash key lies, always the same for the same value.

    A number of [0, 1) stands for itself. Of anything else it is the SHA-256 of its text.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    digest = hashlib.sha256(texts_of(value)[0].encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def route_of(value: object, routes: Mapping[str, int], control: int) -> int:
    """The model for a value of a split key."""
    return next((routes[text] for text in texts_of(value) if text in routes), control)


def texts_of(value: object) -> tuple[str, ...]:
    """How a value may be written: 3.0 also as 3, True also as true. A list of one is that one."""
    if isinstance(value, list) and len(value) == 1:
        return texts_of(value[0])
    if isinstance(value, bool):
        return (str(value).lower(), str(value))
    if isinstance(value, float) and value.is_integer():
        return (repr(value), str(int(value)))
    return (str(value),)


def split_text(model: ModelSpec) -> str:
    """Both readings of `out._model_split`: the old one at the top, the new one below `model_version`."""
    document = {
        "name": model.name,
        "version": model.version,
        "sha": model.sha,
        "model_version": {
            "id": model.id,
            "name": model.name,
            "version": model.version,
            "sha": model.sha,
            "conversion": {"framework": model.framework},
            "file_info": {"version": model.version, "sha": model.sha},
            "status": "ready",
        },
        "config": {"model_version_id": model.id, "runtime": default_runtime(model.framework)},
    }
    return orjson.dumps(document).decode()
