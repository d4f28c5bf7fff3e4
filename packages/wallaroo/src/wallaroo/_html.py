"""Tables for notebooks (HTML) and terminals (text). Every value is escaped here, once."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wallaroo.client import Client

WIDEST_CELL = 40  # a UUID, or a name of the usual length, is whole
Row = tuple[str, object]
T = TypeVar("T")


def fields(rows: Iterable[Row], *, name_tag: Literal["td", "th"] = "td", heading: tuple[str, str] | None = None) -> str:
    """A two-column table of one object."""
    head = f"<tr><th>{_text(heading[0])}</th><th>{_text(heading[1])}</th></tr>" if heading else ""
    body = "".join(f"<tr><{name_tag}>{_text(name)}</{name_tag}><td>{_text(value)}</td></tr>" for name, value in rows)
    return f"<table>{head}{body}</table>"


def grid(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table with one row per element."""
    head = "".join(f"<th>{_text(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def text_fields(title: str, rows: Sequence[Row]) -> str:
    """The same as `fields`, for a terminal."""
    width = max(len(name) for name, _ in rows)
    lines = (f"  {name.ljust(width)}  {'' if value is None else value}".rstrip() for name, value in rows)
    return "\n".join([title, *lines])


def text_grid(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same as `grid`, for a terminal: long cells are cut, so that rows stay lines."""
    lines = [list(columns), *([_cut("" if value is None else str(value)) for value in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cut(text: str) -> str:
    return text if len(text) <= WIDEST_CELL else f"{text[: WIDEST_CELL - 1]}…"


def show_time(client: Client, moment: datetime | None) -> str:
    """A date as people asked for it in `Client(time_format=…)`."""
    return moment.strftime(client.time_format) if moment else ""


def _text(value: object) -> str:
    return "" if value is None else html.escape(str(value))


class ObjectList(list[T], Generic[T]):
    """A list of objects that shows itself as a table; an empty one says so in words."""

    columns: ClassVar[tuple[str, ...]] = ()
    empty: ClassVar[str] = "(none)"

    def __init__(self, client: Client, items: Iterable[T] = ()) -> None:
        super().__init__(items)
        self._client = client

    def _row(self, item: T) -> Sequence[Any]:
        raise NotImplementedError

    def _date(self, moment: datetime | None) -> str:
        return show_time(self._client, moment)

    def _repr_html_(self) -> str:
        return grid(self.columns, map(self._row, self)) if self else self.empty

    def __repr__(self) -> str:
        return text_grid(self.columns, map(self._row, self)) if self else self.empty
