"""Connections as a document that one can keep beside code: all of them but what is secret.

In place of a secret stands a mask, which is never a value: it stands for what is stored where the document is taken
in, and has to be filled in where nothing is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.details import MASK, REFERENCE
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

FORM = "bettong_connections"
RELEASE = 1
_FIELDS = ("name", "type", "use_only", "workspaces", "details")
_WITH_LOGIN = re.compile(r"://[^/\s]*@|://[^\s]*\?")  # an address that may carry a password or a token
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Declaration:
    """One connection of a document. `details` may hold masks; `workspaces` are names of those it is linked to."""

    name: str
    type: str
    details: Mapping[str, Any]
    use_only: bool = False
    workspaces: tuple[str, ...] = ()


def to_document(declared: Sequence[Declaration]) -> dict[str, Any]:
    """The declarations as JSON, which is YAML, too."""
    return {
        FORM: RELEASE,
        "connections": [
            {
                "name": d.name,
                "type": d.type,
                "use_only": d.use_only,
                "workspaces": list(d.workspaces),
                "details": dict(d.details),
            }
            for d in declared
        ],
    }


def from_document(document: object) -> list[Declaration]:
    """The declarations of a document, in its order.

    Raises:
        BadInput: it is none, or two connections have one name. What is told are names of fields, never values.
    """
    if not isinstance(document, dict) or document.get(FORM) != RELEASE:
        raise BadInput(
            f"The document does not say '{FORM}': {RELEASE}.", "Take what `bettong connections export` prints."
        )
    entries = document.get("connections")
    if not isinstance(entries, list):
        raise BadInput("The document has no list 'connections'.", "Write one, which may be empty.")
    declared = [_one(entry, at) for at, entry in enumerate(entries)]
    names = [d.name for d in declared]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"The document declares {twice} more than once.", "Keep one of each.")
    return declared


def held_back(details: Mapping[str, Any], plain: Collection[str]) -> dict[str, Any]:
    """The details with a mask for every value but references and those of the fields `plain`, of which addresses with
    a login or a query are masked, too."""
    return {name: _shown(value, hide=name not in plain) for name, value in details.items()}


def unanswered(declared: Mapping[str, Any], stored: Mapping[str, Any]) -> list[str]:
    """The places of masks that stand for nothing in `stored`, whose values do not matter: it may be masked itself."""
    return [place for place, kept in _masks(dict(declared), stored, "") if kept is _NOTHING]


def filled(declared: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`declared` with `values`, by their places, where masks stand. Other masks stay."""
    made: dict[str, Any] = _filled(dict(declared), values, "")
    return made


def _one(entry: object, at: int) -> Declaration:
    which = f"connections[{at}]"
    if not isinstance(entry, dict):
        raise BadInput(f"'{which}' is no object.", f"Its fields are: {', '.join(_FIELDS)}.")
    if unknown := sorted(entry.keys() - set(_FIELDS)):
        raise BadInput(f"'{which}' takes no {unknown}.", f"Its fields are: {', '.join(_FIELDS)}.")
    workspaces, use_only, details = entry.get("workspaces", []), entry.get("use_only", False), entry.get("details", {})
    fits = {
        "name": isinstance(entry.get("name"), str),
        "type": isinstance(entry.get("type"), str),
        "use_only": isinstance(use_only, bool),
        "workspaces": isinstance(workspaces, list) and all(isinstance(name, str) for name in workspaces),
        "details": isinstance(details, dict),
    }
    if wrong := [field for field, fit in fits.items() if not fit]:
        raise BadInput(
            f"'{which}' lacks {wrong}, or they are of another kind.",
            "A name and a type are texts, use_only is true or false, workspaces a list of names, details an object.",
        )
    return Declaration(entry["name"], entry["type"], details, use_only, tuple(dict.fromkeys(workspaces)))


def _shown(value: Any, *, hide: bool) -> Any:
    if isinstance(value, dict):
        return value if _is_reference(value) else {name: _shown(inner, hide=hide) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner, hide=hide) for inner in value]
    return MASK if hide or (isinstance(value, str) and _WITH_LOGIN.search(value)) else value


def _masks(value: object, stored: object, place: str) -> Iterator[tuple[str, object]]:
    """Each mask with what is stored in its place, found as `details.replaced` finds it."""
    if value == MASK:
        yield place, stored
    elif isinstance(value, list):
        base = stored if isinstance(stored, list) and len(stored) == len(value) else [_NOTHING] * len(value)
        for at, (inner, kept) in enumerate(zip(value, base, strict=True)):
            yield from _masks(inner, kept, f"{place}[{at}]")
    elif isinstance(value, dict) and not _is_reference(value):
        fields = stored if isinstance(stored, dict) and not _is_reference(stored) else {}
        for name, inner in value.items():
            yield from _masks(inner, fields.get(name, _NOTHING), _inside(place, name))


def _filled(value: Any, values: Mapping[str, Any], place: str) -> Any:
    if value == MASK:
        return values.get(place, MASK)
    if isinstance(value, list):
        return [_filled(inner, values, f"{place}[{at}]") for at, inner in enumerate(value)]
    if isinstance(value, dict) and not _is_reference(value):
        return {name: _filled(inner, values, _inside(place, name)) for name, inner in value.items()}
    return value


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {REFERENCE}


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
