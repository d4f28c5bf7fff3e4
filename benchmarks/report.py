"""The sections of docs/performance.md, each written by the benchmark that measured it.

A section stands between two marks that name it; whoever writes it leaves all others as they are:

    <!-- growth: written by `make bench-growth` -->
    …
    <!-- end of growth -->
"""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
PLOTS: dict[str, Any] = {  # for matplotlib: text stays text, and the same figures give the same bytes
    "svg.fonttype": "none",
    "svg.hashsalt": "bettong",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_section(name: str, text: str, command: str, page: Path = PAGE) -> None:
    """Put `text` (Markdown, with its own heading) in the place of the section `name`, or behind the last one.

    Args:
        name: lower-case words with dashes.
        command: what measures it again. It stands in the first mark, for those who are about to edit the section.

    Raises:
        ValueError: `name` cannot stand in a mark, `text` has a mark of its own, or the page has only one of the marks.
    """
    if not re.fullmatch(r"[a-z0-9-]+", name) or "<!--" in text or "--" in command:
        raise ValueError(f"'{name}' is no name of a section, or its text or command would end its marks.")
    before, after = page.read_text() if page.exists() else "", ""
    opening, closing = re.search(rf"<!-- {name}: .*-->\n", before), f"<!-- end of {name} -->\n"
    if (opening is None) != (closing not in before):
        raise ValueError(f"{page.name} has only one of the two marks of '{name}'.")
    if opening is not None:
        whole = before
        before, after = whole[: opening.start()], whole[whole.index(closing) + len(closing) :]
    elif before:
        before = before.rstrip("\n") + "\n\n"
    page.write_text(f"{before}<!-- {name}: written by `{command}` -->\n{text.strip()}\n{closing}{after}")


def made_by(command: str) -> str:
    """The sentence that says how a section came about, and on what."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Written by `{command}` on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} CPUs, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}; a load average of "
        f"{os.getloadavg()[1]:.1f} over the last five minutes."
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
