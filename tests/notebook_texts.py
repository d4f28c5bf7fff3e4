"""What a cell of a notebook that ran has to show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import nbformat


def texts(cell: nbformat.NotebookNode) -> str:
    """All that a cell printed, then all that it showed, as text and HTML."""
    printed = "".join(output.get("text", "") for output in cell.get("outputs", []))
    return "\n".join([printed, *(str(v) for o in cell.get("outputs", []) for v in o.get("data", {}).values())])
