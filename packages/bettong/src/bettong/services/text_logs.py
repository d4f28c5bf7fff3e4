"""Logs in words: the server's, each host's with its replicas, each worker's. They are kept from growing without end.

Whoever writes one has it open for appending and for long, so a log is cut where it lies and never moved.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEPT_BYTES = 16 * 2**20


def bound(home: Path, kept_bytes: int = KEPT_BYTES) -> list[Path]:
    """Empty the logs under `home` that have more than `kept_bytes`; the ones that were emptied.

    The end of each, `kept_bytes` long, is kept beside it as `<name>.1`, in place of what lay there. A line that is
    written in the moment between may be lost.
    """
    cut = []
    for log in _logs(home):
        try:
            if log.stat().st_size > kept_bytes:
                _keep_end(log, kept_bytes)
                os.truncate(log, 0)
                cut.append(log)
        except FileNotFoundError:  # its deployment is being removed
            continue
    return cut


def tail(log: Path, lines: int, most_bytes: int = 2**20) -> list[str]:
    """The last lines of a log, oldest first, those included that `bound` has put aside; [] when there is none."""
    text = b""
    for part in (log, _kept(log)):
        text = _end(part, most_bytes - len(text)) + text
        if text.count(b"\n") > lines:
            break
    return text.decode("utf-8", "replace").splitlines()[-lines:]


def _logs(home: Path) -> Iterator[Path]:
    yield home / "server.log"
    yield from sorted((home / "deployments").glob("*/*.log"))


def _kept(log: Path) -> Path:
    return log.with_name(f"{log.name}.1")


def _keep_end(log: Path, most_bytes: int) -> None:
    end = _end(log, most_bytes)
    draft = log.with_name(f"{log.name}.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(end[end.find(b"\n") + 1 :])
    draft.replace(_kept(log))


def _end(log: Path, most_bytes: int) -> bytes:
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most_bytes))
            return file.read(most_bytes)
    except FileNotFoundError:
        return b""
