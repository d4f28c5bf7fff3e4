"""SQL as text: names are quoted, never formatted in bare; a query is read where a database would not mind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bettong.domain.drivers import ReadRequest
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bettong.domain.drivers import Readable

Table = tuple[str, ...]  # the parts of a name, outermost first

_PART = r'"(?:[^"]|"")+"|`(?:[^`]|``)+`|[^\W\d][\w$]*'
_NAME = re.compile(rf"\s*({_PART})(?:\.({_PART}))?(?:\.({_PART}))?\s*")
_TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<text>'(?:[^']|'')*(?:'|\Z))
      | (?P<name>"(?:[^"]|"")*(?:"|\Z)|`(?:[^`]|``)*(?:`|\Z)|\[[^\]]*(?:\]|\Z))
      | (?P<parameter>\?\d*|[:@$][A-Za-z_]\w*)
      | (?P<word>[^\W\d][\w$]*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def table_named(text: str, *, parts: int = 2) -> Table | None:
    """The parts of a table's name, such as `sales.daily` or `"Sales"."daily rows"`; None when the text is no name."""
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    names = tuple(_unquoted(part) for part in found.groups() if part is not None)
    return names if len(names) <= parts and "\0" not in text else None


def table(text: str, *, parts: int = 2) -> Table:
    """The same. Raises BadInput when the text is no name."""
    found = table_named(text, parts=parts)
    if found is None:
        raise BadInput(
            "The table's name is not one that this database can have.",
            'Write it like daily, sales.daily or "a name with spaces".',
        )
    return found


def quoted(names: Sequence[str], mark: str = '"') -> str:
    """A name of several parts, each between quotes."""
    return ".".join(f"{mark}{name.replace(mark, mark * 2)}{mark}" for name in names)


def listed(names: Sequence[str], mark: str = '"') -> str:
    """Names of columns, each between quotes, with commas."""
    return ", ".join(quoted((name,), mark) for name in names)


def one_query(text: str) -> str:
    """A query of SQLite without what ends it.

    Raises:
        BadInput: it is not one statement that only reads.
    """
    pieces = list(tokens(text))
    while pieces and (pieces[-1][0] == "space" or pieces[-1][1] == ";"):
        pieces.pop()
    words = [(kind, value) for kind, value in pieces if kind != "space"]
    if any(value == ";" for kind, value in words if kind == "other"):
        raise BadInput("The query is more than one statement.", "Send one SELECT at a time.")
    if not words or words[0][1].upper() not in ("SELECT", "WITH", "VALUES"):
        raise BadInput(
            "The query does not begin with SELECT, WITH or VALUES.", "Reading takes such a query, or a table."
        )
    return "".join(value for _, value in pieces)


def key_places(order_by: Sequence[str], names: Sequence[str]) -> list[int]:
    """Where the columns that rows are to be ordered by stand in a result. Raises BadInput: it has no such column."""
    for key in order_by:
        if names.count(key) != 1:
            found = "several columns" if key in names else "no column"
            raise BadInput(
                f"The rows to read have {found} '{key}', which is to be a key.",
                f"Their columns are: {', '.join(names)}.",
            )
    return [names.index(key) for key in order_by]


def inexact_key(name: str, kind: str) -> BadInput:
    """What is said of a key whose values are not read just as they are: a job could not go on behind one."""
    return BadInput(
        f"Key column '{name}' is {kind}, which is not read exactly.", "CAST it in the query, or take another key."
    )


def in_order(by: Sequence[str], after: Sequence[str] = (), limit: int | None = None) -> str:
    """What follows a FROM to have its rows in the order of `by`, and with `after` only those behind these values, and
    those with a null in `by`. All of it are expressions."""
    if not by:
        return ""
    where = ""
    if after:
        behind = f"({', '.join(by)}) > ({', '.join(after)})"
        where = f" WHERE {' OR '.join([behind, *(f'{key} IS NULL' for key in by)])}"
    return f"{where} ORDER BY {', '.join(by)}" + (f" LIMIT {limit:d}" if limit is not None else "")


def without_parameters(text: str) -> str:
    """The query with NULL for each parameter: it has the same columns, and can be described."""
    return "".join("NULL" if kind == "parameter" else value for kind, value in tokens(text))


def check_marks(text: str, parameters: Sequence[object]) -> None:
    """See that a query of SQLite has a value for each of its placeholders. Raises BadInput with both counts."""
    marks, names = 0, set[str]()
    for kind, value in tokens(text):
        if kind != "parameter" or value in names:
            continue
        number = value[1:]
        marks = max(marks, int(number)) if number.isdigit() else marks + 1
        if value != "?":
            names.add(value)
    if marks != len(parameters):
        there = f"{marks} placeholder{'' if marks == 1 else 's'}"
        given = f"{len(parameters)} parameter{' was' if len(parameters) == 1 else 's were'} given"
        raise BadInput(f"The query has {there}, and {given}.", "Pass one value for each placeholder, in their order.")


def sampled(source: Readable, table: str) -> str:
    """Read a row of the table that the details name, for a test; what came, in words."""
    if not table:
        return "no table is named in the details"
    reader = source.read(ReadRequest(table, limit=1))
    rows = sum(batch.num_rows for batch in reader)
    return f"{rows} row of {len(reader.schema)} columns from '{table}'"


def tokens(text: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of each piece: space (comments too), text, name, parameter, word, other. They make up the text."""
    for found in _TOKEN.finditer(text):
        yield str(found.lastgroup), found.group()


def _unquoted(part: str) -> str:
    if part[0] in '"`':
        return part[1:-1].replace(part[0] * 2, part[0])
    return part
