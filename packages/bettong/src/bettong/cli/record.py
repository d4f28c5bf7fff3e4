"""Where the platform of this machine runs: the record that a server leaves in its home, and whether it still holds."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from pathlib import Path

FILE = "server.json"
HEALTH_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Record:
    """What `server.json` says: see docs/design/wire.md."""

    url: str
    pid: int
    instance: str
    version: str
    started_at: str


def write(home: Path, record: Record) -> None:
    """Replace the record in one step; readable by its owner only."""
    draft = home / f"{FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(record), file)
    draft.replace(home / FILE)


def read(home: Path) -> Record | None:
    """The record that was last written, of a server that may be gone; None when there is none that can be read.

    A server leaves it behind when it ends: the next one takes the same port, so that clients find it where it was.
    """
    try:
        return Record(**json.loads((home / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def running(home: Path) -> Record | None:
    """The record, if the very server that wrote it answers now."""
    record = read(home)
    if record is None:
        return None
    try:
        answer = httpx.get(f"{record.url}/v1/api/health", timeout=HEALTH_TIMEOUT_S, trust_env=False)
        return record if answer.is_success and answer.json().get("instance") == record.instance else None
    except (httpx.HTTPError, ValueError):
        return None
