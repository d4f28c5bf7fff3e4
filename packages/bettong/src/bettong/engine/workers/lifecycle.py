"""A worker's life, decided without a process: (state, event, now) → (state, orders). The supervisor carries them out.

    idle → loading → ready ⇄ ending → backoff → loading …        any → closed
              └────────→ ending → failed                          (the first load did not work)

One request runs at a time, because the worker has one thread for model code; the others wait here, so that a death
costs only the request that was running. Nobody waits for ever: a request is sent, failed or refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 30.0
CRASHES_UNTIL_FAILED = 5  # in a row; then it is shown as failed, and still started again after the longest pause


class Phase(Enum):
    IDLE = "idle"
    LOADING = "loading"
    READY = "ready"
    ENDING = "ending"  # told to die; its exit is awaited
    BACKOFF = "backoff"
    FAILED = "failed"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what."""

    load_s: float = 120.0
    restart_s: float = 10.0  # how long a request waits for a worker that is not there
    abandoned_s: float = 30.0  # how long a request may go on that nobody waits for any more
    deadline_s: float = math.inf  # how long requests may take at all
    late_s: float = 5.0  # how long one may go on that nobody waits for and that is past its deadline


@dataclass(frozen=True, slots=True)
class Waiting:
    request: int
    since_s: float


class Worker(NamedTuple):
    """`since_s` is when the phase began; `reason` says why the worker is not ready, or why it last was not.

    A tuple, because the next one is made twice for every request, and a dataclass takes five times as long for that.
    """

    patience: Patience = Patience()
    phase: Phase = Phase.IDLE
    since_s: float = 0.0
    pause_s: float = 0.0
    down_since_s: float = 0.0
    running: int | None = None
    running_since_s: float = 0.0
    stop_at_s: float | None = None  # when the running request, which nobody waits for, has held the worker long enough
    waiting: tuple[Waiting, ...] = ()
    crashes: int = 0
    restarts: int = 0
    was_ready: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the process and send it the load message."""


@dataclass(frozen=True, slots=True)
class Send:
    request: int


@dataclass(frozen=True, slots=True)
class Fail:
    """The request was lost with the worker."""

    request: int
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """The request never ran; it may be tried again."""

    request: int
    why: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End the process; its exit will be told."""


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call `on_tick` at this time."""

    at_s: float


Order = Launch | Send | Fail | Refuse | Kill | WakeAt
Outcome = tuple[Worker, list[Order]]


def on_start(worker: Worker, now_s: float) -> Outcome:
    started = worker._replace(phase=Phase.LOADING, since_s=now_s, down_since_s=now_s)
    return started, [Launch(), WakeAt(now_s + worker.patience.load_s)]


def on_ready(worker: Worker, now_s: float) -> Outcome:
    """The model is loaded: the first request that waits goes out."""
    if worker.phase is not Phase.LOADING:
        return worker, []
    return _send_next(worker._replace(phase=Phase.READY, since_s=now_s, was_ready=True), now_s)


def on_load_failed(worker: Worker, why: str, now_s: float) -> Outcome:
    if worker.phase is not Phase.LOADING:
        return worker, []
    return worker._replace(phase=Phase.ENDING, since_s=now_s, reason=why), [Kill()]


def on_broken(worker: Worker, why: str, now_s: float) -> Outcome:
    """The worker said something that no worker says; it cannot be trusted to go on."""
    if worker.phase not in (Phase.LOADING, Phase.READY):
        return worker, []
    return worker._replace(phase=Phase.ENDING, since_s=now_s, reason=why), [Kill()]


def on_request(worker: Worker, request: int, now_s: float) -> Outcome:
    if worker.phase in (Phase.IDLE, Phase.FAILED, Phase.CLOSED):
        return worker, [Refuse(request, worker.reason or "it is not running")]
    if worker.phase is Phase.READY and worker.running is None:
        return worker._replace(running=request, running_since_s=now_s), [Send(request)]
    waiting = worker._replace(waiting=(*worker.waiting, Waiting(request, now_s)))
    return waiting, [] if worker.phase is Phase.READY else [WakeAt(now_s + worker.patience.restart_s)]


def on_answer(worker: Worker, request: int, now_s: float) -> Outcome:
    """A result or a failure of the model's own: either way the worker lives, and earlier crashes are forgiven."""
    if worker.phase is not Phase.READY or worker.running != request:
        return worker, []
    return _send_next(worker._replace(running=None, stop_at_s=None, crashes=0, reason=None), now_s)


