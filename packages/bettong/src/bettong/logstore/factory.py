"""The log of a replica, from what its deployment file says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bettong.domain.logs import OnLogFull, topic_of
from bettong.logstore.nothing import NothingKept
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from bettong.domain.deployments import DeploymentSpec
    from bettong.domain.ports import LogWriter


def open_log(spec: DeploymentSpec, replica_name: str) -> LogWriter:
    """A writer for one replica process; opens nothing before its first append. It keeps nothing without a folder.

    Raises:
        BadInput: the replica's name cannot name a folder.
    """
    if not spec.log_folder:
        return NothingKept()
    failures = topic_of(spec.workspace_id, spec.name, failures=True)
    return SegmentLogWriter(
        Path(spec.log_folder),
        spec.topic,
        failures,
        replica_name,
        roll_bytes=spec.log_segment_bytes,
        on_full=OnLogFull(spec.on_log_full),
    )
