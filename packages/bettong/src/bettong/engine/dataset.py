"""Which columns an answer holds, and how their names are written: `dataset[]`, `dataset.exclude[]`,
`dataset.separator` (spec 7.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

GROUPS = ("time", "in", "out", "anomaly", "metadata")
MAX_FIELDS = 256
MAX_SEPARATOR = 16
_HINT = "Name '*', time, in, out, anomaly, metadata, or a column such as out.variable."


@dataclass(frozen=True, slots=True)
class Dataset:
    """A choice of columns. Items are `*`, a column, or the dotted beginning of one; `exclude` is applied last.

    `separator` None means that none was asked for: nested objects in JSON, dots in Arrow. "" asks for nesting.
    """

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    separator: str | None = None

    def takes(self, column: str) -> bool:
        """Whether the dotted `column`, such as `in.count`, is in the answer."""
        return _matches(self.include, column) and not _matches(self.exclude, column)

    def chosen(self, columns: Sequence[str]) -> list[int]:
        """The positions of the columns that it takes, in their order."""
        return [at for at, column in enumerate(columns) if self.takes(column)]


@lru_cache(maxsize=256)
def parse_dataset(query: bytes) -> Dataset:
    """Read a raw query string. Parameters of other names are ignored; an absent `dataset[]` means everything.

    Raises:
        BadInput: the query string cannot be read, an item names no group of columns, or the separator is not short
            printable text.
    """
    try:
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS, separator="&"
        )
    except ValueError:
        raise BadInput("The query string cannot be read.", f"Send at most {MAX_FIELDS} URL-encoded fields.") from None
    include = tuple(_item("dataset[]", value) for name, value in pairs if name in ("dataset[]", "dataset"))
    exclude = tuple(
        _item("dataset.exclude[]", value) for name, value in pairs if name in ("dataset.exclude[]", "dataset.exclude")
    )
    separator = next((value for name, value in reversed(pairs) if name == "dataset.separator"), None)
    if separator is not None and (len(separator) > MAX_SEPARATOR or not separator.isprintable()):
        raise BadInput(
            "dataset.separator is not short printable text.", f"Send up to {MAX_SEPARATOR} characters, such as '.'."
        )
    return Dataset(include or ("*",), exclude, separator)


def _item(parameter: str, item: str) -> str:
    group = item.partition(".")[0]
    if item != "*" and group not in GROUPS and not group.startswith("out_"):
        raise BadInput(f"{parameter} has an item that names no column of an answer.", _HINT)
    return item


def _matches(items: tuple[str, ...], column: str) -> bool:
    return any(item == "*" or column == item or column.startswith(f"{item}.") for item in items)
