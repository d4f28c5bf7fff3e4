"""Which `Host` headers a server of ours answers to: a page of another name must not reach it through a browser."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_REMEMBERED = 256


class KnownHosts:
    """Loopback names, the bound address and the names an operator allows. Ports are not compared.

    A server bound to every address also answers to any literal address: only names can be pointed at us by others.
    """

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        self._names = LOOPBACK | {name.lower().rstrip(".") for name in allowed}
        self._any_address = bound in ("", "0.0.0.0", "::")
        if not self._any_address:
            self._names |= {bound.lower()}
        self.takes = lru_cache(maxsize=MAX_REMEMBERED)(self._takes)

    def _takes(self, header: bytes) -> bool:
        """Whether a request with this `Host` header, port included, is meant for us."""
        name = _without_port(header.decode("latin-1").strip().lower())
        if name in self._names:
            return True
        return self._any_address and _is_address(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
