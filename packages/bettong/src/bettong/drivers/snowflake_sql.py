"""Snowflake's SQL as text: names as people write them and as they are kept, and a query that only reads."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bettong.drivers.sql import quoted
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.drivers.sql import Table

_PART = r'"(?:[^"]|"")+"|[^\W\d][\w$]*'
_NAME = re.compile(rf"\s*({_PART})(?:\.({_PART}))?(?:\.({_PART}))?\s*")
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|//[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<text>'(?:[^'\\]|\\.|'')*(?:'|\Z)|\$\$.*?(?:\$\$|\Z))
      | (?P<name>"(?:[^"]|"")*(?:"|\Z))
      | (?P<word>[^\W\d][\w$]*)
      | (?P<flow>->>)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_SMALL = re.compile(r"[a-z_][a-z0-9_$]*")


def kept(name: str) -> str:
    """How Snowflake keeps a name that was given without quotes: `amount` as AMOUNT, other names as they are."""
    return name.upper() if _SMALL.fullmatch(name) else name


def shown(names: Sequence[str]) -> list[str]:
    """Names as rows have them: what Snowflake keeps in capitals, as names without quotes are, is shown in small
    letters. Where two names would become the same, both stay."""
    small = [name.lower() if _SMALL.fullmatch(name.lower()) and name == name.upper() else name for name in names]
    return [a if small.count(a) == 1 else name for a, name in zip(small, names, strict=True)]


def said(names: Sequence[str]) -> str:
    """A name of several parts as a person writes it."""
    return ".".join(one if _SMALL.fullmatch(one) else quoted((name,)) for name in names for one in shown([name]))


def table_named(text: str) -> Table | None:
    """The parts of a table's name as Snowflake keeps them, such as `sales.daily` or `shop."Sales"."daily rows"`; None
    when the text is no name."""
    found = _NAME.fullmatch(text)
    if found is None or "\0" in text:
        return None
    parts = [part for part in found.groups() if part is not None]
    return tuple(part[1:-1].replace('""', '"') if part[0] == '"' else part.upper() for part in parts)


def table(text: str) -> Table:
    """The same. Raises BadInput when the text is no name."""
    found = table_named(text)
    if found is None:
        raise BadInput(
            "The table's name is not one that Snowflake can have.",
            'Write it like daily, sales.daily or shop.sales."daily rows".',
        )
    return found


def one_query(text: str) -> str:
    """A query without what ends it.

    Raises:
        BadInput: it is not one statement that only reads.
    """
    pieces = [(str(found.lastgroup), found.group()) for found in _TOKEN.finditer(text)]
    while pieces and (pieces[-1][0] == "space" or pieces[-1][1] == ";"):
        pieces.pop()
    words = [(kind, value) for kind, value in pieces if kind != "space"]
    if any(kind == "flow" or (kind, value) == ("other", ";") for kind, value in words):
        raise BadInput("The query is more than one statement.", "Send one SELECT at a time.")
    first = next((value.upper() for kind, value in words if value != "("), "")
    if first not in ("SELECT", "WITH", "VALUES"):
        raise BadInput(
            "The query does not begin with SELECT, WITH or VALUES.", "Reading takes such a query, or a table."
        )
    return "".join(value for _, value in pieces)
