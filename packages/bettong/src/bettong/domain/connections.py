"""Connections: named records of how to reach a data source. Their details are secrets and never part of this value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

MAX_DETAILS_BYTES = 4 * 2**20
KEPT_VERSIONS = 10


@dataclass(frozen=True, slots=True)
class Connection:
    """What may be shown of a connection: everything but its details. Safe to log, print and send.

    `workspace_names` are the workspaces it is linked to, oldest link first, limited to what the caller may see.
    `version` counts the changes of its details. `use_only`: only its creator and administrators may reveal or link it.
    """

    id: str
    name: str
    type: str
    created_by: str
    created_at: datetime
    workspace_names: tuple[str, ...] = ()
    version: int = 1
    use_only: bool = False
    last_used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class SealedDetails:
    """The details of one version of a connection, under a key. `place` is where a walk through all of them goes on."""

    connection_id: str
    name: str
    version: int
    sealed: bytes = field(repr=False)
    created_by: str
    created_at: datetime
    place: int
