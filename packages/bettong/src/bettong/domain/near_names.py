"""Names to offer to somebody who has named what is not there."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_NAMED = 5
SHOWN_CHARS = 80  # of a name that is not there


def shown(name: str) -> str:
    """A name as it is repeated to whoever sent it, in quotes."""
    return f"'{name}'" if len(name) <= SHOWN_CHARS else f"'{name[:SHOWN_CHARS]}…'"


def offer(name: str, known: Sequence[str]) -> str:
    """The nearest of the names that there are, or the first of them, in a sentence; "" when there are none."""
    if near := difflib.get_close_matches(name[:SHOWN_CHARS], known, n=1):
        return f"Did you mean '{near[0]}'?"
    if not known:
        return ""
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return f"There {'is' if len(known) == 1 else 'are'}: {', '.join(map(repr, known[:MOST_NAMED]))}{more}."
