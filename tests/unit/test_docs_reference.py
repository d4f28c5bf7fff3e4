"""The reference pages name what there is, all of it and nothing else: settings, errors, commands, routes."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from platform_kit import open_platform

from bettong import compose
from bettong.cli.main import cli
from bettong.engine.problem import status_of
from bettong.errors import BettongError
from bettong.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SDK = ROOT / "packages" / "wallaroo" / "src" / "wallaroo"
PATH = re.compile(r"`(/[^`]*)`")
LATER = "later"  # the word that the wire's table has for a route that this release lacks


def sections(page: Path) -> dict[str, str]:
    """The text of a page by its second-level headings."""
    _, *parts = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.strip(): text for heading, _, text in (part.partition("\n") for part in parts)}


# --- settings -------------------------------------------------------------------------------------------------------


class Asked(dict[str, str]):
    """Variables that remember which of them were asked for."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.names: set[str] = set()

    def get(self, name: str, default: object = None) -> object:  # type: ignore[override]
        self.names.add(name)
        return super().get(name, default)


def test_every_setting_of_the_server_has_its_heading_and_no_other_has(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(os.environ)
    monkeypatch.setattr(os, "environ", asked)

    compose.settings_from_environment()

    described = {heading for heading in sections(REFERENCE / "settings.md") if heading.startswith("BETTONG_")}
    assert described == {name for name in asked.names if name.startswith("BETTONG_")}


def test_the_defaults_that_the_page_tells_are_those_in_force(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    in_force = {
        "BETTONG_HOST": settings.host,
        "BETTONG_PORT": str(settings.port),
        "BETTONG_LOG_BYTES_PER_TOPIC": str(settings.log.bytes_per_topic),
        "BETTONG_LOG_DAYS": str(settings.log.days),
        "BETTONG_JOB_DAYS": str(settings.job_days),
        "BETTONG_JOB_BYTES": str(settings.job_bytes),
        "BETTONG_SQL_TIMEOUT_S": str(settings.log.sql_timeout_s),
        "BETTONG_SQL_MEMORY_BYTES": str(settings.log.sql_memory_bytes),
        "BETTONG_MAX_LOGGED_ROW_BYTES": str(settings.log.max_row_bytes),
        "BETTONG_MAX_BODY_BYTES": str(settings.limits.max_body_bytes),
        "BETTONG_MAX_UPLOAD_BYTES": str(settings.limits.max_upload_bytes),
    }

    told = {
        heading: match[1]
        for heading, text in sections(REFERENCE / "settings.md").items()
        if heading in in_force and (match := re.search(r"Default `?([\d.]*\d)", text))
    }

    assert told == in_force


def test_every_variable_that_the_sdk_reads_is_in_its_table_and_no_other_is() -> None:
    table = sections(REFERENCE / "settings.md")["Of the SDK"]
    described = set(re.findall(r"`([A-Z][A-Z_]+)`", table))

    assert described | {"BETTONG_HOME"} == {name for file in SDK.rglob("*.py") for name in variables_read(file)}


def variables_read(file: Path) -> Iterator[str]:
    """Names given to `environ.get` in the file, whatever the mapping is called there."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "get"
            and ast.unparse(node.func.value).endswith("environ")
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


# --- errors ---------------------------------------------------------------------------------------------------------


def errors(root: type[BettongError] = BettongError) -> Iterator[type[BettongError]]:
    """Every error of `bettong.errors`: the classes with a code of their own."""
    if "code" in vars(root):
        yield root
    for kind in root.__subclasses__():
        yield from errors(kind)


def test_every_error_is_described_with_its_status_and_no_other_is() -> None:
    told = {
        code: int(text.split(".")[0].split()[0]) for code, text in sections(REFERENCE / "errors.md").items()
    }  # "503 with `Retry-After`." starts with its number too

    assert told == {kind.code: status_of(kind("", "")) for kind in errors()}


def test_the_wires_table_of_errors_says_the_same() -> None:
    rows = re.findall(r"^\| (\w+) \| (\d{3})\b.*\|$", sections(ROOT / "docs/design/wire.md")["Errors"], re.MULTILINE)

    assert {code: int(status) for code, status in rows} == {kind.code: status_of(kind("", "")) for kind in errors()}


# --- commands -------------------------------------------------------------------------------------------------------


def commands(group: click.Group, name: str) -> dict[str, click.Command]:
    """Every command below `group` by what one types, groups aside."""
    found: dict[str, click.Command] = {}
    for word, command in group.commands.items():
        full = f"{name} {word}"
        found |= commands(command, full) if isinstance(command, click.Group) else {full: command}
    return found


def test_every_command_has_its_heading_and_no_other_has() -> None:
    described = set(sections(REFERENCE / "cli.md"))

    assert described == {f"bettong {word}" for word in cli.commands}


def test_every_command_and_option_is_in_its_section_and_no_other_is() -> None:
    described = sections(REFERENCE / "cli.md")
    known = {heading: set[str]() for heading in described}
    for typed, command in commands(cli, "bettong").items():
        text = described[" ".join(typed.split()[:2])]
        if typed not in described:
            assert f"`{typed}" in text, f"docs/reference/cli.md does not name `{typed}`"
        for parameter in (p for p in command.params if isinstance(p, click.Option)):
            assert any(option in text for option in parameter.opts), f"`{typed} {parameter.opts[-1]}` is not described"
            known[" ".join(typed.split()[:2])].update(parameter.opts)

    for heading, text in described.items():
        assert set(re.findall(r"(?<=`)--?[a-z][a-z-]*", text)) <= known[heading], heading


# --- routes ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Every operation of the OpenAPI document, as `METHOD /path`."""
    with open_platform(tmp_path_factory.mktemp("home")) as platform, platform.api() as api:
        paths = api.send(None, "GET", "/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def on_the_wire() -> dict[str, str]:
    """Every operation in the wire's table of routes, as `METHOD /path`, with what it answers."""
    found: dict[str, str] = {}
    for line in sections(ROOT / "docs/design/wire.md")["Routes"].splitlines():
        if not line.startswith("| ") or not (paths := PATH.findall(line.split(" | ")[0])):
            continue
        method = "GET" if line.startswith("| GET ") else "POST"
        folder = paths[0].rpartition("/")[0]
        for path in paths:  # `/a/b/one`, `/two` is short for `/a/b/one`, `/a/b/two`
            whole = path if path == paths[0] or path.count("/") > 1 or not folder else folder + path
            found[f"{method} {whole}"] = line.rstrip(" |").rpartition(" | ")[2]
    return found


def test_every_route_of_the_wire_is_served(served: set[str]) -> None:
    pages = {"GET /docs", "GET /openapi.json", "GET /v1/api/docs"}  # not in the document: they are about it
    promised = {route for route, answer in on_the_wire().items() if answer != LATER} - pages

    groups = {route for route in promised if route.endswith("*")}
    assert promised - groups - served == set()
    assert {group for group in groups if not any(route.startswith(group[:-1]) for route in served)} == set()


def test_every_route_that_is_served_is_on_the_wire(served: set[str]) -> None:
    wire = on_the_wire()
    groups = tuple(route[:-1] for route in wire if route.endswith("*"))

    assert {route for route in served if route not in wire and not route.startswith(groups)} == set()


def test_what_the_wire_keeps_for_later_is_not_served(served: set[str]) -> None:
    assert served.isdisjoint(route for route, answer in on_the_wire().items() if answer == LATER)
