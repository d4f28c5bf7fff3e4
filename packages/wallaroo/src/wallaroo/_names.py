"""Names are checked before anything is sent, and the message says which character is wrong."""

from __future__ import annotations

import re

from wallaroo.object import InvalidNameError

_DNS = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PIPELINE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_REQUIREMENT = "must be DNS-compatible (ASCII alpha-numeric plus dash (-))"


def check_dns_name(name: str) -> str:
    """Return `name` if it is 1-63 ASCII letters, digits and dashes, letter first, no dash last.

    Raises:
        InvalidNameError: it is not.
    """
    if not isinstance(name, str):
        raise TypeError(f"A name must be a string, not {type(name).__name__}.")
    if not _DNS.fullmatch(name):
        raise InvalidNameError(name, f"{_REQUIREMENT}; it {_first_fault(name)}")
    return name


def check_pipeline_name(name: str) -> str:
    """Return `name` if it can stand in a URL.

    Raises:
        InvalidNameError: it breaks the rule that holds for every name.
        RuntimeError: it has upper-case letters.
    """
    check_dns_name(name)
    if not _PIPELINE.fullmatch(name):
        raise RuntimeError(
            f"Pipeline name '{name}' must conform to [a-z0-9]([-a-z0-9]*[a-z0-9])?. "
            "It becomes part of a URL: use lower-case letters, digits and dashes."
        )
    return name


def _first_fault(name: str) -> str:
    if not name:
        return "is empty"
    if len(name) > 63:
        return f"has {len(name)} characters, 63 are allowed"
    for at, character in enumerate(name, start=1):
        if not re.fullmatch(r"[A-Za-z0-9-]", character):
            return f"has '{character}' at position {at}"
    return "ends with a dash" if name[0].isalpha() else f"starts with '{name[0]}', not with a letter"
