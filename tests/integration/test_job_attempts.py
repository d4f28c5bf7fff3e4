"""One attempt at a job in a real process, between a store and a deployment that tests hold in their hand."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest
from job_kit import alive, eventually

from bettong.domain.drivers import Egress
from bettong.domain.jobs import Job, JobKind, JobState
from bettong.drivers.leases import Given, Lease, granted
from bettong.drivers.processes import DriverProcesses
from bettong.drivers.references import ReferencePolicy
from bettong.drivers.registry import Registry
from bettong.errors import Forbidden, ModelFailed, Unavailable
from bettong.jobs import attempt as attempts
from bettong.jobs import pulse
from bettong.jobs.attempt import Attempt, Means
from bettong.jobs.kinds import Programs
from bettong.jobs.verdicts import Again, verdict
from bettong.services.private_deployments import Serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bettong.domain.ports import JobStore
    from bettong.drivers.references import Reference
    from bettong.jobs.verdicts import Ended
    from bettong.services.jobs import JobService
    from bettong.services.private_deployments import PrivateDeployments

ENVIRONMENT = {"PATH": os.environ["PATH"], "BETTONG_KEYS": "a-key-of-the-platform"}
KINDS = """
import math, os, time
from bettong.errors import BadInput

def counts(work):
    for n in range(1, 4):
        work.say(f"step {n}")
        work.report({"rows_read": n}, str(n))
    return {"rows": 3, "mean": math.nan, "attempt": work.attempt, "environment": sorted(os.environ)}

def stops(work):
    work.report({"rows_read": 1})
    while not work.cancelled:
        time.sleep(0.01)
    return {"rows": 1}

def is_deaf(work):
    work.report({"pid": os.getpid()})
    while True:
        time.sleep(1)

def rants(work):
    work.say("word " * 1_000_000)
    return {}

def goes_on_later(work):
    work.report({"rows_read": 1}, "1")
    while not work.cancelled:
        time.sleep(0.01)
    return {"rows": 1}

def is_refused_later(work):
    time.sleep(work.request["seconds"])
    raise BadInput("The table is not yours.")

def is_done_later(work):
    time.sleep(work.request["seconds"])
    return {"rows": 1}

def renews(work):
    work.renew()
    return {"heard": work._renewed.is_set(), "titles": work.titles}

def chatters(work):
    for n in range(20):
        work.say(f"line {n}")
    return {}
