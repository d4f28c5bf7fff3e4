"""What the command line says to somebody who does not know it yet."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from bettong.cli.main import cli


@pytest.mark.parametrize("words", [[], ["connections"], ["keys"], ["tokens"]])
def test_a_list_of_commands_says_each_in_a_whole_sentence(words: list[str]) -> None:
    told = CliRunner().invoke(cli, [*words, "--help"]).output

    _, _, listed = told.partition("Commands:")
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["stauts"], "Did you mean 'status'?"), (["connections", "lsit"], "Did you mean 'list'?")],
)
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(typed: list[str], meant: str) -> None:
    done = CliRunner().invoke(cli, typed)

    assert done.exit_code == 2
    assert f"There is no command '{typed[-1]}'. {meant} The commands are: " in done.output


def test_a_word_that_is_like_no_command_is_answered_with_all_of_them() -> None:
    done = CliRunner().invoke(cli, ["xyzzy"])

    assert "There is no command 'xyzzy'. The commands are: " in done.output
