"""Jobs that ended long ago are forgotten: the files of them, then what the database has."""

from __future__ import annotations

import logging
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

from bettong.errors import NotFound

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from bettong.domain.ports import JobStore

log = logging.getLogger("bettong.jobs")


def forget_old(jobs: JobStore, folder: Path, now: datetime, days: int) -> int:
    """Forget every job that ended more than `days` ago (0: none), and files whose job is gone; how many jobs went.

    Files go first: a job whose row is there is found again in the next round, whatever stopped this one.

    Args:
        folder: has a folder per job, by its id; it need not exist.
    """
    old = jobs.ended_before(now - timedelta(days=days)) if days else []
    for job_id in old:
        _remove(folder / job_id)
        jobs.forget(job_id)
    for left in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not _known(jobs, left.name):  # another server of this database forgot it
            _remove(left)
    if old:
        log.info("forgot jobs count=%d ended_days_ago=%d", len(old), days)
    return len(old)


def _known(jobs: JobStore, job_id: str) -> bool:
    try:
        jobs.get(job_id)
    except NotFound:
        return False
    return True


def _remove(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
