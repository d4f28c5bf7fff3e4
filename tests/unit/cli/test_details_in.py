"""Details that a person is asked for, field by field."""

from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner, Result

from bettong.cli.details_in import _ask

DRIVER: dict[str, Any] = {
    "details_schema": {
        "properties": {
            "format": {"type": "string", "description": "Only where the name does not say it."},
            "port": {"type": "integer"},
            "url": {"type": "string", "description": "The address."},
        },
        "required": ["url"],
    },
    "secret_fields": [],
}


def asked(typed: str, *, change: bool = False) -> tuple[Result, dict[str, Any]]:
    """What a person sees who types this, and the details that come of it."""
    found: dict[str, Any] = {}

    @click.command()
    def command() -> None:
        found.update(_ask(DRIVER, change=change))

    return CliRunner().invoke(command, input=typed), found


def test_what_is_needed_is_asked_for_first() -> None:
    done, found = asked("http://example.org/rows.json\n\n8080\n")

    assert done.output.index("url") < done.output.index("format") < done.output.index("port")
    assert found == {"url": "http://example.org/rows.json", "port": 8080}


def test_a_needed_field_that_is_left_empty_is_named_and_asked_for_again() -> None:
    done, found = asked("\nhttp://example.org/rows.json\n\n\n")

    assert "'url' is needed." in done.output
    assert found == {"url": "http://example.org/rows.json"}


def test_in_a_change_every_field_may_be_left_empty() -> None:
    done, found = asked("\n\n\n", change=True)

    assert done.output.count("empty to keep") == 3
    assert "is needed" not in done.output
    assert found == {}
