"""The queue of jobs over a real store, with clocks and attempts that a test holds in its hand."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import pytest

from bettong.domain.jobs import Job, JobKind, JobState
from bettong.errors import BadInput, BettongError, Forbidden, NotFound, Unavailable
from bettong.jobs.queue import LEASE_S, RENEW_EVERY_S, JobQueue
from bettong.jobs.verdicts import Ended
from bettong.storage.stores import open_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bettong.services.private_deployments import PrivateDeployments
    from bettong.storage.jobs import SqlJobStore
    from bettong.storage.stores import Stores

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE_S = 20.0


class Watch:
    """Both clocks of a server: the store's and the queue's."""

    def __init__(self) -> None:
        self.passed_s = self.jumped_s = 0.0  # what jumps is the clock on the wall alone

    def __call__(self) -> datetime:
        return BEGAN + timedelta(seconds=self.passed_s + self.jumped_s)

    def now_s(self) -> float:
        return self.passed_s


class HeldAttempt:
    """Ends when the test says so, or when it is told to go down or that it is lost."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.cancel_asked = self.going_down = self.lost = False
        self.why = "not begun"
        self.thread: Future[threading.Thread] = (
            Future()
        )  # the one that it runs in; of a lost attempt it has the same name
        self._end = threading.Event()
        self._ended = Ended(stopped=True)

    def run(self, why: str = "") -> Ended:
        self.why = why
        self.thread.set_result(threading.current_thread())
        assert self._end.wait(PATIENCE_S)
        return self._ended

    def end(self, ended: Ended) -> None:
        self._ended = ended
        self._end.set()

    def cancel(self) -> None:
        self.cancel_asked = True

    def go_down(self) -> None:
        self.going_down = True
        self._end.set()

    def lose(self) -> None:
        self.lost = True
        self._end.set()

    def refuse(self, why: BettongError) -> None:
        self.end(Ended(error=why))


class Deployments:
    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.wanted: list[list[str]] = []

    def stop(self, job_id: str) -> None:
        self.stopped.append(job_id)

    def stop_leftovers(self, unended: list[str]) -> list[str]:
        self.wanted.append(list(unended))
        return []


class Server:
    """A queue with what it works on; `attempts` in the order in which they began."""

    def __init__(self, stores: Stores, watch: Watch, name: str) -> None:
        self.attempts: list[HeldAttempt] = []
        self.deployments = Deployments()
        self.against: BettongError | None = None  # what is to be said against its jobs
        deployments = cast("PrivateDeployments", self.deployments)
        self.queue = JobQueue(stores.jobs, deployments, self._attempt_at, name, self._standing, now_s=watch.now_s)

    def round(self) -> None:
        self.queue.wake()
        self.queue.round()

    def end(self, at: int, ended: Ended) -> None:
        """End an attempt, and wait until the queue has applied what came of it."""
        self.attempts[at].thread.result(PATIENCE_S)
        self.attempts[at].end(ended)
        self.joined(at)

    def joined(self, at: int) -> None:
        """Wait until the queue has applied what came of an attempt."""
        thread = self.attempts[at].thread.result(PATIENCE_S)
        thread.join(PATIENCE_S)
        assert not thread.is_alive()

    def _standing(self, job: Job) -> None:
        if self.against is not None:
            raise self.against

    def _attempt_at(self, job: Job) -> HeldAttempt:
        self.attempts.append(HeldAttempt(job))
        return self.attempts[-1]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def stores(tmp_path: Path, watch: Watch) -> Iterator[Stores]:
    with open_stores(f"sqlite:///{tmp_path / 'bettong.db'}", clock=watch) as opened:
        yield opened


@pytest.fixture
def jobs(stores: Stores) -> SqlJobStore:
    return stores.jobs


@pytest.fixture
def added(stores: Stores) -> Callable[..., Job]:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    workspace = stores.workspaces.add("alpha", ann.id).id

    def add(kind: JobKind = JobKind.INFER_BATCH, **more: Any) -> Job:
        known: dict[str, Any] = {"id": str(uuid4()), "kind": kind, "workspace_id": workspace, "created_by": ann.id}
        job = Job(**{**known, "request": {}, "state": JobState.PENDING, "created_at": BEGAN, **more})
        stores.jobs.add(job)
        return job

    return add


