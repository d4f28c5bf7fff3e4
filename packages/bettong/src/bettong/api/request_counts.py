"""How many requests the server has answered, by route and status."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.domain.exposition import Exposition

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "(none)"  # what found no route, or was refused before one was looked for
OTHER = "other"


class RequestCounts:
    """Counted on the event loop, told from any thread. Labels are words of ours: a caller's path or method, which could
    be anything, would grow the counters without end."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, int], int] = {}

    def count(self, scope: Mapping[str, object], status: int) -> None:
        """Count a request as answered with `status`; 0 is no answer."""
        route = getattr(scope.get("route"), "path", NO_ROUTE)
        method = str(scope["method"])
        key = (method if method in _METHODS else OTHER, str(route), status)
        self._counts[key] = self._counts.get(key, 0) + 1

    def tell(self, out: Exposition) -> None:
        for (method, route, status), n in sorted(self._counts.copy().items()):
            labels = {"method": method, "route": route, "status": str(status)}
            out.add("bettong_http_requests_total", "counter", "Requests to the server by route and status.", n, labels)
