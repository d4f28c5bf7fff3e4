"""The queue of jobs: claim what is to be done, have an attempt made at it, apply what came of that."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bettong.domain.jobs import JobKind, JobState
from bettong.errors import BettongError, Forbidden, NotFound
from bettong.jobs.loop import Loop
from bettong.jobs.verdicts import Again, Finish, shortened, verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.jobs import Job
    from bettong.domain.ports import JobStore
    from bettong.jobs.verdicts import Ended
    from bettong.services.private_deployments import PrivateDeployments

log = logging.getLogger("bettong.jobs")

LEASE_S = 30.0
RENEW_EVERY_S = 10.0
LOOK_EVERY_S = 1.0
IDLE_LOOK_EVERY_S = 5.0  # jobs that another server let go of; ours wake us
STOP_TIMEOUT_S = 15.0
RESTARTED, TAKEN_OVER = "the platform was restarted", "the server that ran it is away"


@dataclass(frozen=True, slots=True)
class Places:
    """How many jobs of some kinds run at once."""

    kinds: frozenset[JobKind]
    at_once: int


PLACES = (
    Places(frozenset({JobKind.INFER_BATCH, JobKind.REPLAY}), 2),
    Places(frozenset({JobKind.INFER_STREAM}), 8),
)


class Attempting(Protocol):
    """An attempt at a claimed job (`attempt.Attempt`): `run` returns when it has ended, the rest has it end."""

    job: Job
    cancel_asked: bool
    going_down: bool
    lost: bool

    def run(self, why: str = "") -> Ended: ...
    def cancel(self) -> None: ...
    def go_down(self) -> None: ...
    def lose(self) -> None: ...
    def refuse(self, why: BettongError) -> None: ...


class JobQueue:
    """Works through unended jobs, oldest first, each in a thread and a process.

    What is to be done stands in the store alone: a job whose server was killed is claimed again by the next one, at
    once by one of the same name.

    Args:
        attempt_at: makes an attempt, which does not begin before its `run`.
        server: names this server over its restarts, and no other one.
        standing: raises Forbidden or NotFound for a job that may not do any more what it does. Asked as often as a
            lease is renewed.
        now_s: seconds of a clock that only moves forward.
    """

    def __init__(
        self,
        store: JobStore,
        deployments: PrivateDeployments,
        attempt_at: Callable[[Job], Attempting],
        server: str,
        standing: Callable[[Job], object],
        *,
        places: tuple[Places, ...] = PLACES,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._deployments, self._attempt_at = store, deployments, attempt_at
        self._server, self._standing, self._places, self._now_s = server, standing, places, now_s
        self._running: dict[str, Running] = {}
        self._failures: dict[str, int] = {}
        self._found: set[str] = set()  # jobs that there were when it began
        self._tried: set[str] = set()  # jobs that it has made an attempt at, of those that have not ended
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._begun = self._stopping = False
        self._next_look_s = 0.0
        self._loop = Loop("job-queue", self.round, every_s=LOOK_EVERY_S)

    def start(self) -> None:
        self._loop.start()

    def wake(self) -> None:
        """There is a new job, or one is to be cancelled."""
        self._woken.set()
        self._loop.wake()

    def stop(self) -> None:
        """Claim nothing more, have running jobs stop where it is safe, and let go of them. Twice is no error."""
        if self._stopping:
            return
        self._stopping = True
        self._loop.stop()
        running = self._now_running()
        for each in running:
            each.attempt.go_down()
        until = time.monotonic() + STOP_TIMEOUT_S
        for each in running:
            each.thread.join(max(0.0, until - time.monotonic()))
        for each in self._now_running():
            each.attempt.lose()
            each.thread.join(STOP_TIMEOUT_S)
        if self._begun:
            self._store.release(self._server)

    def round(self) -> None:
        """One look at what runs and at what is to be done. The first one lets go of what the last run of this server
        held, and stops deployments whose job has ended."""
        if not self._begun:
            self._begin()
        woken = self._woken.is_set()
        self._woken.clear()
        now = self._now_s()
        for each in self._now_running():
            self._renew(each, now)
        if woken or self._running or now >= self._next_look_s:
            self._next_look_s = now + IDLE_LOOK_EVERY_S
            self._claim(now)

    def _begin(self) -> None:
        store = self._store
        if held := store.release(self._server):
            log.info("jobs_found_again count=%d", held)
        unended = [job.id for job in store.all(None, unended=True)]
        self._found.update(unended)
        for label in self._deployments.stop_leftovers(unended):
            log.warning("stopped_leftover deployment=%s", label)
        self._begun = True

    def _renew(self, each: Running, now: float) -> None:
        job, store = each.attempt.job, self._store
        current: Job | None
        if due := now >= each.renew_s:
            each.renew_s = now + RENEW_EVERY_S
            current = store.renew(job.id, job.attempts, lease_s=LEASE_S)
        else:
            current = store.get(job.id)
        if current is None or current.attempts != job.attempts:
            each.attempt.lose()
        elif current.cancel_asked:
            each.attempt.cancel()
        elif due:
            self._look_at_rights(each.attempt)

    def _look_at_rights(self, attempt: Attempting) -> None:
        try:
            self._standing(attempt.job)
        except (Forbidden, NotFound) as why:
            log.warning("job_refused job=%s reason=%s", attempt.job.id, why)
            attempt.refuse(why)
        except BettongError as fault:  # nobody can tell now: it is asked again
            log.warning("rights_of_job job=%s problem=%s", attempt.job.id, fault)

    def _claim(self, now: float) -> None:
        for place in self._places:
            while not self._stopping and self._count(place) < place.at_once:
                # Not those at hand: after a clock was set, or a laptop slept, their leases seem to have run out.
                own = [each.attempt.job.id for each in self._now_running()]
                job = self._store.claim(self._server, lease_s=LEASE_S, kinds=place.kinds, besides=own)
                if job is None:
                    break
                self._begin_attempt(job, now)

    def _begin_attempt(self, job: Job, now: float) -> None:
        attempt = self._attempt_at(job)
        why = self._why_again(job)
        self._tried.add(job.id)
        thread = threading.Thread(target=self._run, args=(attempt, why), name=f"bettong-job-{job.id[:8]}", daemon=True)
        with self._lock:
            self._running[job.id] = Running(attempt, thread, now + RENEW_EVERY_S)
        log.info("job_starts job=%s kind=%s attempt=%d", job.id, job.kind, job.attempts)
        thread.start()

    def _why_again(self, job: Job) -> str:
        """Why a job is attempted again by a server that has not said so itself; "" where it has."""
        if job.attempts == 1 or job.id in self._tried:
            return ""
        return RESTARTED if job.id in self._found else TAKEN_OVER

    def _run(self, attempt: Attempting, why: str) -> None:
        try:
            ended = attempt.run(why)
            job = attempt.job
            if attempt.lost:
                if not attempt.going_down:
                    self._stop_deployment(job)  # whoever has the job now has another one
                return
            follows = verdict(
                ended,
                self._failures.get(job.id, 0),
                cancel_asked=attempt.cancel_asked,
                going_down=attempt.going_down,
            )
            if isinstance(follows, Finish):
                self._finish(job, follows)
            elif isinstance(follows, Again):
                self._try_again(job, follows)
        except Exception:
            log.exception("job_not_settled job=%s", attempt.job.id)
        finally:
            with self._lock:
                self._running.pop(attempt.job.id, None)
            self._loop.wake()

    def _finish(self, job: Job, end: Finish) -> None:
        self._failures.pop(job.id, None)
        self._tried.discard(job.id)
        self._stop_deployment(job)
        words = {JobState.SUCCEEDED: "It is done.", JobState.CANCELLED: "It was cancelled."}
        error = shortened(end.error)
        self._store.append_log(job.id, [words.get(end.state, f"It failed: {error}")])
        self._store.finish(job.id, job.attempts, end.state, result=end.result, error=error)
        log.info("job_ends job=%s state=%s", job.id, end.state)

    def _stop_deployment(self, job: Job) -> None:
        try:
            self._deployments.stop(job.id)
        except BettongError as fault:  # the next start of a server stops it
            log.warning("stop_failed job=%s reason=%s", job.id, fault)

    def _try_again(self, job: Job, again: Again) -> None:
        """Keep the claim, unrenewed: once its lease has run out the job is claimed for the next attempt."""
        self._failures[job.id] = again.failures
        self._store.append_log(job.id, [f"{shortened(again.why)} Trying again in {again.after_s:g} s."])
        self._store.renew(job.id, job.attempts, lease_s=again.after_s)
        log.warning("job_again job=%s after_s=%g reason=%s", job.id, again.after_s, again.why)

    def _now_running(self) -> list[Running]:
        with self._lock:
            return list(self._running.values())

    def _count(self, place: Places) -> int:
        return sum(each.attempt.job.kind in place.kinds for each in self._now_running())


@dataclass(slots=True)
class Running:
    attempt: Attempting
    thread: threading.Thread
    renew_s: float
