"""What a person is asked for whose file of connections lacks secrets."""

from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner

from bettong.cli.declared import _asked
from bettong.domain.declarations import Declaration

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
