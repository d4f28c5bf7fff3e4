"""The addresses that answers name, as this caller can reach them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.api.wire import Addresses

if TYPE_CHECKING:
    from starlette.requests import Request


def addresses_of(request: Request) -> Addresses:
    """By the address that the caller used, which the gate has found to be one of ours."""
    return Addresses(str(request.base_url).rstrip("/"), request.url.hostname or "127.0.0.1")
