"""What every job store promises: nothing is lost, nothing is worked on twice at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from bettong.domain.jobs import Job, JobKind, JobState
from bettong.errors import Conflict, NotFound
from bettong.storage.stores import open_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.storage.jobs import SqlJobStore
    from bettong.storage.stores import Stores

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


class Watch:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = STARTED

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def stores(database_url: str, watch: Watch) -> Iterator[Stores]:
    with open_stores(database_url, clock=watch) as opened:
        yield opened


@pytest.fixture
def workspace(stores: Stores) -> int:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    return stores.workspaces.add("alpha", ann.id).id


@pytest.fixture
def jobs(stores: Stores) -> SqlJobStore:
    return stores.jobs


def a_job(workspace: int, **more: Any) -> Job:
    known: dict[str, Any] = {
        "id": str(uuid4()),
        "kind": JobKind.INFER_BATCH,
        "workspace_id": workspace,
        "created_by": "u-ann",
        "request": {"query": "select 1", "map": {"count": "n"}, "rows": 2**53 + 1},
        "state": JobState.PENDING,
        "created_at": STARTED,
    }
    return Job(**{**known, **more})


def added(jobs: SqlJobStore, workspace: int, **more: Any) -> Job:
    job = a_job(workspace, **more)
    jobs.add(job)
    return job


def claimed(jobs: SqlJobStore, server: str = "one", lease_s: float = 30) -> Job:
    job = jobs.claim(server, lease_s=lease_s)
    assert job is not None
    return job


def test_a_job_comes_back_as_it_was_kept(jobs: SqlJobStore, workspace: int) -> None:
    job = added(jobs, workspace, progress={"rows_read": 3, "rows_total": None}, connection_ids=("c-2", "c-1"))

    assert jobs.get(job.id) == job
    with pytest.raises(Conflict):
        jobs.add(job)
    with pytest.raises(NotFound):
        jobs.add(a_job(workspace + 1))
    with pytest.raises(NotFound):
        jobs.get("other")


def test_jobs_are_listed_newest_first_by_workspace_kind_state_and_connection(
    stores: Stores, jobs: SqlJobStore, workspace: int
) -> None:
    other = stores.workspaces.add("beta", stores.users.all()[0].id).id
    first = added(jobs, workspace, connection_ids=("c-1",))
    replay = added(jobs, workspace, kind=JobKind.REPLAY, state=JobState.FAILED, connection_ids=("c-1", "c-2"))
    elsewhere = added(jobs, other)

    def ids(found: list[Job]) -> list[str]:
        return [job.id for job in found]

    assert ids(jobs.all(None)) == [elsewhere.id, replay.id, first.id]
    assert ids(jobs.all(None, limit=2)) == [elsewhere.id, replay.id]
    assert ids(jobs.all([workspace])) == [replay.id, first.id]
    assert ids(jobs.all([])) == []
    assert ids(jobs.all(None, kinds=[JobKind.REPLAY])) == [replay.id]
    assert ids(jobs.all(None, unended=True)) == [elsewhere.id, first.id]
    assert ids(jobs.all(None, connection_id="c-1")) == [replay.id, first.id]
    assert ids(jobs.all(None, connection_id="c-1", unended=True)) == [first.id]
    assert ids(jobs.all(None, after=elsewhere.id)) == [replay.id, first.id]
    assert ids(jobs.all([workspace], limit=1, after=replay.id)) == [first.id]
    assert ids(jobs.all(None, unended=True, after=replay.id)) == [first.id]  # behind one that has ended
    assert ids(jobs.all(None, after=first.id)) == []
    for nowhere in (str(uuid4()), elsewhere.id):
        with pytest.raises(NotFound, match="no job with the id"):
            jobs.all([workspace], after=nowhere)


def test_the_oldest_job_is_claimed_first_and_only_once(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    first, second = added(jobs, workspace), added(jobs, workspace)
    watch.advance(5)

    one, two = claimed(jobs), claimed(jobs, "two")

    assert (one.id, two.id) == (first.id, second.id)
    assert (one.state, one.attempts, one.started_at) == (JobState.RUNNING, 1, STARTED + timedelta(seconds=5))
    assert jobs.claim("three", lease_s=30) is None


def test_a_job_at_hand_is_not_claimed_again_whatever_its_lease_says(
    jobs: SqlJobStore, workspace: int, watch: Watch
) -> None:
    own, other = added(jobs, workspace), added(jobs, workspace)
    claimed(jobs)
    watch.advance(3600)

    found = jobs.claim("one", lease_s=30, besides=[own.id])

    assert found is not None
    assert found.id == other.id
    assert jobs.claim("one", lease_s=30, besides=[own.id]) is None


def test_only_jobs_of_the_asked_kinds_are_claimed(jobs: SqlJobStore, workspace: int) -> None:
    added(jobs, workspace)
    replay = added(jobs, workspace, kind=JobKind.REPLAY)

    found = jobs.claim("one", lease_s=30, kinds=[JobKind.REPLAY])

    assert found is not None
    assert found.id == replay.id
    assert jobs.claim("one", lease_s=30, kinds=[JobKind.REPLAY]) is None


def test_of_many_servers_that_claim_at_once_none_gets_anothers_job(
    database_url: str, jobs: SqlJobStore, workspace: int
) -> None:
    wanted = {added(jobs, workspace).id for _ in range(24)}

    def work(server: int) -> list[str]:
        with open_stores(database_url) as stores:
            found = iter(lambda: stores.jobs.claim(f"server {server}", lease_s=3600), None)
            return [job.id for job in found if job is not None]

    with ThreadPoolExecutor(4) as threads:
        got = [job_id for ids in threads.map(work, range(4)) for job_id in ids]

    assert len(got) == 24
    assert set(got) == wanted


def test_a_job_whose_server_fell_silent_is_claimed_by_the_next_after_its_lease(
    jobs: SqlJobStore, workspace: int, watch: Watch
) -> None:
    added(jobs, workspace)
    lost = claimed(jobs, "one", lease_s=30)
    jobs.report(lost.id, lost.attempts, progress={"rows_read": 7}, position="7")
    watch.advance(29)
    assert jobs.claim("two", lease_s=30) is None
    watch.advance(1)

    again = claimed(jobs, "two")

    assert (again.id, again.attempts, again.position) == (lost.id, 2, "7")
    assert again.started_at == STARTED


def test_a_renewed_lease_holds_and_tells_of_a_wish_to_cancel(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    added(jobs, workspace)
    job = claimed(jobs)
    watch.advance(20)
    jobs.ask_cancel(job.id)

    renewed = jobs.renew(job.id, job.attempts, lease_s=30)
    watch.advance(20)

    assert renewed is not None
    assert renewed.cancel_asked
    assert jobs.claim("two", lease_s=30) is None


def test_a_server_that_lost_its_job_changes_nothing_of_it(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    added(jobs, workspace)
    old = claimed(jobs)
    watch.advance(31)
    new = claimed(jobs, "two")

    assert jobs.renew(old.id, old.attempts, lease_s=30) is None
    assert jobs.report(old.id, old.attempts, progress={"rows_read": 1}, position="1") is None
    assert jobs.finish(old.id, old.attempts, JobState.FAILED, error="lost") is None
    assert jobs.get(new.id) == new


def test_what_a_restarted_server_had_is_free_at_once(jobs: SqlJobStore, workspace: int) -> None:
    added(jobs, workspace)
    other = added(jobs, workspace)
    mine, theirs = claimed(jobs, "one"), claimed(jobs, "two")

    assert jobs.release("one") == 1

    again = claimed(jobs, "one")
    assert (again.id, again.attempts) == (mine.id, 2)
    assert jobs.claim("one", lease_s=30) is None
    assert theirs.id == other.id


def test_progress_and_position_are_kept_each_on_its_own(jobs: SqlJobStore, workspace: int) -> None:
    added(jobs, workspace)
    job = claimed(jobs)

    jobs.report(job.id, 1, progress={"rows_read": 1}, position="p1")
    jobs.report(job.id, 1, progress={"rows_read": 2})
    jobs.report(job.id, 1, position="p2")
    jobs.report(job.id, 1)

    kept = jobs.get(job.id)
    assert (kept.progress, kept.position) == ({"rows_read": 2}, "p2")


def test_a_finished_job_stays_as_it_ended(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    added(jobs, workspace)
    job = claimed(jobs)
    watch.advance(3)

    done = jobs.finish(job.id, 1, JobState.SUCCEEDED, result={"rows": 5})

    assert done is not None
    assert (done.state, done.ended_at, done.result) == (JobState.SUCCEEDED, watch.now, {"rows": 5})
    assert jobs.finish(job.id, 1, JobState.FAILED, error="late") is None
    assert jobs.ask_cancel(job.id) == done
    watch.advance(3600)
    assert jobs.claim("two", lease_s=30) is None
    with pytest.raises(ValueError, match="running"):
        jobs.finish(job.id, 1, JobState.RUNNING)


def test_a_pending_job_is_cancelled_at_once(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    job = added(jobs, workspace)

    cancelled = jobs.ask_cancel(job.id)

    assert (cancelled.state, cancelled.ended_at) == (JobState.CANCELLED, watch.now)
    assert jobs.claim("one", lease_s=30) is None
    with pytest.raises(NotFound):
        jobs.ask_cancel("other")


def test_a_log_is_read_from_where_the_last_reader_stopped(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    job, other = added(jobs, workspace), added(jobs, workspace)
    jobs.append_log(job.id, ["one", "two\0"])
    jobs.append_log(other.id, ["elsewhere"])
    read = jobs.log(job.id)
    watch.advance(1)
    jobs.append_log(job.id, ["three", "four"])

    assert [(line.text, line.at) for line in read] == [("one", STARTED), ("two\N{REPLACEMENT CHARACTER}", STARTED)]
    assert [line.text for line in jobs.log(job.id, after=read[-1].seq)] == ["three", "four"]
    assert [line.text for line in jobs.log(job.id, limit=1)] == ["four"]
    with pytest.raises(NotFound):
        jobs.append_log("other", ["x"])
    with pytest.raises(NotFound):
        jobs.log("other")


def test_ended_jobs_are_told_in_the_order_of_their_end(jobs: SqlJobStore, workspace: int, watch: Watch) -> None:
    began = [added(jobs, workspace).id for _ in range(3)]
    for job_id in (began[1], began[0]):
        watch.advance(60)
        jobs.ask_cancel(job_id)
    watch.advance(60)

    assert jobs.ended_before(watch.now) == [began[1], began[0]]


def test_a_job_is_forgotten_with_all_that_is_known_of_it_once_it_has_ended(
    jobs: SqlJobStore, workspace: int, watch: Watch
) -> None:
    connection = str(uuid4())
    old, running = added(jobs, workspace, connection_ids=(connection,)), added(jobs, workspace)
    jobs.append_log(old.id, ["done"])
    jobs.ask_cancel(old.id)
    claimed(jobs)
    watch.advance(60)

    assert jobs.ended_before(STARTED) == []
    assert jobs.ended_before(watch.now) == [old.id]
    for job_id in (old.id, old.id, running.id):
        jobs.forget(job_id)

    assert [job.id for job in jobs.all(None)] == [running.id]
    assert jobs.all(None, connection_id=connection) == []
    with pytest.raises(NotFound):
        jobs.log(old.id)