@pytest.fixture
def server(stores: Stores, watch: Watch) -> Iterator[Server]:
    made = Server(stores, watch, "one")
    yield made
    made.queue.stop()


@pytest.fixture
def other(stores: Stores, watch: Watch) -> Iterator[Server]:
    """Another server on the same database."""
    made = Server(stores, watch, "two")
    yield made
    made.queue.stop()


def test_batches_run_two_at_a_time_oldest_first_and_streams_beside_them(
    server: Server, added: Callable[..., Job]
) -> None:
    batches = [added(), added(JobKind.REPLAY), added()]
    streams = [added(JobKind.INFER_STREAM) for _ in range(9)]

    server.round()

    assert [a.job.id for a in server.attempts] == [job.id for job in (*batches[:2], *streams[:8])]
    server.end(0, Ended(result={"rows": 1}))
    server.round()
    assert [a.job.id for a in server.attempts[10:]] == [batches[2].id]


def test_what_came_of_an_attempt_is_kept_and_its_deployment_is_gone(
    server: Server, jobs: SqlJobStore, added: Callable[..., Job]
) -> None:
    done, failed = added(), added()
    server.round()

    server.end(0, Ended(result={"rows": 6}))
    server.end(1, Ended(error=BadInput("No such column.", "Name another.")))

    assert (jobs.get(done.id).state, jobs.get(done.id).result) == (JobState.SUCCEEDED, {"rows": 6})
    assert (jobs.get(failed.id).state, jobs.get(failed.id).error) == (
        JobState.FAILED,
        "No such column. Name another.",
    )
    assert server.deployments.stopped == [done.id, failed.id]
    assert [line.text for line in jobs.log(failed.id)] == ["It failed: No such column. Name another."]


def test_a_job_whose_process_died_is_tried_again_after_a_pause_and_fails_after_the_third_time(
    server: Server, jobs: SqlJobStore, watch: Watch, added: Callable[..., Job]
) -> None:
    job = added()
    died = Ended(error=Unavailable("The job's process ended by signal 9."))

    for attempt, pause_s in ((1, 2.0), (2, 4.0)):
        server.round()
        assert server.attempts[-1].job.attempts == attempt
        server.end(attempt - 1, died)
        watch.passed_s += pause_s - 0.1
        server.round()
        assert len(server.attempts) == attempt  # not yet
        watch.passed_s += 0.2
    server.round()
    server.end(2, died)

    kept = jobs.get(job.id)
    assert (kept.state, kept.attempts) == (JobState.FAILED, 3)
    assert "It was tried 3 times in a row without getting further" in kept.error


