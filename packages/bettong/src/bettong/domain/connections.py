"""Connections: named records of how to reach a data source. Their details are secrets and never part of this value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

MAX_DETAILS_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Connection:
    """What may be shown of a connection: everything but its details. Safe to log, print and send.

    `workspace_names` are the workspaces it is linked to, oldest link first, limited to what the caller may see.
    """

    id: str
    name: str
    type: str
    created_by: str
    created_at: datetime
    workspace_names: tuple[str, ...] = ()
