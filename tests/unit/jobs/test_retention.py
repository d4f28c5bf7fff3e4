"""What is kept of jobs that have ended, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from bettong.domain.jobs import Job, JobKind, JobState
from bettong.errors import NotFound
from bettong.jobs.queue import PLACES
from bettong.jobs.retention import forget_old, keep_within
from bettong.jobs.space import shares
from bettong.services.job_files import rows_of
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
    (folder / name / "rejects-0.arrow").write_bytes(b"rows" * 25)
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


def test_files_of_the_jobs_that_ended_first_go_when_those_of_all_take_too_much(stores: Stores, folder: Path) -> None:
    running = a_job(stores, folder, "running", ended_days_ago=None)
    for name, days in (("just ended", 1), ("long ago", 20), ("in between", 10)):
        a_job(stores, folder, name, ended_days_ago=days)

    assert keep_within(stores.jobs, folder, NOW, 400) == 0
    assert keep_within(stores.jobs, folder, NOW, 399) == 1
    assert keep_within(stores.jobs, folder, NOW, 200) == 1
    assert keep_within(stores.jobs, folder, NOW, 200) == 0

    left = [name for name in ("running", "just ended", "long ago", "in between") if any((folder / name).glob("re*"))]
    assert left == [running, "just ended"]
    assert [line.text for line in stores.jobs.log("long ago")] == [
        "Its files went: those of all jobs took more than 399 bytes."
    ]
    assert stores.jobs.get("long ago").state is JobState.SUCCEEDED
    with pytest.raises(NotFound, match="The rejects of this job went"), rows_of(folder / "long ago", "rejects"):
        pass


def test_files_of_a_running_job_stay_however_much_they_take(stores: Stores, folder: Path) -> None:
    running = a_job(stores, folder, "running", ended_days_ago=None)

    assert keep_within(stores.jobs, folder, NOW, 1) == 0

    assert (folder / running / "rejects-0.arrow").exists()


def test_without_a_bound_or_a_job_no_files_go(stores: Stores, folder: Path) -> None:
    assert keep_within(stores.jobs, folder, NOW, 1) == 0
    a_job(stores, folder, "old", ended_days_ago=1)

    assert keep_within(stores.jobs, folder, NOW, 0) == 0


def test_all_jobs_that_run_at_once_have_a_share_and_together_no_more_than_there_is() -> None:
    of_each = shares(1000, PLACES)

    assert of_each == {JobKind.INFER_BATCH: 250, JobKind.REPLAY: 250, JobKind.INFER_STREAM: 62}
    assert sum(place.at_once * max(of_each[kind] for kind in place.kinds) for place in PLACES) <= 1000
    assert set(shares(0, PLACES).values()) == {0}
