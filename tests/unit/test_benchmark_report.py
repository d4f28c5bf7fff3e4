"""Each benchmark writes its own section of docs/performance.md, and no other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> Any:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def page(tmp_path: Path) -> Path:
    page = tmp_path / "performance.md"
    page.write_text("# Speed\n\nBy hand.\n")
    return page


def test_a_new_section_comes_behind_what_is_there(report: Any, page: Path) -> None:
    report.write_section("growth", "## Growth\n\nSlow.\n", "make bench-growth", page)

    assert page.read_text() == (
        "# Speed\n\nBy hand.\n\n"
        "<!-- growth: written by `make bench-growth` -->\n## Growth\n\nSlow.\n<!-- end of growth -->\n"
    )


def test_a_section_written_again_leaves_the_others_and_what_people_wrote(report: Any, page: Path) -> None:
    report.write_section("growth", "old", "make bench-growth", page)
    page.write_text(page.read_text() + "\nWritten by hand, in between.\n")
    report.write_section("peers", "peers", "make bench-peers", page)
    before = page.read_text()

    report.write_section("growth", "new", "make bench-growth", page)

    assert page.read_text() == before.replace("\nold\n", "\nnew\n")


def test_a_section_written_twice_is_there_once(report: Any, page: Path) -> None:
    report.write_section("growth", "## Growth", "make bench-growth", page)
    once = page.read_text()

    report.write_section("growth", "## Growth", "make bench-growth", page)

    assert page.read_text() == once


def test_no_section_begins_with_the_name_of_another(report: Any, page: Path) -> None:
    report.write_section("growth-of-logs", "logs", "a", page)

    report.write_section("growth", "all", "b", page)

    assert "\nlogs\n" in page.read_text()
    assert "\nall\n" in page.read_text()


@pytest.mark.parametrize("name", ["", "Growth", "growth -->", "two words"])
def test_a_name_that_cannot_stand_in_a_mark_is_refused(report: Any, page: Path, name: str) -> None:
    before = page.read_text()

    with pytest.raises(ValueError, match="no name of a section"):
        report.write_section(name, "text", "make bench", page)

    assert page.read_text() == before


def test_a_page_that_lost_a_mark_is_left_alone(report: Any, page: Path) -> None:
    report.write_section("growth", "old", "make bench-growth", page)
    broken = page.read_text().replace("<!-- end of growth -->\n", "")
    page.write_text(broken)

    with pytest.raises(ValueError, match="only one of the two marks"):
        report.write_section("growth", "new", "make bench-growth", page)

    assert page.read_text() == broken


def test_every_section_of_the_page_is_whole() -> None:
    marks = re.findall(r"<!-- (end of )?([a-z0-9-]+)", (ROOT / "docs" / "performance.md").read_text())

    opened, closed = marks[::2], marks[1::2]
    assert opened
    assert [("end of ", name) for _, name in opened] == closed
