"""What is said of details that do not fit their model: each field with what it should be and is, and never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bettong.domain.details import REFERENCE, json_kind
from bettong.domain.field_names import nearest, shown
from bettong.drivers.known_fields import known_to, names_of
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

MAX_TOLD = 5  # problems in one message
_UNSAFE = frozenset({"union_tag_invalid"})  # pydantic's own words for these repeat the value
_SHOULD_BE = {
    "bool": "true or false",
    "dict": "an object",
    "float": "a number",
    "int": "a whole number",
    "list": "a list",
    "model": "an object",
    "string": "a text",
    "tuple": "a list",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
_LENGTHS = {"min_length": "at least", "max_length": "at most"}
_NOT_THERE = object()


def misfit(model: type[BaseModel], kind: str, values: Mapping[str, Any], errors: Sequence[ErrorDetails]) -> BadInput:
    """The error to raise for these, with what to do about them."""
    told = [_one(model, values, error) for error in errors[:MAX_TOLD]]
    more = f"; and {len(errors) - MAX_TOLD} more" if len(errors) > MAX_TOLD else ""
    return BadInput(f"The details do not fit type {kind}: {'; '.join(told)}{more}.", _next_step(model, values, errors))


def _one(model: type[BaseModel], values: Mapping[str, Any], error: ErrorDetails) -> str:
    name = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return f"'{name}' is missing{_instead(model, values, error)}"
    if error["type"] in _UNSAFE:
        return f"'{name}' is none of the kinds it may be"
    words = _words(error, _found(values, error["loc"]))
    return f"'{name}' {words}" if name else words


def _instead(model: type[BaseModel], values: Mapping[str, Any], error: ErrorDetails) -> str:
    """The field that was likely meant to be the one that is missing."""
    if len(error["loc"]) != 1:
        return ""
    known = known_to(model) or ()
    field = _names(model).get(str(error["loc"][0]), ())
    near = next((name for name in values if name not in known and nearest(name, known) in field), "")
    return f"; there is '{shown(near)}'" if near else ""


def _words(error: ErrorDetails, found: object) -> str:
    if isinstance(found, dict) and [str(key).strip("$ ").lower() for key in found] == ["secret"]:
        return f'is an object, and no reference to a secret: write {{"{REFERENCE}": "…"}}'
    kind, context = error["type"], error.get("ctx", {})
    family, _, fault = kind.partition("_")
    if family in _SHOULD_BE and fault in ("type", "parsing", "parsing_size", "from_float"):
        none = " that is none" if fault != "type" else ""
        is_now = "" if found is _NOT_THERE else f", and is {json_kind(found)}{none}"
        return f"should be {_SHOULD_BE[family]}{is_now}"
    if kind == "literal_error":
        allowed = error["msg"].removeprefix("Input should be ").removeprefix("'', ")  # what is left out needs no word
        return f"should be {'one of ' if ' or ' in allowed else ''}{allowed}"
    for name, words in _BOUNDS.items():
        if kind.startswith(("greater_than", "less_than")) and name in context:
            return f"should be {words} {context[name]}"
    for name, words in _LENGTHS.items():
        if kind.startswith("string_too") and name in context:
            return f"should have {words} {context[name]} character{'s' * (context[name] != 1)}"
    return error["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")


def _found(values: Any, place: Sequence[int | str]) -> object:
    """What stands at a place of the details; `_NOT_THERE` where the place is one of the model's own making."""
    for part in place:
        if not _holds(values, part):
            return _NOT_THERE
        values = values[part]
    return values if place else _NOT_THERE


def _holds(holder: object, part: int | str) -> bool:
    if isinstance(holder, list):
        return isinstance(part, int) and part < len(holder)
    return isinstance(holder, dict) and part in holder


def _next_step(model: type[BaseModel], values: Mapping[str, Any], errors: Sequence[ErrorDetails]) -> str:
    names = _names(model)
    missing = [str(e["loc"][0]) for e in errors if e["type"] == "missing" and len(e["loc"]) == 1]
    wrong = dict.fromkeys(str(e["loc"][0]) for e in errors if e["loc"] and str(e["loc"][0]) not in missing)
    steps = []
    if missing:
        stand_ins: Mapping[str, tuple[str, ...]] = getattr(model, "stand_ins", {})
        instead = [name for name, fields in stand_ins.items() if name in names and not set(fields).isdisjoint(missing)]
        steps.append(f"Add {' and '.join(missing)}{''.join(f', or {name} instead' for name in instead)}.")
    if wrong or not missing:
        steps.append(f"Correct {' and '.join(wrong) or 'them'}.")
    if missing:
        open_ones = [name for name, all_names in names.items() if name not in missing and not values.keys() & all_names]
        steps.append(f"It takes also {', '.join(open_ones) or 'nothing'}.")
    return " ".join(steps)


def _names(model: type[BaseModel]) -> dict[str, tuple[str, ...]]:
    """The names of each field by the one that people are told."""
    return {(names := names_of(name, field))[0]: names for name, field in model.model_fields.items()}
