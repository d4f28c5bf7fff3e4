"""One attempt at a claimed job, from its private deployment to the last words of its process."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bettong.domain.jobs import JobKind
from bettong.drivers.piped import error_of
from bettong.errors import BettongError, Unavailable
from bettong.jobs.process import JobProcess
from bettong.jobs.pulse import Pulse
from bettong.jobs.verdicts import Ended, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bettong.domain.jobs import Job
    from bettong.domain.ports import JobStore
    from bettong.drivers.leases import Loan
    from bettong.drivers.processes import DriverProcesses
    from bettong.jobs.kinds import Programs
    from bettong.services.jobs import JobService
    from bettong.services.private_deployments import PrivateDeployments, Serving

log = logging.getLogger("bettong.jobs")

LOAD_TIMEOUT_S = 1800.0  # the models' own time-outs are shorter, and say more
LOOK_FIRST_S, LOOK_SLOWEST_S = 0.05, 1.0
HEAR_S = 0.25
STORE_EVERY_S = 0.5
TOKEN_EVERY_S = 20.0
LOOK_AFTER_S = 5.0  # how often one sees whether the deployment is still there
STOP_PATIENCE_S = 30.0  # for a kind to come to a safe place
BEAT_EVERY_S = 5.0  # how often a process says at least that it lives
SILENCE_S = 60.0  # without that it is stopped, or hangs: it holds its place no longer
CONNECT_TIMEOUT_S = 60.0
RUN_OUT = Unavailable(
    "The short-lived credentials of this attempt end, and are renewed no more.",
    "New ones are asked for. If that is too often, have them last longer where they are given out.",
)
MOST_LINES = 10_000  # of one attempt, in the job's log


@dataclass(frozen=True, slots=True)
class Means:
    """What attempts work with. `folder` has a folder per job, `log_folder` the inference logs; `shares` says how many
    bytes a job of each kind may leave in its folder, 0 as many as the disk takes."""

    store: JobStore
    jobs: JobService
    deployments: PrivateDeployments
    drivers: DriverProcesses
    programs: Programs
    folder: Path
    log_folder: Path
    shares: Mapping[JobKind, int]


class Attempt:
    """`run` in a thread of its own; the rest from any thread."""

    def __init__(self, job: Job, means: Means) -> None:
        self.job, self._means = job, means
        self.cancel_asked = job.cancel_asked
        self.going_down = False
        self.lost = False  # another server has the job, or it ended
        self._refusal: BettongError | None = None
        self._loan: Loan
        self._nudge = threading.Event()
        self._progress: dict[str, Any] | None = None
        self._position: str | None = None
        self._lines: list[str] = []
        self._said = 0
        self._advanced = False
        self._store_s = 0.0

    def cancel(self) -> None:
        """Have it stop where it is safe."""
        self.cancel_asked = True
        self._nudge.set()

    def go_down(self) -> None:
        """The same, because the server does."""
        self.going_down = True
        self._nudge.set()

    def lose(self) -> None:
        """Have it end at once, and keep nothing more."""
        self.lost = True
        self._nudge.set()

    def refuse(self, why: BettongError) -> None:
        """Have it end at once, and fail with these words: it may not do what it does any more."""
        self._refusal = why
        self._nudge.set()

    def run(self, why: str = "") -> Ended:
        """Returns how it ended. Its process is gone then; its deployment is not. `why` there is another attempt is said
        in the job's log."""
        try:
            if self._stopping:
                return Ended(stopped=True)
            begins = f"Attempt {self.job.attempts} begins"
            self._say(f"{begins}: {why}." if why else f"{begins}.")
            serving = self._deployment()
            if serving is None:
                return Ended(stopped=True)
            self._loan = self._means.drivers.loan()
            try:
                with_words = self._words(serving)
                child = JobProcess(self._means.drivers.environment)
                try:
                    child.tell(with_words)
                    return self._unless_run_out(self._follow(child))
                finally:
                    child.end()
            finally:
                self._loan.close()
        except BettongError as error:
            return Ended(error=error, advanced=self._advanced)
        except Exception as unexpected:
            log.exception("attempt_failed job=%s", self.job.id)
            fault = BettongError("The platform failed on this job.", f"Its log says why ({type(unexpected).__name__}).")
            return Ended(error=fault, advanced=self._advanced)
        finally:
            self._keep(last=True)

    @property
    def _stopping(self) -> bool:
        return self.cancel_asked or self.going_down or self.lost

    def _deployment(self) -> Serving | None:
        """Where the job's deployment answers, once it does; None when the attempt is to stop before.

        Raises what `PrivateDeployments` raises, what the attempt was refused with, and Unavailable when it takes too
        long.
        """
        deployments = self._means.deployments
        deployments.start(self.job)
        until, pause_s = time.monotonic() + LOAD_TIMEOUT_S, LOOK_FIRST_S
        while (serving := deployments.serving(self.job)) is None:
            if self._stopping:
                return None
            if self._refusal is not None:
                raise self._refusal
            if time.monotonic() >= until:
                raise Unavailable(f"The job's deployment does not serve within {LOAD_TIMEOUT_S:g} s.")
            self._nudge.wait(pause_s)
            pause_s = min(pause_s * 1.5, LOOK_SLOWEST_S)
        return serving

    def _words(self, serving: Serving) -> dict[str, Any]:
        """All that the process is told. It holds secrets."""
        job, means = self.job, self._means
        folder = means.folder / job.id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        versions = means.jobs.model_versions(job)
        return {
            "program": means.programs.kinds[job.kind],
            "folders": list(means.programs.folders),
            "job_id": job.id,
            "request": dict(job.request),
            "position": job.position,
            "attempt": job.attempts,
            "folder": str(folder),
            "most_bytes": means.shares[job.kind],
            "log_folder": str(means.log_folder),
            "lineage": {
                "job_id": job.id,
                "pipeline_version": job.request["pipeline_version"],
                "model_version": versions,
            },
            "lanes": serving.lanes,
            "beat_every_s": BEAT_EVERY_S,
            "host": self._address(serving),
            "titles": means.jobs.titles(job),
            "connections": self._connections(),
        }

    def _connections(self) -> dict[str, Any]:
        """With the details that they have now. Raises what `equipment` raises."""
        drivers, ends = self._means.drivers, self._means.jobs.equipment(self.job)
        return {
            role: drivers.handed_over(kind, details, self._loan, CONNECT_TIMEOUT_S)
            for role, (kind, details) in ends.items()
        }

    def _renewed(self) -> dict[str, Any]:
        """The same for a process that has closed all that it had open: short-lived credentials are given back, and new
        ones asked for."""
        self._loan.close()
        self._loan = self._means.drivers.loan()
        return self._connections()

    def _address(self, serving: Serving) -> dict[str, str]:
        return {"url": serving.url, "token": self._means.deployments.token(self.job)}

    def _follow(self, child: JobProcess) -> Ended:
        """Hear the process to its end, and see to it that it can go on. Raises what the attempt was refused with."""
        now = time.monotonic()
        token_s, look_s = now + TOKEN_EVERY_S, now + LOOK_AFTER_S
        give_up_s: float | None = None
        pulse = Pulse(now)
        while not self.lost:
            if self._refusal is not None:
                raise self._refusal
            said = child.hear(HEAR_S)
            if said is not None and (ended := self._heard(said)) is not None:
                return ended
            if said is not None and "renew" in said:
                child.tell({"connections": self._renewed()})
            now = time.monotonic()
            self._feel(child, pulse, said, now)
            self._keep()
            if give_up_s is None and (self._stopping or (self._goes_on and self._loan.ends_within(STOP_PATIENCE_S))):
                child.tell({"cancel": True})
                give_up_s = now + STOP_PATIENCE_S
            if give_up_s is not None and now >= give_up_s:
                self._say(f"It did not stop within {STOP_PATIENCE_S:g} s, and was ended.")
                break
            if now >= look_s or now >= token_s:
                look_s = now + LOOK_AFTER_S
                serving = self._look_after()
                if serving is not None and now >= token_s:
                    token_s = now + TOKEN_EVERY_S
                    child.tell({"host": self._address(serving)})
        return Ended(stopped=True)

    def _feel(self, child: JobProcess, pulse: Pulse, said: Mapping[str, Any] | None, now: float) -> None:
        """Raises Unavailable when the process has not even told that it lives for too long."""
        pulse.looked(now, heard=said is not None, progress=said is not None and "progress" in said)
        if pulse.silent_s >= SILENCE_S:
            raise child.silent(SILENCE_S)
        if (news := pulse.news()) is not None:
            self._say(news)

    @property
    def _goes_on(self) -> bool:
        """Whether the next attempt loses nothing of what this one has done."""
        return self._advanced or self.job.kind is JobKind.INFER_STREAM

    def _unless_run_out(self, ended: Ended) -> Ended:
        """What the end of its credentials makes of an attempt: neither a whole result nor the job's fault. The next one
        gets new ones."""
        if self._stopping or (ended.error is None and not ended.stopped) or not self._loan.ends_within(STOP_PATIENCE_S):
            return ended
        return replace(ended, error=RUN_OUT, advanced=self._goes_on)

    def _look_after(self) -> Serving | None:
        """Where the deployment answers; it is brought up again when nothing of it runs any more."""
        deployments = self._means.deployments
        try:
            if (serving := deployments.serving(self.job)) is None:
                deployments.start(self.job)
            return serving
        except BettongError as fault:
            log.warning("deployment_of_job job=%s problem=%s", self.job.id, fault)
            return None

    def _heard(self, said: Mapping[str, Any]) -> Ended | None:
        """How it ended, when these are its last words."""
        if "progress" in said:
            self._progress = said["progress"]
        if (position := said.get("position")) is not None:
            self._advanced = self._advanced or position != self.job.position
            self._position = position
            self._store_s = 0.0
        if "line" in said:
            self._say(said["line"])
        if "failed" in said:
            code, problem, next_step = said["failed"]
            kind = BettongError if code == BettongError.code else error_of(code)
            return Ended(error=kind(problem, next_step), advanced=self._advanced)
        if "done" in said:
            return Ended(result=said["done"], stopped=said["stopped"], advanced=self._advanced)
        return None

    def _say(self, line: str) -> None:
        self._said += 1
        if self._said <= MOST_LINES:
            self._lines.append(shortened(line))
        elif self._said == MOST_LINES + 1:
            self._lines.append(f"This attempt has said {MOST_LINES} lines; what it says further is left out.")

    def _keep(self, *, last: bool = False) -> None:
        """Hand what was heard to the store, a few times a second; what it does not take now it is given again."""
        if (time.monotonic() < self._store_s and not last) or self.lost:
            return
        self._store_s = time.monotonic() + STORE_EVERY_S
        job, store = self.job, self._means.store
        try:
            if self._progress is not None or self._position is not None:
                kept = store.report(job.id, job.attempts, progress=self._progress, position=self._position)
                self._progress = self._position = None
                if kept is None:
                    self.lose()
            if self._lines:
                lines, self._lines = self._lines, []
                store.append_log(job.id, lines)
        except BettongError as fault:
            log.warning("job_not_kept job=%s problem=%s", job.id, fault)
