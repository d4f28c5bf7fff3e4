"""Details of a connection from a file, from standard input or from a person: never from the command line's arguments,
which other users of the machine can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bettong.cli.calls import fail

if TYPE_CHECKING:
    from collections.abc import Mapping

FORM = 'a JSON object, such as {"host": "db.example", "password": {"$secret": "env:DB_PASSWORD"}}'


def read_details(place: str | None, driver: Mapping[str, Any] | None, *, change: bool = False) -> dict[str, Any]:
    """The details from `place`: a path, or `-` for standard input. Without one, a person is asked; else standard input.

    Args:
        driver: what is known of the connection's type, to ask field by field; None for a type that is stored only.
        change: fields left empty stay as they are.
    """
    if place is None and sys.stdin.isatty():
        return _ask(driver, change=change)
    return _parsed(text_from("-" if place is None else place))


def text_from(place: str) -> str:
    """The text of a file, or of standard input for `-`."""
    if place == "-":
        return sys.stdin.read()
    if place.lstrip().startswith("{"):
        fail("Details do not go on the command line: others can read it there. Put them into a file, or pipe them in.")
    try:
        return Path(place).read_text(encoding="utf-8")
    except OSError as refused:
        fail(f"The file '{place}' cannot be read ({refused.strerror}).")
    except ValueError:
        fail(f"The file '{place}' is no text in UTF-8.")


def _ask(driver: Mapping[str, Any] | None, *, change: bool) -> dict[str, Any]:
    if driver is None:
        click.echo(f"No driver knows this type. Its details are {FORM}.", err=True)
        return _parsed(click.prompt("Details (not shown)", hide_input=True, err=True))
    schema = driver["details_schema"]
    required = () if change else schema.get("required", ())
    keep = ", empty to keep" if change else ""
    asked: dict[str, Any] = {}
    fields = schema.get("properties", {})
    for name in sorted(fields, key=lambda name: name not in required):  # what is needed comes first
        field = fields[name]
        secret = name in driver["secret_fields"]
        note = field.get("description", "").rstrip(".")
        label = f"{name}{f' ({note})' if note else ''}{', not shown' if secret else ''}"
        label += keep or ("" if name in required else ", optional")
        while not (text := click.prompt(label, default="", show_default=False, hide_input=secret, err=True)):
            if name not in required:
                break
            click.echo(f"'{name}' is needed.", err=True)
        if text:
            asked[name] = typed(text, field)
    return asked


def _parsed(text: str) -> dict[str, Any]:
    try:
        details = json.loads(text)
    except ValueError:
        details = None
    if not isinstance(details, dict):
        fail(f"The details are not {FORM}.")
    return details


def typed(text: str, field: Mapping[str, Any]) -> Any:
    """What was typed as the field's own kind; a reference is an object, and a text that is no number stays a text."""
    kinds = {field.get("type"), *(option.get("type") for option in field.get("anyOf", ()))}
    if text.startswith('{"$secret"') or kinds & {"integer", "number", "boolean", "object", "array"}:
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