def test_somebody_elses_wish_to_cancel_reaches_the_attempt(
    server: Server, jobs: SqlJobStore, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    jobs.ask_cancel(job.id)
    server.round()

    assert server.attempts[0].cancel_asked
    server.end(0, Ended(result={"rows": 2}, stopped=True))
    assert (jobs.get(job.id).state, jobs.get(job.id).result) == (JobState.CANCELLED, {"rows": 2})


@pytest.mark.parametrize("kind", [Forbidden, NotFound])
def test_a_job_that_may_not_go_on_fails_at_the_next_renewal_in_these_words(
    kind: type[BettongError], server: Server, jobs: SqlJobStore, watch: Watch, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    server.against = kind("Ann is no longer a member.", "Have a member make it anew.")
    server.round()
    assert jobs.get(job.id).state is JobState.RUNNING  # rights are not looked up at every look
    watch.passed_s += RENEW_EVERY_S
    server.round()
    server.joined(0)

    assert (jobs.get(job.id).state, jobs.get(job.id).error) == (
        JobState.FAILED,
        "Ann is no longer a member. Have a member make it anew.",
    )
    server.round()
    assert len(server.attempts) == 1


def test_a_job_goes_on_while_nobody_can_tell_whether_it_may(
    server: Server, jobs: SqlJobStore, watch: Watch, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    server.against = Unavailable("The database does not answer.")
    watch.passed_s += RENEW_EVERY_S
    server.round()

    server.end(0, Ended(result={"rows": 6}))
    assert jobs.get(job.id).state is JobState.SUCCEEDED


def test_a_server_keeps_its_jobs_for_as_long_as_it_looks_after_them(
    server: Server, other: Server, watch: Watch, added: Callable[..., Job]
) -> None:
    added()
    server.round()

    for _ in range(10):
        watch.passed_s += RENEW_EVERY_S
        server.round()
        other.round()

    assert other.attempts == []
    assert not server.attempts[0].lost


def test_a_server_that_was_away_too_long_has_lost_its_job_to_another_and_keeps_nothing_more(
    server: Server, other: Server, jobs: SqlJobStore, watch: Watch, added: Callable[..., Job]
) -> None:
    other.round()  # it was there before
    job = added()
    server.round()

    watch.passed_s += LEASE_S + 1
    other.round()
    server.round()

    assert server.attempts[0].lost
    assert other.attempts[0].job.attempts == 2
    other.end(0, Ended(result={"rows": 6}))
    assert other.attempts[0].why == "the server that ran it is away"
    assert jobs.get(job.id).state is JobState.SUCCEEDED
    server.queue.stop()  # which waits for the attempt
    assert server.deployments.stopped == [job.id]  # its own: the other server has another one


def test_a_job_that_a_stopped_server_left_says_why_it_begins_again(
    stores: Stores, watch: Watch, added: Callable[..., Job]
) -> None:
    added()
    before, after = Server(stores, watch, "one"), Server(stores, watch, "one")
    before.round()
    before.queue.stop()

    after.round()
    after.end(0, Ended(error=Unavailable("It died.")))
    watch.passed_s += LEASE_S
    after.round()
    after.end(1, Ended(result={}))
    after.queue.stop()

    assert before.attempts[0].why == ""
    assert [each.why for each in after.attempts] == ["the platform was restarted", ""]  # the second has said its reason


def test_a_server_that_sleeps_and_wakes_alone_goes_on_and_starts_nothing_twice(
    server: Server, watch: Watch, added: Callable[..., Job]
) -> None:
    added()
    server.round()

    watch.passed_s += 10 * LEASE_S
    server.round()

    assert (len(server.attempts), server.attempts[0].lost) == (1, False)


def test_a_clock_that_jumps_beyond_the_lease_has_a_server_start_nothing_twice(
    server: Server, jobs: SqlJobStore, watch: Watch, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    watch.jumped_s += 10 * LEASE_S  # it was set, or the machine slept
    server.round()

    assert (len(server.attempts), server.attempts[0].lost) == (1, False)
    server.end(0, Ended(result={"rows": 6}))
    assert (jobs.get(job.id).state, jobs.get(job.id).attempts) == (JobState.SUCCEEDED, 1)


def test_an_error_without_an_end_is_kept_as_far_as_people_read(
    server: Server, jobs: SqlJobStore, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    server.end(0, Ended(error=BadInput("The columns do not fit: " + "c, " * 1_000_000)))

    error = jobs.get(job.id).error
    assert error.startswith("The columns do not fit: c, c, ")
    assert error.endswith("characters in all)")
    assert max(len(error), len(jobs.log(job.id)[0].text)) < 5_000


def test_a_server_that_stops_lets_go_of_its_jobs_at_once(
    server: Server, other: Server, jobs: SqlJobStore, added: Callable[..., Job]
) -> None:
    job = added()
    server.round()

    server.queue.stop()
    other.round()

    assert server.attempts[0].going_down
    assert [a.job.id for a in other.attempts] == [job.id]
    assert jobs.get(job.id).attempts == 2
    assert server.deployments.stopped == []  # the next one finds it


def test_a_server_that_starts_takes_back_what_its_last_run_held_and_stops_what_nobody_wants(
    stores: Stores, watch: Watch, jobs: SqlJobStore, added: Callable[..., Job]
) -> None:
    job = added()
    assert jobs.claim("one", lease_s=LEASE_S) is not None  # and then it was killed

    reborn = Server(stores, watch, "one")
    reborn.round()

    assert [(a.job.id, a.job.attempts) for a in reborn.attempts] == [(job.id, 2)]
    assert reborn.deployments.wanted == [[job.id]]
    reborn.queue.stop()
