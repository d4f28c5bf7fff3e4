"""How pipelines show themselves."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from wallaroo import _times
from wallaroo._html import ObjectList

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wallaroo.pipeline import Pipeline


def rows(entry: Mapping[str, Any]) -> dict[str, object]:
    """What a table shows of a PipelineEntry of the wire: of its deployment, not of steps edited here."""
    own = entry["pipeline"]
    return {
        "name": own["name"],
        "created": _times.parse(own["created_at"]),
        "last_updated": _times.parse(own["updated_at"]),
        "deployed": "(none)" if entry["deployed"] is None else entry["deployed"],
        "workspace_id": entry["workspace"]["id"],
        "workspace_name": entry["workspace"]["name"],
        "arch": entry["arch"],
        "accel": entry["accel"],
        "tags": ", ".join(map(str, entry["tags"])),
        "versions": ", ".join(entry["versions"]),
        "steps": ", ".join(entry["deployed_steps"]),
        "published": entry["published"],
    }


class PipelineList(ObjectList["Pipeline"]):
    columns = (
        "name",
        "created",
        "last_updated",
        "deployed",
        "workspace_id",
        "workspace_name",
        "arch",
        "accel",
        "tags",
        "versions",
        "steps",
        "published",
    )
    empty = "(no pipelines)"

    def _row(self, item: Pipeline) -> Sequence[Any]:
        cells = rows(item._record).values()
        return [self._date(cell) if isinstance(cell, datetime) else cell for cell in cells]
