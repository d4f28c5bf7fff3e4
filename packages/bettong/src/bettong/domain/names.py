"""Which names objects may carry (spec 2.4)."""

from __future__ import annotations

import re

from bettong.errors import BadInput

_DNS = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PIPELINE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
MAX_FREE_NAME = 255


def check_dns_name(kind: str, name: str) -> str:
    """Return `name` if it is 1-63 ASCII letters, digits and dashes, letter first, no dash last.

    Raises:
        BadInput: it is not; the first character that breaks the rule is named.
    """
    if not _DNS.fullmatch(name):
        raise BadInput(
            f"{kind} name '{name}' {_first_fault(name)}.",
            "Use 1 to 63 ASCII letters, digits and dashes, with a letter first and no dash last.",
        )
    return name


def check_pipeline_name(name: str) -> str:
    """Return `name` if it can stand in a URL: 1-63 lower-case letters, digits and dashes, no dash first or last."""
    if not _PIPELINE.fullmatch(name):
        raise BadInput(
            f"Pipeline name '{name}' does not match [a-z0-9]([-a-z0-9]*[a-z0-9])?.",
            "Use 1 to 63 lower-case letters, digits and dashes; it becomes part of the pipeline's URL.",
        )
    return name


def check_free_name(kind: str, name: str) -> str:
    """Return `name` if it is free text of 1 to 255 characters without control characters."""
    if not name.strip() or len(name) > MAX_FREE_NAME:
        raise BadInput(f"{kind} name has {len(name)} characters.", f"Use 1 to {MAX_FREE_NAME}, not only spaces.")
    if any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise BadInput(f"{kind} name has a control character.", "Use printable characters.")
    return name


def _first_fault(name: str) -> str:
    if not name:
        return "is empty"
    if len(name) > 63:
        return f"has {len(name)} characters"
    for at, character in enumerate(name):
        if not re.fullmatch(r"[A-Za-z0-9-]", character):
            return f"has '{character}' at position {at + 1}"
    return f"starts with '{name[0]}'" if not name[0].isalpha() or not name[0].isascii() else "ends with a dash"
