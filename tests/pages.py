"""What the pages of the docs have in them that runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```(python|sh)( train)?\n(.*?)^```", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One example. What `trains` a model runs where its library is, which is mostly not where the platform is."""

    language: str
    trains: bool
    text: str


def blocks(page: Path) -> list[Block]:
    """The examples of a page, in order."""
    return [Block(language, bool(trains), text) for language, trains, text in _BLOCK.findall(page.read_text())]


def trains(page: Path) -> bool:
    """Whether the page trains a model with a library that these tests do not have."""
    return any(block.trains for block in blocks(page))
