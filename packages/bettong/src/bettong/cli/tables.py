"""Tables for terminals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print rows under their columns, or `empty` when there are none."""
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    if not texts:
        click.echo(empty)
        return
    widths = [max(len(line[at]) for line in (list(columns), *texts)) for at in range(len(columns))]
    for line in (list(columns), *texts):
        click.echo("  ".join(map(str.ljust, line, widths)).rstrip())
