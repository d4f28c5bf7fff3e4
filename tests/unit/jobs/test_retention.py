"""What is kept of jobs that have ended, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bettong.domain.jobs import Job, JobKind, JobState
from bettong.errors import NotFound
from bettong.jobs.retention import forget_old
from bettong.storage.stores import open_stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.storage.stores import Stores

NOW = datetime(2026, 3, 31, tzinfo=UTC)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    with open_stores(f"sqlite:///{tmp_path / 'bettong.db'}") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


def a_job(stores: Stores, folder: Path, name: str, ended_days_ago: int | None) -> str:
    """A job with a file; None: it runs."""
    ended = None if ended_days_ago is None else NOW - timedelta(days=ended_days_ago)
    state = JobState.RUNNING if ended is None else JobState.SUCCEEDED
    user = next(iter(stores.users.all()), None) or stores.users.add("ann@example.com", "ann", is_admin=False)
    workspace = next(iter(stores.workspaces.all()), None) or stores.workspaces.add("alpha", user.id)
    stores.jobs.add(Job(name, JobKind.REPLAY, workspace.id, user.id, {}, state, NOW, ended_at=ended))
    (folder / name).mkdir(parents=True)
    (folder / name / "rejects-0.arrow").write_bytes(b"rows")
    return name


def test_jobs_go_with_their_files_when_their_days_are_over(stores: Stores, folder: Path) -> None:
    old = a_job(stores, folder, "old", ended_days_ago=31)
    for kept, days in (("recent", 29), ("running", None)):
        a_job(stores, folder, kept, ended_days_ago=days)

    assert forget_old(stores.jobs, folder, NOW, days=30) == 1

    assert sorted(path.name for path in folder.iterdir()) == ["recent", "running"]
    with pytest.raises(NotFound):
        stores.jobs.get(old)


def test_no_days_keep_jobs_for_good(stores: Stores, folder: Path) -> None:
    a_job(stores, folder, "old", ended_days_ago=4000)

    assert forget_old(stores.jobs, folder, NOW, days=0) == 0

    assert (folder / "old" / "rejects-0.arrow").exists()


def test_files_of_a_job_that_is_gone_go_too(stores: Stores, folder: Path) -> None:
    a_job(stores, folder, "ours", ended_days_ago=1)
    (folder / "forgotten elsewhere").mkdir()

    forget_old(stores.jobs, folder, NOW, days=30)

    assert [path.name for path in folder.iterdir()] == ["ours"]


def test_a_job_whose_files_are_gone_already_is_forgotten_all_the_same(stores: Stores, folder: Path) -> None:
    old = a_job(stores, folder, "old", ended_days_ago=31)
    (folder / old / "rejects-0.arrow").unlink()
    (folder / old).rmdir()

    assert forget_old(stores.jobs, folder, NOW, days=30) == 1
