"""Names of fields that a driver does not know, and those that were likely meant. Pure; no value is told."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_NAMED = 5  # in one sentence
LONGEST_NAME = 60  # characters of a name that nobody knows
NEAR = 0.65  # of difflib's ratio: "pasword" is near, "server" and "user" are not
NEXT_STEP = "Correct what was meant to be used; what is for other code may stay."


def nearest(name: str, known: Iterable[str]) -> str:
    """The one among `known` that this name was likely meant to be, whatever its case; "" when none is near."""
    by_small = {each.lower(): each for each in known}
    found = difflib.get_close_matches(name.lower(), by_small, n=1, cutoff=NEAR)
    return by_small[found[0]] if found else ""


def unused(kind: str, names: Sequence[str], known: Iterable[str]) -> str:
    """What is said of fields that are stored and left alone, such as "not known to POSTGRES and not used: tabel (did
    you mean table?)"; "" when there are none."""
    known = tuple(known)
    strange = [name for name in names if name not in known]
    if not strange:
        return ""
    told = [_with_hint(name, nearest(name, known)) for name in strange[:MAX_NAMED]]
    more = [f"and {len(strange) - MAX_NAMED} more"] if len(strange) > MAX_NAMED else []
    return f"not known to {kind.upper()} and not used: {', '.join([*told, *more])}"


def shown(name: str) -> str:
    """A name that somebody made up, as it may stand in a line."""
    text = "".join(letter if letter.isprintable() else "?" for letter in name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def _with_hint(name: str, meant: str) -> str:
    return f"{shown(name)} (did you mean {meant}?)" if meant else shown(name)
