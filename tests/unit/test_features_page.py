"""The page about what Connections can do claims nothing that no test proves."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "features.md"
NAMED = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
ROW = re.compile(r"^\| (\d+) \| ([^|]+) \| (yes|partly|no) \| ([^|]+) \| ([^|]*) \|$", re.MULTILINE)
ACCEPTED = re.compile(r"^- .+$", re.MULTILINE)


@cache
def functions_of(file: Path) -> frozenset[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_every_test_that_the_page_names_is_there() -> None:
    named = NAMED.findall(PAGE.read_text(encoding="utf-8"))

    missing = [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or not test.startswith("test_") or test not in functions_of(ROOT / file)
    ]

    assert named
    assert missing == []


def test_every_row_that_is_more_than_no_names_a_test_and_no_other_does() -> None:
    rows = ROW.findall(PAGE.read_text(encoding="utf-8"))

    assert [int(number) for number, *_ in rows] == list(range(1, 32))
    assert [number for number, _, has, _, tests in rows if bool(NAMED.search(tests)) != (has != "no")] == []


def test_every_promise_of_acceptance_names_a_test() -> None:
    _, _, accepted = PAGE.read_text(encoding="utf-8").partition("## Acceptance")
    promises = ACCEPTED.findall(accepted)

    assert len(promises) == 6
    assert [promise for promise in promises if not NAMED.search(promise)] == []