"""


@dataclass
class Store:
    """Keeps what it is told, once it has refused as often as it is to."""

    refuses: int = 0
    progress: list[Mapping[str, Any] | None] = field(default_factory=list)
    position: str | None = None
    lines: list[str] = field(default_factory=list)

    def report(
        self, job_id: str, attempt: int, *, progress: Mapping[str, Any] | None = None, position: str | None = None
    ) -> bool:
        if self.refuses:
            self.refuses -= 1
            raise Unavailable("The database does not answer.")
        self.progress.append(progress)
        self.position = position or self.position
        return True

    def append_log(self, job_id: str, lines: list[str]) -> None:
        self.lines += lines


@dataclass
class Deployments:
    """Serves at once unless it is told what else to do."""

    looks: Callable[[], Serving | None] = lambda: Serving("http://127.0.0.1:9/pipelines/none", 1)
    started: int = 0

    def start(self, job: Job) -> None:
        self.started += 1

    def serving(self, job: Job) -> Serving | None:
        return self.looks()

    def token(self, job: Job) -> str:
        return "a-token"


@dataclass
class Jobs:
    connections: dict[str, Any]

    def equipment(self, job: Job) -> dict[str, Any]:
        return self.connections

    def titles(self, job: Job) -> dict[str, str]:
        return {role: kind for role, (kind, _) in self.connections.items()}

    def model_versions(self, job: Job) -> str:
        return "v-1"


@dataclass
class Lender:
    """A manager of secrets whose leases last so long and cannot be renewed."""

    lasts_s: float
    given_back: list[str] = field(default_factory=list)

    def ask(self, reference: Reference, timeout_s: float) -> Given:
        return Given({"path": "/nowhere"}, granted("a-lease", time.monotonic(), self.lasts_s, renewable=False))

    def renew(self, lease: Lease, timeout_s: float) -> Lease:
        raise AssertionError("it was told that it cannot be")

    def give_back(self, lease: Lease, timeout_s: float) -> None:
        self.given_back.append(lease.id)


@dataclass
class Bench:
    folder: Path
    store: Store = field(default_factory=Store)
    deployments: Deployments = field(default_factory=Deployments)
    lender: Lender | None = None
    most_bytes: int = 0

    def attempt(self, kind: str) -> Attempt:
        (self.folder / "kinds_for_attempts.py").write_text(KINDS)
        managers = {} if self.lender is None else {"vault": self.lender}
        drivers = DriverProcesses(Registry(), Egress(), ReferencePolicy(), ENVIRONMENT, managers)
        leased = {"source": ("SQLITE", {"path": {"$secret": "vault:database/creds/reader#path"}})}
        means = Means(
            cast("JobStore", self.store),
            cast("JobService", Jobs(leased if self.lender else {})),
            cast("PrivateDeployments", self.deployments),
            drivers,
            Programs({JobKind.REPLAY: f"kinds_for_attempts:{kind}"}, (str(self.folder),)),
            self.folder / "jobs",
            self.folder / "logs",
            {JobKind.REPLAY: self.most_bytes},
        )
        request = {"pipeline_version": "pv-1", "seconds": self.lender.lasts_s if self.lender else 0}
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return Attempt(Job("j-1", JobKind.REPLAY, 1, "ann", request, JobState.RUNNING, now, attempts=1), means)


class Running:
    """An attempt in a thread."""

    def __init__(self, attempt: Attempt) -> None:
        self.attempt = attempt
        self._ended: list[Ended] = []
        self._thread = threading.Thread(target=lambda: self._ended.append(attempt.run()))
        self._thread.start()

    def ended(self) -> Ended:
        self._thread.join(60)
        assert self._ended, "the attempt did not end"
        return self._ended[0]


def pid_told(bench: Bench) -> int:
    """Of the process, once it has told it."""
    told: Mapping[str, Any] = eventually(lambda: bench.store.progress[0] if bench.store.progress else None, "it works")
    return int(told["pid"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_that_a_kind_tells_is_kept_in_a_form_that_json_has(bench: Bench) -> None:
    ended = bench.attempt("counts").run()

    assert ended.error is None
    assert ended.result is not None
    assert (ended.result["rows"], ended.result["mean"], ended.stopped, ended.advanced) == (3, None, False, True)
    assert (bench.store.progress[-1], bench.store.position) == ({"rows_read": 3}, "3")
    assert bench.store.lines == ["Attempt 1 begins.", "step 1", "step 2", "step 3"]
    assert not any(name.startswith("BETTONG") for name in ended.result["environment"])


def test_what_the_store_does_not_take_just_now_it_is_given_again(bench: Bench) -> None:
    bench.store.refuses = 1
    running = Running(bench.attempt("stops"))
    eventually(lambda: bench.store.progress, "the progress was kept at last")

    running.attempt.cancel()

    assert running.ended().result == {"rows": 1}
    assert bench.store.progress[0] == {"rows_read": 1}


def test_a_kind_that_is_told_stops_and_that_is_known_of_its_result(bench: Bench) -> None:
    running = Running(bench.attempt("stops"))
    eventually(lambda: bench.store.progress, "it works")

    running.attempt.go_down()
    ended = running.ended()

    assert (ended.result, ended.stopped, ended.error) == ({"rows": 1}, True, None)


def test_a_kind_that_does_not_stop_is_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "STOP_PATIENCE_S", 0.0)
    running = Running(bench.attempt("is_deaf"))
    pid = pid_told(bench)
    assert psutil.Process(pid).cmdline()[3] == "bettong.jobs._child"

    running.attempt.cancel()
    ended = running.ended()

    assert (ended.result, ended.stopped) == (None, True)
    assert not alive(pid)
    assert bench.store.lines[-1] == "It did not stop within 0 s, and was ended."


def test_a_process_that_is_stopped_is_ended_and_counts_as_one_that_died(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(bench.attempt("is_deaf"))
    pid = pid_told(bench)

    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(attempts, "SILENCE_S", 1.0)
    ended = running.ended()

    assert isinstance(ended.error, Unavailable)  # another attempt follows
    assert str(ended.error) == "The job's process told nothing for 1 s: it hung, and was ended by signal 9."
    assert not alive(pid)


def test_a_process_whose_work_is_busy_for_long_still_beats_and_is_told_of(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "BEAT_EVERY_S", 0.05)
    monkeypatch.setattr(pulse, "IDLE_TOLD_FIRST_S", 5.0)
    running = Running(bench.attempt("is_deaf"))
    pid = pid_told(bench)

    monkeypatch.setattr(attempts, "SILENCE_S", 2.0)  # without a beat it would be over long before
    eventually(lambda: any("told no progress" in line for line in bench.store.lines), "its quiet is told of")

    assert alive(pid)
    running.attempt.lose()
    running.ended()


def test_a_job_that_another_server_has_is_ended_at_once(bench: Bench) -> None:
    running = Running(bench.attempt("is_deaf"))
    pid = pid_told(bench)

    running.attempt.lose()
    running.ended()

    assert not alive(pid)


def test_a_job_that_may_not_go_on_is_ended_at_once_and_says_why(bench: Bench) -> None:
    running = Running(bench.attempt("is_deaf"))
    pid = pid_told(bench)

    running.attempt.refuse(why := Forbidden("Ann is no longer a member."))

    assert running.ended().error is why
    assert not alive(pid)


def test_a_job_that_may_not_go_on_waits_for_no_deployment(bench: Bench) -> None:
    asked = threading.Event()
    bench.deployments.looks = lambda: asked.set()
    running = Running(bench.attempt("counts"))
    assert asked.wait(30)

    running.attempt.refuse(why := Forbidden("Ann is no longer a member."))

    assert (running.ended().error, bench.store.progress) == (why, [])


def test_a_job_that_goes_on_where_it_was_stops_before_its_credentials_end(bench: Bench) -> None:
    bench.lender = lender = Lender(lasts_s=2.0)

    began = time.monotonic()
    ended = bench.attempt("goes_on_later").run()

    assert (ended.error, ended.advanced, ended.result) == (attempts.RUN_OUT, True, {"rows": 1})
    assert lender.given_back == ["a-lease"]
    assert verdict(ended, 2, cancel_asked=False, going_down=False) == Again(2.0, 1, str(attempts.RUN_OUT))
    assert time.monotonic() - began < 30


def test_what_fails_when_its_credentials_have_ended_is_tried_again_with_new_ones(bench: Bench) -> None:
    bench.lender = lender = Lender(lasts_s=1.0)

    ended = bench.attempt("is_refused_later").run()

    assert (ended.error, ended.advanced) == (attempts.RUN_OUT, False)
    assert lender.given_back == ["a-lease"]


def test_what_is_done_is_done_though_its_credentials_have_ended(bench: Bench) -> None:
    bench.lender = lender = Lender(lasts_s=1.0)

    ended = bench.attempt("is_done_later").run()

    assert (ended.error, ended.result, ended.stopped) == (None, {"rows": 1}, False)
    assert lender.given_back == ["a-lease"]


def test_what_fails_while_its_credentials_hold_has_failed(bench: Bench) -> None:
    bench.lender = Lender(lasts_s=1.0)
    attempt = bench.attempt("is_refused_later")
    bench.lender.lasts_s = 600.0

    ended = attempt.run()

    assert str(ended.error) == "The table is not yours."


def test_a_kind_that_chatters_fills_no_database(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "MOST_LINES", 5)

    bench.attempt("chatters").run()

    assert bench.store.lines == [
        "Attempt 1 begins.",
        *(f"line {n}" for n in range(4)),
        "This attempt has said 5 lines; what it says further is left out.",
    ]


def test_a_line_without_an_end_is_kept_as_far_as_people_read(bench: Bench) -> None:
    bench.attempt("rants").run()

    assert bench.store.lines[1].startswith("word word ")
    assert len(bench.store.lines[1]) < 5_000


def test_a_job_is_cancelled_while_its_deployment_still_loads(bench: Bench) -> None:
    asked = threading.Event()

    def loading() -> None:
        asked.set()

    bench.deployments.looks = loading
    running = Running(bench.attempt("counts"))
    assert asked.wait(30)

    running.attempt.cancel()

    assert (running.ended().stopped, bench.store.progress) == (True, [])


def test_a_deployment_that_does_not_load_ends_the_attempt_in_its_words(bench: Bench) -> None:
    def fails() -> None:
        raise ModelFailed("The pipeline version does not load: no module named torch")

    bench.deployments.looks = fails

    ended = bench.attempt("counts").run()

    assert isinstance(ended.error, ModelFailed)
    assert "no module named torch" in str(ended.error)


def test_a_deployment_that_is_gone_is_brought_up_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "LOOK_AFTER_S", 0.0)
    running = Running(bench.attempt("stops"))
    eventually(lambda: bench.store.progress, "it works")

    bench.deployments.looks = lambda: None
    eventually(lambda: bench.deployments.started > 1, "it was started again")
    running.attempt.cancel()

    assert running.ended().result == {"rows": 1}


def test_a_kind_has_its_connections_read_again_with_credentials_of_their_own(bench: Bench) -> None:
    bench.lender = Lender(lasts_s=1_000.0)

    ended = bench.attempt("renews").run()

    assert ended.result == {"heard": True, "titles": {"source": "SQLITE"}}
    assert bench.lender.given_back == ["a-lease", "a-lease"]
