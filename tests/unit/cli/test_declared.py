"""What a person is asked for whose file of connections lacks secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import pytest
from click.testing import CliRunner

from bettong.cli.declared import _asked, _json
from bettong.domain.declarations import Declaration

if TYPE_CHECKING:
    from pathlib import Path

DRIVERS: list[dict[str, Any]] = [
    {
        "types": ["POSTGRES"],
        "details_schema": {"properties": {"password": {"type": "string"}, "port": {"type": "integer"}}},
    }
]


def test_each_missing_value_is_asked_for_unseen_and_a_reference_may_be_typed() -> None:
    found: list[Declaration] = []
    details = {"host": "db", "password": "*****", "port": "*****", "tls": {"key": "*****"}}

    @click.command()
    def command() -> None:
        declared = Declaration("warehouse", "Postgres", details)
        found.append(_asked(declared, ["password", "port", "tls.key"], DRIVERS))

    done = CliRunner().invoke(command, input='\n12345\n5432\n{"$secret": "env:KEY"}\n')

    assert done.exit_code == 0, done.output
    assert found[0].details == {
        "host": "db",
        "password": "12345",  # a text of digits stays a text where the driver has a text
        "port": 5432,
        "tls": {"key": {"$secret": "env:KEY"}},
    }
    assert "'password' is needed." in done.output
    assert "warehouse: tls.key (not shown)" in done.output
    assert "12345" not in done.output


def test_a_file_that_is_no_json_is_told_with_the_place_of_the_fault(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{\n  "connections": hunter2}')

    with pytest.raises(click.ClickException) as refused:
        _json(str(tmp_path / "c.json"), "Connections")

    assert refused.value.message == "The Connections are no JSON (line 2, column 18)."
