"""Details that a person is asked for, field by field."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bettong.cli.questions import ask, misfit, typed
from bettong.drivers.registry import Registry

DRIVER: dict[str, Any] = {
    "details_schema": {
        "properties": {
            "format": {"type": "string", "description": "Only where the name does not say it."},
            "port": {"type": "integer", "minimum": 1, "default": 80},
            "url": {"type": "string", "description": "The address."},
            "mode": {"enum": ["a", "b"], "default": "a", "type": "string"},
        },
        "required": ["url"],
    },
    "secret_fields": [],
}


def of(kind: str) -> dict[str, Any]:
    """What the platform tells of a driver of ours."""
    info = Registry().info(kind)
    assert info is not None
    return {"details_schema": info.details_schema, "secret_fields": list(info.secret_fields)}


def asked(answers: str, driver: dict[str, Any] = DRIVER, **how: bool) -> tuple[Result, dict[str, Any]]:
    """What a person sees who gives these answers, and the details that come of it."""
    found: dict[str, Any] = {}

    @click.command()
    def command() -> None:
        found.update(ask(driver, **how))

    return CliRunner().invoke(command, input=answers), found


def order(text: str, *names: str) -> list[str]:
    lines = [line.partition(" ")[0].rstrip(",:") for line in text.splitlines()]
    return sorted(names, key=lines.index)


def test_what_is_needed_is_asked_for_first() -> None:
    done, found = asked("http://example.org/rows.json\n\n8080\n\n")

    assert order(done.output, "format", "port", "url") == ["url", "format", "port"]
    assert found == {"url": "http://example.org/rows.json", "port": 8080}


def test_a_needed_field_that_is_left_empty_is_named_and_asked_for_again() -> None:
    done, found = asked("\nhttp://example.org/rows.json\n\n\n\n")

    assert "'url' is needed." in done.output
    assert found == {"url": "http://example.org/rows.json"}


def test_in_a_change_every_field_may_be_left_empty() -> None:
    done, found = asked("\n\n\n\n", change=True)

    assert done.output.count("empty to keep") == 4
    assert "is needed" not in done.output
    assert found == {}


def test_allowed_values_and_defaults_stand_in_brackets() -> None:
    done, _ = asked("u\n\n\n\n")

    assert "mode [a, b; default a], optional:" in done.output
    assert "port [default 80], optional:" in done.output


def test_an_answer_that_does_not_fit_is_told_and_asked_for_again() -> None:
    done, found = asked("u\n\nabc\n0\n8080\nc\nb\n")

    assert "'port' should be a whole number, and is a text." in done.output
    assert "'port' should be at least 1." in done.output
    assert "'mode' should be one of a, b." in done.output
    assert found == {"url": "u", "port": 8080, "mode": "b"}


def test_one_text_that_stands_for_fields_comes_first_and_spares_the_others() -> None:
    done, found = asked("postgres://me@h/d\n", of("POSTGRES"))

    assert "empty to go field by field" in done.output
    assert found == {"uri": "postgres://me@h/d"}


def test_where_the_text_does_not_hold_what_is_needed_that_is_asked_for_all_the_same() -> None:
    _, found = asked("{}\nfiles\n", of("GCS"))

    assert found == {"service_account": "{}", "bucket": "files"}


def test_the_login_is_asked_for_together() -> None:
    done, found = asked("\nh\nme\npw\n" + "\n" * 9, of("POSTGRES"))

    assert order(done.output, "port", "password", "user", "host") == ["host", "user", "password", "port"]
    assert found == {"host": "h", "user": "me", "password": "pw"}


def test_only_secrets_are_asked_for_where_that_is_wanted() -> None:
    done, found = asked("\nnew\n", of("POSTGRES"), change=True, secrets=True)

    assert found == {"password": "new"}
    assert "host" not in [line.partition(" ")[0] for line in done.output.splitlines()]


def test_a_type_without_secrets_is_asked_for_everything() -> None:
    _, found = asked("/new.db\n\n", of("SQLITE"), change=True, secrets=True)

    assert found == {"path": "/new.db"}


def test_what_no_answer_stands_for_is_not_among_the_allowed_values() -> None:
    done, _ = asked("/x\nxml\n" + "\n" * 9, of("FILE"))

    assert "[parquet, arrow, csv, json, jsonl], optional" in done.output
    assert "'format' should be one of parquet, arrow, csv, json, jsonl." in done.output


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ('{ "$secret": "env:P"}', "string", {"$secret": "env:P"}),
        ('{"secret": "env:P"}', "string", {"secret": "env:P"}),
        ('{"type": "service_account"}', "string", '{"type": "service_account"}'),
        ("{", "string", "{"),
        ('["a"]', "array", ["a"]),
        ("5432", "integer", 5432),
        ("abc", "integer", "abc"),
        ("5432", "string", "5432"),
    ],
)
def test_what_is_typed_is_read_as_its_fields_kind(text: str, kind: str, value: object) -> None:
    assert typed(text, {"type": kind}) == value


@pytest.mark.parametrize(
    ("value", "field", "wrong"),
    [
        ({"$secret": "env:PORT"}, {"type": "integer"}, ""),
        ({"secret": "env:PORT"}, {"type": "string"}, 'is no reference to a secret: write {"$secret": "…"}'),
        (True, {"type": "integer"}, "should be a whole number, and is a boolean"),
        (1, {"type": "number"}, ""),
        (2.5, {"type": "number", "exclusiveMinimum": 2.5}, "should be more than 2.5"),
        (10, {"type": "integer", "maximum": 9}, "should be at most 9"),
        ("x", {"const": "a", "type": "string"}, "should be a"),
        ("abcd", {"type": "string", "maxLength": 3}, "should have at most 3 characters"),
        (["x"], {"anyOf": [{"type": "array"}, {"type": "null"}]}, ""),
        ("x", {"anyOf": [{"type": "array"}, {"type": "object"}]}, "should be a list or an object, and is a text"),
        ("x", {"$ref": "#/$defs/Other"}, ""),
    ],
)
def test_an_answer_is_held_against_the_schema(value: Any, field: dict[str, Any], wrong: str) -> None:
    assert misfit(value, field) == wrong
