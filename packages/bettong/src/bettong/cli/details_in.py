"""Details of a connection from a file, from standard input or from a person: never from the command line's arguments,
which other users of the machine can read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bettong.cli.calls import fail
from bettong.cli.questions import ask
from bettong.domain.details import json_kind
from bettong.domain.field_names import nearest, unused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORM = '{"host": "db.example", "password": {"$secret": "env:DB_PASSWORD"}}'


class TakesDetails(click.Command):
    """A command beside whose name and type details could be typed: words too many may be some, and are not repeated."""

    allow_extra_args = True

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        if left and not ctx.resilient_parsing:
            ctx.fail(
                "There are words too many (not shown). Details are never taken from the command line, where others "
                "can read them: put them into a file (--details FILE), pipe them in (--details -), or leave them out "
                "to be asked."
            )
        return left


def is_asked(place: str | None) -> bool:
    """Whether a person is asked for details, since they come from nowhere else."""
    return place is None and sys.stdin.isatty()


def read_details(
    place: str | None, driver: Mapping[str, Any] | None, *, change: bool = False, secrets: bool = False
) -> dict[str, Any]:
    """The details from `place`: a path, or `-` for standard input. Without one, a person is asked; else standard input.

    Args:
        driver: what is known of the connection's type, to ask field by field; None for a type that is stored only.
        change: fields left empty stay as they are.
        secrets: a person is asked for secret fields alone.
    """
    if is_asked(place):
        return _asked_whole() if driver is None else ask(driver, change=change, secrets=secrets)
    place = "-" if place is None else place
    return _parsed(text_from(place), "Standard input" if place == "-" else f"The file '{place}'")


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


def remark_on_type(kind: str, driver: Mapping[str, Any] | None, types: Sequence[str]) -> str:
    """What to say of a type that no driver is for; "" of others."""
    if driver is not None:
        return ""
    near = nearest(kind, types)
    return f"{kind.upper()} has no driver: it is stored only.{f' Did you mean {near}?' if near else ''}"


def remark_on_fields(kind: str, driver: Mapping[str, Any] | None, details: Mapping[str, Any]) -> str:
    """What to say of fields that the driver does not know; "" when it knows them all, or nobody can tell."""
    known = None if driver is None else driver["details_schema"].get("x-known")
    told = "" if known is None else unused(kind, tuple(details), known)
    return f"Stored, but {told}." if told else ""


def _asked_whole() -> dict[str, Any]:
    click.echo(f"Its details are any JSON object, such as {FORM}.", err=True)
    return _parsed(click.prompt("Details (not shown)", hide_input=True, err=True), "What you typed")


def _parsed(text: str, what: str) -> dict[str, Any]:
    if not text.strip():
        fail(f"{what} is empty. Details are a JSON object, such as {FORM}.")
    try:
        details = json.loads(text)
    except json.JSONDecodeError as wrong:
        reason = wrong.msg.partition(":")[0]  # what it looks for; behind a colon stands what is there
        fail(f"{what} is no JSON: line {wrong.lineno}, column {wrong.colno}: {reason}. Details are such as {FORM}.")
    except (ValueError, RecursionError):
        fail(f"{what} is no JSON that can be read. Details are a JSON object, such as {FORM}.")
    if not isinstance(details, dict):
        fail(f"{what} is {json_kind(details)}: the details are not a JSON object, such as {FORM}.")
    return details
