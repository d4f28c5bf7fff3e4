"""Details of a connection as values: what a change makes of them, and what may be told of them. Pure; no secret leaves.

A field is named by its place, such as `password` or `tls.certificates[1]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MASK = "*****"
REFERENCE = "$secret"
_NOTHING = object()


@dataclass(frozen=True, slots=True)
class Changes:
    """What differs between two versions: names of fields, never their values."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def refuse_masks(details: object) -> None:
    """Raises BadInput when there is a mask, which is never a value, with nothing that it could stand for."""
    if place := next((name for name, value in _walk(details, "") if value == MASK), None):
        raise _stands_for_nothing(place)


def changed(stored: Mapping[str, Any], sent: Mapping[str, Any], *, remove: Iterable[str] = ()) -> dict[str, Any]:
    """`stored` with the fields of `sent` over it, objects within objects likewise. A mask keeps what is stored.

    A list replaces a list; a secret reference replaces whatever was there. `remove` names fields of the top to drop.

    Raises:
        BadInput: a mask stands where nothing is stored, or a field to remove is not there or is sent as well.
    """
    dropped = list(remove)
    for name in dropped:
        if name not in stored or name in sent:
            why = "is to be removed and set at once" if name in sent else "is not there to be removed"
            raise BadInput(f"Field '{name}' {why}.", f"The fields are: {', '.join(sorted(stored)) or 'none'}.")
    merged: dict[str, Any] = _merged(stored, dict(sent), "", whole=False)
    return {name: value for name, value in merged.items() if name not in dropped}


def replaced(stored: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """`sent` in place of `stored`; a mask keeps what is stored there. Raises BadInput as `changed`."""
    made: dict[str, Any] = _merged(stored, dict(sent), "", whole=True)
    return made


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """Which fields came, went and changed, in the order of their names."""
    old, new = dict(_fields(before, "")), dict(_fields(after, ""))
    return Changes(
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        changed=tuple(sorted(name for name in old.keys() & new.keys() if not _same(old[name], new[name]))),
    )


def masked(details: Mapping[str, Any]) -> dict[str, Any]:
    """The details with every value masked, to be filled in and sent back. References name no secret: they stay."""
    shown: dict[str, Any] = _masked(dict(details))
    return shown


def json_kind(value: object) -> str:
    """What kind of JSON a value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    kinds = {str: "a text", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return kinds.get(type(value), "no JSON value")


def _merged(stored: object, sent: object, place: str, *, whole: bool) -> Any:
    if sent == MASK:
        if stored is _NOTHING:
            raise _stands_for_nothing(place)
        return stored
    if isinstance(sent, list):
        return _merged_list(stored, sent, place)
    if not isinstance(sent, dict) or _is_reference(sent):
        return sent
    base = stored if isinstance(stored, dict) and not _is_reference(stored) else {}
    fields = {
        name: _merged(base.get(name, _NOTHING), value, _inside(place, name), whole=whole)
        for name, value in sent.items()
    }
    return fields if whole else {**base, **fields}


def _merged_list(stored: object, sent: list[Any], place: str) -> list[Any]:
    # In a list of another length nobody can tell which item a mask means.
    base = stored if isinstance(stored, list) and len(stored) == len(sent) else [_NOTHING] * len(sent)
    return [
        _merged(old, new, f"{place}[{at}]", whole=True) for at, (old, new) in enumerate(zip(base, sent, strict=True))
    ]


def _fields(details: Mapping[str, Any], place: str) -> Iterator[tuple[str, object]]:
    """Fields down to those that hold no further named ones."""
    for name, value in details.items():
        if isinstance(value, dict) and value and not _is_reference(value):
            yield from _fields(value, _inside(place, name))
        else:
            yield _inside(place, name), value


def _walk(value: object, place: str) -> Iterator[tuple[str, object]]:
    """Every value within `value`, lists included."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk(inner, _inside(place, str(name)))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _walk(inner, f"{place}[{at}]")
    else:
        yield place, value


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return value if _is_reference(value) else {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return MASK


def _same(one: object, other: object) -> bool:
    """Equal and of one type: 1, 1.0 and True are three values of JSON."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    return type(one) is type(other) and one == other


def _is_reference(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {REFERENCE}


def _inside(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name


def _stands_for_nothing(place: str) -> BadInput:
    return BadInput(
        f"Field '{place}' is {MASK}, which stands for a value that is stored, and there is none.",
        "Send the value itself.",
    )
