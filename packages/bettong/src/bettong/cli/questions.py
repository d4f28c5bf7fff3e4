"""Details that a person is asked for, field by field: what is needed first, and each answer checked at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from bettong.domain.details import REFERENCE, json_kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WHO = ("user", "access_key_id", "account_name", "client_email", "client_id", "tenant_id")  # asked for beside secrets
_SHOULD_BE = {
    "array": ("a list", (list,)),
    "boolean": ("true or false", (bool,)),
    "integer": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "object": ("an object", (dict,)),
    "string": ("a text", (str,)),
}


def ask(driver: Mapping[str, Any], *, change: bool = False, secrets: bool = False) -> dict[str, Any]:
    """What is typed for the fields that a driver takes.

    Args:
        change: fields left empty stay as they are.
        secrets: only secret fields are asked for, where the driver has some.
    """
    schema = driver["details_schema"]
    fields: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    required = () if change else tuple(schema.get("required", ()))
    secret = tuple(name for name in fields if name in driver["secret_fields"])
    asked: dict[str, Any] = {}
    stood_for: set[str] = set()
    for name in _in_order(fields, tuple(schema.get("required", ())), secret):
        if name in stood_for or (secrets and secret and name not in secret):
            continue
        if stood_for and name not in required:
            continue  # one text instead of many fields: what else there is can be changed later
        answer = _answer(name, fields[name], secret=name in secret, needed=name in required, change=change)
        if answer is None:
            continue
        asked[name] = answer
        stood_for.update(fields[name].get("x-instead-of", ()))
    return asked


def typed(text: str, field: Mapping[str, Any]) -> Any:
    """What was typed as the field's own kind; a reference is an object, and a text that is no number stays a text."""
    reads_json = bool(_kinds(field) & {"integer", "number", "boolean", "object", "array"})
    if not reads_json and not text.lstrip().startswith("{"):
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    # Other objects may be meant as texts, such as the JSON of an account.
    return value if reads_json or (isinstance(value, dict) and _like_reference(value)) else text


def _in_order(fields: Mapping[str, Mapping[str, Any]], required: tuple[str, ...], secret: tuple[str, ...]) -> list[str]:
    """What stands for others first, then what is needed, then the login, then the rest."""

    def rank(name: str) -> int:
        if "x-instead-of" in fields[name]:
            return 0
        return 1 if name in required else 2 if name in _WHO else 3 if name in secret else 4

    return sorted(fields, key=rank)


def _answer(name: str, field: Mapping[str, Any], *, secret: bool, needed: bool, change: bool) -> Any:
    """What is typed for a field, asked for until it fits; None for nothing."""
    label = _label(name, field, secret=secret, needed=needed, change=change)
    while True:
        text = click.prompt(label, default="", show_default=False, hide_input=secret, err=True)
        if not text:
            if not needed:
                return None
            click.echo(f"'{name}' is needed.", err=True)
            continue
        value = typed(text, field)
        if not (wrong := misfit(value, field)):
            return value
        click.echo(f"'{name}' {wrong}.", err=True)


def _label(name: str, field: Mapping[str, Any], *, secret: bool, needed: bool, change: bool) -> str:
    note = field.get("description", "").rstrip(".")
    label = f"{name} ({note})" if note else name
    choices = ", ".join(map(str, _allowed(field)))
    default = field.get("default")
    preset = f"default {_as_typed(default)}" if not change and not secret and default not in (None, "", {}, []) else ""
    if choices or preset:
        label += f" [{'; '.join(filter(None, (choices, preset)))}]"
    label += ", not shown" if secret else ""
    if change:
        return f"{label}, empty to keep"
    if "x-instead-of" in field:
        return f"{label}, empty to go field by field"
    return label if needed else f"{label}, optional"


def misfit(value: Any, field: Mapping[str, Any]) -> str:
    """Why an answer does not fit its field, as the schema has it; "" when it does, or when only its use can tell."""
    if isinstance(value, dict) and value.keys() == {REFERENCE}:
        return ""
    if isinstance(value, dict) and _like_reference(value):
        return f'is no reference to a secret: write {{"{REFERENCE}": "…"}}'
    if (allowed := _allowed(field)) and value not in allowed:
        return f"should be {'one of ' * (len(allowed) > 1)}{', '.join(map(str, allowed))}"
    kinds = _kinds(field)
    if kinds and not any(_is(value, kind) for kind in kinds):
        expected = " or ".join(_SHOULD_BE[kind][0] for kind in sorted(kinds & _SHOULD_BE.keys()))
        return f"should be {expected}, and is {json_kind(value)}"
    return next(_out_of_bounds(value, field), "")


def _out_of_bounds(value: Any, field: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < field.get("minimum", value):
            yield f"should be at least {field['minimum']}"
        if value > field.get("maximum", value):
            yield f"should be at most {field['maximum']}"
        if "exclusiveMinimum" in field and value <= field["exclusiveMinimum"]:
            yield f"should be more than {field['exclusiveMinimum']}"
    if isinstance(value, str) and len(value) > field.get("maxLength", len(value)):
        yield f"should have at most {field['maxLength']} characters"


def _allowed(field: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values that a field may have, but for the empty one, which is that of no answer."""
    return (field["const"],) if "const" in field else tuple(value for value in field.get("enum", ()) if value != "")


def _like_reference(value: Mapping[str, Any]) -> bool:
    return [name.strip("$ ").lower() for name in value] == ["secret"]


def _kinds(field: Mapping[str, Any]) -> set[str]:
    """The kinds of JSON that a field takes; none where the schema says it elsewhere."""
    found = {field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))}
    return {kind for kind in found if kind is not None and kind != "null"}


def _is(value: Any, kind: str) -> bool:
    if kind not in _SHOULD_BE:
        return True
    return isinstance(value, _SHOULD_BE[kind][1]) and (kind == "boolean" or not isinstance(value, bool))


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