def on_abandoned(worker: Worker, request: int, now_s: float) -> Outcome:
    """Nobody waits for this request any more. One that runs may finish, but not hold the worker for ever."""
    if worker.running == request:
        patience = worker.patience
        late_s = max(now_s, worker.running_since_s + patience.deadline_s) + patience.late_s
        stop_at_s = min(now_s + patience.abandoned_s, late_s)
        return worker._replace(stop_at_s=stop_at_s), [WakeAt(stop_at_s)]
    return worker._replace(waiting=tuple(w for w in worker.waiting if w.request != request)), []


def on_exit(worker: Worker, how: str, now_s: float) -> Outcome:
    """What follows when the process is gone, whatever the reason. `how` is for people: 'ended (signal 9)'."""
    if worker.phase in (Phase.CLOSED, Phase.FAILED):
        return worker, []
    why = worker.reason if worker.phase is Phase.ENDING and worker.reason else how
    lost: list[Order] = [] if worker.running is None else [Fail(worker.running, why)]
    gone = worker._replace(running=None, stop_at_s=None, reason=why, since_s=now_s, crashes=worker.crashes + 1)
    if not worker.was_ready:
        refused: list[Order] = [Refuse(w.request, why) for w in worker.waiting]
        return gone._replace(phase=Phase.FAILED, waiting=()), [*lost, *refused]
    down_since_s = now_s if worker.phase is Phase.READY or worker.running is not None else worker.down_since_s
    pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 4.0**worker.crashes)
    wakes: list[Order] = [WakeAt(now_s + pause_s)]
    if worker.waiting:
        wakes.append(WakeAt(now_s + worker.patience.restart_s))
    return gone._replace(phase=Phase.BACKOFF, pause_s=pause_s, down_since_s=down_since_s), [*lost, *wakes]


def on_tick(worker: Worker, now_s: float) -> Outcome:
    """Time has passed. Ticks may come early, late and more than once."""
    orders: list[Order] = []
    if worker.phase is Phase.READY:
        if worker.stop_at_s is None or now_s < worker.stop_at_s:
            return worker, []
        ran_s = now_s - worker.running_since_s
        why = f"was stopped: a request that nobody waited for any more had been running for {ran_s:.0f} s"
        return worker._replace(phase=Phase.ENDING, since_s=now_s, reason=why), [Kill()]
    if worker.phase is Phase.LOADING and now_s >= worker.since_s + worker.patience.load_s:
        worker = worker._replace(
            phase=Phase.ENDING, since_s=now_s, reason=f"did not load within {worker.patience.load_s:g} s"
        )
        orders.append(Kill())
    if worker.phase is Phase.BACKOFF and now_s >= worker.since_s + worker.pause_s:
        worker = worker._replace(phase=Phase.LOADING, since_s=now_s, restarts=worker.restarts + 1)
        orders += [Launch(), WakeAt(now_s + worker.patience.load_s)]
    tired = [w for w in worker.waiting if now_s >= max(w.since_s, worker.down_since_s) + worker.patience.restart_s]
    left = tuple(w for w in worker.waiting if w not in tired)
    return worker._replace(waiting=left), [*orders, *(Refuse(w.request, worker.reason or "") for w in tired)]


def on_close(worker: Worker, now_s: float) -> Outcome:
    if worker.phase is Phase.CLOSED:
        return worker, []
    orders: list[Order] = [] if worker.running is None else [Fail(worker.running, "was stopped")]
    orders += [Refuse(w.request, "was stopped") for w in worker.waiting]
    closed = worker._replace(phase=Phase.CLOSED, since_s=now_s, running=None, waiting=(), reason="was stopped")
    return closed, [*orders, Kill()]


def _send_next(worker: Worker, now_s: float) -> Outcome:
    if not worker.waiting:
        return worker, []
    first, *rest = worker.waiting
    sent = worker._replace(running=first.request, running_since_s=now_s, waiting=tuple(rest))
    return sent, [Send(first.request)]
