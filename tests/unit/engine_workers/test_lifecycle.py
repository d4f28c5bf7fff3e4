from __future__ import annotations

from dataclasses import replace

from bettong.engine.workers.lifecycle import (
    CRASHES_UNTIL_FAILED,
    LONGEST_PAUSE_S,
    Fail,
    Kill,
    Launch,
    Patience,
    Phase,
    Refuse,
    Send,
    Waiting,
    WakeAt,
    Worker,
    on_abandoned,
    on_answer,
    on_broken,
    on_close,
    on_exit,
    on_load_failed,
    on_ready,
    on_request,
    on_start,
    on_tick,
)

PATIENCE = Patience(load_s=60.0, restart_s=10.0, abandoned_s=30.0)


def ready(**more: object) -> Worker:
    worker = Worker(PATIENCE, phase=Phase.READY, since_s=50.0, was_ready=True)
    return worker._replace(**more)  # type: ignore[arg-type]


def test_a_start_launches_and_sets_the_load_timeout() -> None:
    worker, orders = on_start(Worker(PATIENCE), 100.0)

    assert worker.phase is Phase.LOADING
    assert orders == [Launch(), WakeAt(160.0)]


def test_a_model_that_does_not_load_in_time_is_killed_and_says_so() -> None:
    worker, _ = on_start(Worker(PATIENCE), 100.0)

    worker, orders = on_tick(worker, 160.0)
    assert orders == [Kill()]
    worker, orders = on_exit(worker, "ended (signal 9)", 160.1)

    assert worker.phase is Phase.FAILED
    assert worker.reason == "did not load within 60 s"
    assert orders == []


def test_an_early_tick_changes_nothing() -> None:
    worker, _ = on_start(Worker(PATIENCE), 100.0)

    assert on_tick(worker, 159.9) == (worker, [])


def test_the_first_load_that_fails_is_final() -> None:
    worker, _ = on_start(Worker(PATIENCE), 100.0)

    worker, orders = on_load_failed(worker, "did not load: no function", 101.0)
    assert orders == [Kill()]
    worker, _ = on_exit(worker, "ended (exit code 0)", 101.1)

    assert (worker.phase, worker.reason) == (Phase.FAILED, "did not load: no function")
    assert on_request(worker, 1, 102.0)[1] == [Refuse(1, "did not load: no function")]


def test_one_request_runs_and_the_next_waits_its_turn() -> None:
    worker, first = on_request(ready(), 1, 100.0)
    worker, second = on_request(worker, 2, 100.1)
    assert (first, second) == ([Send(1)], [])

    worker, orders = on_answer(worker, 1, 100.2)

    assert worker.running == 2
    assert orders == [Send(2)]


def test_a_killed_worker_fails_the_running_request_only_and_is_started_again_after_a_pause() -> None:
    worker = ready(running=1, waiting=(Waiting(2, 99.0),))

    worker, orders = on_exit(worker, "ended (signal 9)", 100.0)
    assert orders == [Fail(1, "ended (signal 9)"), WakeAt(100.1), WakeAt(110.0)]
    worker, orders = on_tick(worker, 100.1)
    assert (worker.phase, worker.restarts) == (Phase.LOADING, 1)
    assert Launch() in orders
    worker, orders = on_ready(worker, 101.0)

    assert worker.phase is Phase.READY
    assert orders == [Send(2)]


def test_a_request_waits_for_a_worker_only_so_long() -> None:
    worker, _ = on_exit(ready(), "ended (signal 9)", 100.0)
    worker, orders = on_request(worker, 7, 101.0)
    assert orders == [WakeAt(111.0)]
    worker, _ = on_tick(worker, 100.1)

    worker, orders = on_tick(worker, 111.0)

    assert orders == [Refuse(7, "ended (signal 9)")]
    assert worker.waiting == ()


def test_the_wait_of_a_queued_request_counts_from_the_crash_not_from_its_arrival() -> None:
    worker, _ = on_exit(ready(running=1, waiting=(Waiting(2, 10.0),)), "ended (signal 9)", 100.0)

    _, orders = on_tick(worker, 109.9)

    assert Refuse(2, "ended (signal 9)") not in orders


