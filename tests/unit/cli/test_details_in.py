"""Details that come from a file or from standard input, and what is said of those that are none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from bettong.cli.details_in import TakesDetails, read_details, remark_on_fields, remark_on_type

if TYPE_CHECKING:
    from pathlib import Path

DRIVER: dict[str, Any] = {"details_schema": {"properties": {}, "x-known": ["host", "table"]}, "secret_fields": []}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"host": "hunter2"', "line 1, column 19: Expecting ',' delimiter"),
        ('{\n  host: "hunter2"}', "line 2, column 3: Expecting property name enclosed in double quotes"),
        ('{"host": "hun\\ter\\q2"}', "line 1, column 18: Invalid \\escape. Details"),
        ("hunter2", "line 1, column 1: Expecting value"),
        ('["hunter2"]', "is a list: the details are not a JSON object"),
        ('"hunter2"', "is a text: the details are not a JSON object"),
        ("null", "is null: the details are not a JSON object"),
        (" \n", "is empty"),
        ("[" * 100_000, "is no JSON that can be read"),
    ],
)
def test_what_are_no_details_is_told_with_its_place_and_without_a_value(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "details.json"
    file.write_text(text)

    with pytest.raises(click.ClickException) as refused:
        read_details(str(file), DRIVER)

    assert said in refused.value.message
    assert str(file) in refused.value.message
    assert "hunter2" not in refused.value.message


def test_details_are_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "details.json").write_text('{"host": "h"}')

    assert read_details(str(tmp_path / "details.json"), None) == {"host": "h"}


def test_words_too_many_may_be_details_and_are_not_repeated() -> None:
    @click.command(cls=TakesDetails)
    @click.argument("name")
    def command(name: str) -> None:
        raise AssertionError(name)

    done = CliRunner().invoke(command, ["warehouse", "password=hunter2"])

    assert done.exit_code == 2
    assert "hunter2" not in done.output
    assert "never taken from the command line" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("SQLIT", "SQLIT has no driver: it is stored only. Did you mean SQLITE?"),
        ("postgre", "POSTGRE has no driver: it is stored only. Did you mean POSTGRES?"),
        ("mongodb", "MONGODB has no driver: it is stored only."),
    ],
)
def test_a_type_without_a_driver_is_said_to_be_stored_only(kind: str, said: str) -> None:
    assert remark_on_type(kind, None, ["KAFKA", "POSTGRES", "POSTGRESQL", "SQLITE"]) == said


def test_nothing_is_said_of_a_type_that_has_a_driver() -> None:
    assert remark_on_type("SQLITE", DRIVER, ["SQLITE"]) == ""


def test_fields_that_a_driver_does_not_know_are_told_when_they_are_stored() -> None:
    assert remark_on_fields("x", DRIVER, {"host": "h", "tabel": "t"}) == (
        "Stored, but not known to X and not used: tabel (did you mean table?)."
    )
    assert remark_on_fields("x", DRIVER, {"host": "h"}) == ""
    assert remark_on_fields("x", None, {"tabel": "t"}) == ""
