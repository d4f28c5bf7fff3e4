"""Host, port and login of a server in one text, as people keep them: `scheme://user:password@host:port/rest`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class ServerUri:
    """What a URI says. What it does not say is empty, or None."""

    scheme: str
    host: str
    port: int | None
    user: str
    password: str = field(repr=False)
    path: str  # without the slash in front
    options: Mapping[str, str] = field(repr=False)


def uri_of(values: Any, names: Sequence[str], schemes: Sequence[str], example: str) -> ServerUri | None:
    """The URI that stands under one of `names` in raw details; None when none does, or what does is no text.

    Raises:
        ValueError: it is not like `example`. The text itself, which may hold a password, is not repeated.
    """
    text = next((values[name] for name in names if values.get(name)), None)
    if not isinstance(text, str):
        return None
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"'uri' is not like {example}")
    return ServerUri(
        parts.scheme,
        parts.hostname,
        port,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        unquote(parts.path.removeprefix("/")),
        dict(parse_qsl(parts.query)),
    )


def beside(found: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Raw details with what a URI says where they have no field of their own."""
    return {**{name: value for name, value in found.items() if value}, **values}