def test_pauses_grow_to_a_bound_while_crashes_follow_each_other_and_an_answer_forgives_them() -> None:
    worker, now, pauses = ready(), 100.0, []
    for _ in range(CRASHES_UNTIL_FAILED + 2):
        worker, _ = on_exit(worker, "ended (signal 11)", now)
        pauses.append(worker.pause_s)
        now += worker.pause_s
        worker, _ = on_tick(worker, now)
        worker, _ = on_ready(worker, now)

    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S
    worker, _ = on_request(worker, 1, now)
    worker, _ = on_answer(worker, 1, now)
    assert worker.crashes == 0


def test_an_abandoned_request_may_finish_but_not_hold_the_worker_for_ever() -> None:
    worker, orders = on_abandoned(ready(running=1, waiting=(Waiting(2, 99.0),)), 1, 100.0)
    assert orders == [WakeAt(130.0)]
    assert on_tick(worker, 129.9) == (worker, [])

    worker, orders = on_tick(worker, 130.0)
    assert orders == [Kill()]
    worker, orders = on_exit(worker, "ended (signal 9)", 130.1)

    assert worker.phase is Phase.BACKOFF
    assert worker.waiting == (Waiting(2, 99.0),)


def test_an_abandoned_request_that_is_past_its_deadline_holds_the_worker_only_a_little_longer() -> None:
    worker = ready(patience=replace(PATIENCE, deadline_s=60.0, late_s=5.0))
    worker, _ = on_request(worker, 1, 100.0)

    late, orders = on_abandoned(worker, 1, 160.0)
    assert orders == [WakeAt(165.0)]
    assert on_tick(late, 165.0)[1] == [Kill()]
    assert on_abandoned(worker, 1, 170.0)[1] == [WakeAt(175.0)]
    assert on_abandoned(worker, 1, 110.0)[1] == [WakeAt(140.0)]
    assert on_abandoned(worker, 1, 150.0)[1] == [WakeAt(165.0)]


def test_the_time_of_a_request_counts_from_when_it_was_sent() -> None:
    worker = ready(patience=replace(PATIENCE, deadline_s=60.0, late_s=5.0))
    worker, _ = on_request(worker, 1, 100.0)
    worker, _ = on_request(worker, 2, 100.0)
    worker, _ = on_answer(worker, 1, 150.0)

    assert on_abandoned(worker, 2, 160.0)[1] == [WakeAt(190.0)]


def test_an_abandoned_request_that_waits_is_never_sent() -> None:
    worker, _ = on_abandoned(ready(running=1, waiting=(Waiting(2, 99.0), Waiting(3, 99.0))), 2, 100.0)

    assert on_answer(worker, 1, 101.0)[1] == [Send(3)]


def test_a_late_answer_to_an_abandoned_request_lets_the_worker_live() -> None:
    worker, _ = on_abandoned(ready(running=1), 1, 100.0)

    worker, _ = on_answer(worker, 1, 110.0)

    assert on_tick(worker, 200.0) == (worker, [])


def test_an_answer_nobody_asked_for_changes_nothing() -> None:
    worker = ready(running=1)

    assert on_answer(worker, 99, 100.0) == (worker, [])


def test_a_worker_that_breaks_the_protocol_is_ended_and_its_request_told_why() -> None:
    worker, orders = on_broken(ready(running=1), "broke its protocol", 100.0)
    assert orders == [Kill()]

    _, orders = on_exit(worker, "ended (signal 9)", 100.1)

    assert orders[0] == Fail(1, "broke its protocol")


def test_a_close_leaves_nobody_waiting_and_a_second_one_is_harmless() -> None:
    worker, orders = on_close(ready(running=1, waiting=(Waiting(2, 99.0),)), 100.0)

    assert orders == [Fail(1, "was stopped"), Refuse(2, "was stopped"), Kill()]
    assert on_close(worker, 101.0) == (worker, [])
    assert on_exit(worker, "ended (signal 9)", 101.0) == (worker, [])
    assert on_request(worker, 3, 102.0)[1] == [Refuse(3, "was stopped")]
