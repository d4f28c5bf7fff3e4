"""Jobs that ended long ago are forgotten: the files of them, then what the database has. When files of all jobs take
too much, those of the jobs that ended first go earlier."""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from bettong.errors import NotFound
from bettong.jobs.space import taken_in
from bettong.services.job_files import LET_GO

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


def keep_within(jobs: JobStore, folder: Path, now: datetime, most_bytes: int) -> int:
    """Have files of ended jobs go, the job that ended first at first, until those of all jobs take `most_bytes` (0: no
    bound) at most; of how many jobs they went. The jobs stay, and their logs say so.

    Args:
        folder: has a folder per job, by its id; it need not exist.
    """
    if not most_bytes or not folder.is_dir():
        return 0
    taken = {path.name: taken_in(str(path)) for path in folder.iterdir() if path.is_dir()}
    left, gone = sum(taken.values()), 0
    for job_id in jobs.ended_before(now) if left > most_bytes else ():
        if left <= most_bytes:
            break
        if not taken.get(job_id):
            continue
        (folder / job_id / LET_GO).touch(mode=0o600)  # first: whoever reads what is left of them is told
        for file in sorted((folder / job_id).iterdir()):
            if file.name != LET_GO:
                _remove(file)
        with suppress(NotFound):  # another server forgot it just now
            jobs.append_log(job_id, [f"Its files went: those of all jobs took more than {most_bytes} bytes."])
        left, gone = left - taken[job_id], gone + 1
    if gone:
        log.info("let files of jobs go count=%d left_bytes=%d", gone, left)
    return gone


def _known(jobs: JobStore, job_id: str) -> bool:
    try:
        jobs.get(job_id)
    except NotFound:
        return False
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
