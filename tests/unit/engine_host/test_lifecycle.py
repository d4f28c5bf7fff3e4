"""Decisions about replicas, without a process and without a clock."""

from __future__ import annotations

from dataclasses import replace

from bettong.engine.lifecycle import (
    HANG_S,
    LOAD_GRACE_S,
    LONGEST_PAUSE_S,
    MAX_LOAD_CRASHES,
    STEADY_S,
    Beat,
    Drain,
    End,
    Event,
    Exited,
    Fleet,
    Kill,
    Order,
    Plan,
    Ready,
    Refused,
    Roll,
    Serve,
    Start,
    Stop,
    Tick,
    begin,
    next_due_s,
    pause_s,
    step,
)


def plan(generation: int = 1, replicas: int = 2) -> Plan:
    return Plan(generation, replicas, load_timeout_s=20.0, linger_s=5.0, drain_s=30.0)


def run(fleet: Fleet, *events: Event, now_s: float = 0.0) -> tuple[Fleet, list[Order]]:
    orders: list[Order] = []
    for event in events:
        fleet, more = step(fleet, event, now_s)
        orders += more
    return fleet, orders


def names(fleet: Fleet, generation: int) -> list[str]:
    return [r.name for r in fleet.replicas if r.generation == generation]


def serving(generation: int = 1, replicas: int = 2, now_s: float = 0.0) -> Fleet:
    fleet, _ = begin(plan(generation, replicas), "seed", now_s)
    fleet, _ = run(fleet, *(Ready(name) for name in names(fleet, generation)), now_s=now_s)
    return fleet


def test_a_host_starts_all_replicas_of_its_first_generation() -> None:
    fleet, orders = begin(plan(replicas=2), "seed", 0.0)

    assert orders == [Start(name, 1) for name in names(fleet, 1)]
    assert [name.split("-")[1::2] for name in names(fleet, 1)] == [["1", "0"], ["1", "1"]]
    assert len(set(names(fleet, 1))) == 2
    assert fleet.takers == ()


def test_a_generation_serves_once_all_of_it_is_ready() -> None:
    fleet, _ = begin(plan(replicas=2), "seed", 0.0)
    first, second = names(fleet, 1)

    fleet, early = run(fleet, Ready(first))
    fleet, orders = run(fleet, Ready(second))

    assert early == []
    assert orders == [Serve(1)]
    assert [r.name for r in fleet.takers] == [first, second]


def test_a_roll_loads_the_new_generation_beside_the_old_one_then_switches_then_drains() -> None:
    fleet = serving(1)
    old = names(fleet, 1)

    fleet, orders = run(fleet, Roll(plan(2)))
    assert orders == [Start(name, 2) for name in names(fleet, 2)]
    assert [r.name for r in fleet.takers] == old

    fleet, orders = run(fleet, *(Ready(name) for name in names(fleet, 2)))
    assert orders == [Serve(2), Drain(old[0], 5.0, 30.0), Drain(old[1], 5.0, 30.0)]
    assert [r.name for r in fleet.takers] == names(fleet, 2)


def test_a_drained_replica_is_not_started_again() -> None:
    fleet = serving(1, replicas=1)
    [old] = names(fleet, 1)
    fleet, _ = run(fleet, Roll(plan(2, replicas=1)))
    fleet, _ = run(fleet, Ready(names(fleet, 2)[0]))

    fleet, orders = run(fleet, Exited(old, "Ended with exit code 0."))

    assert orders == []
    assert fleet.pauses == ()
    assert names(fleet, 1) == []


def test_a_generation_that_refuses_to_load_is_stopped_and_the_old_one_goes_on() -> None:
    fleet = serving(1)
    fleet, _ = run(fleet, Roll(plan(2)))
    new = names(fleet, 2)

    fleet, orders = run(fleet, Refused(new[0], "No module named 'prophet'."))

    assert fleet.error == "No module named 'prophet'."
    assert orders == [Drain(new[0], 0.0, 0.0), Drain(new[1], 0.0, 0.0)]
    assert [r.name for r in fleet.takers] == names(fleet, 1)
    assert not fleet.hopeless

    fleet, orders = run(fleet, Exited(new[0], "exit code 1"), Exited(new[1], "exit code 0"))
    assert (orders, fleet.pauses) == ([], ())


def test_a_first_generation_that_does_not_load_leaves_nobody_waiting() -> None:
    fleet, _ = begin(plan(replicas=1), "seed", 0.0)

    fleet, _ = run(fleet, Refused(names(fleet, 1)[0], "broken"))

    assert fleet.hopeless


def test_a_refused_generation_is_tried_again_when_it_is_asked_for_again() -> None:
    fleet, _ = begin(plan(replicas=1), "seed", 0.0)
    [first] = names(fleet, 1)
    fleet, _ = run(fleet, Refused(first, "broken"), Exited(first, "exit code 1"))

    fleet, orders = run(fleet, Roll(plan(1, replicas=1)))

    assert orders == [Start(names(fleet, 1)[0], 1)]
    assert fleet.error is None


def test_a_generation_that_serves_or_is_older_changes_nothing() -> None:
    fleet = serving(3)

    assert run(fleet, Roll(plan(3))) == (fleet, [])
    assert run(fleet, Roll(plan(2))) == (fleet, [])


def test_a_newer_roll_takes_the_place_of_one_that_is_still_loading() -> None:
    fleet = serving(1)
    fleet, _ = run(fleet, Roll(plan(2)))
    overtaken = names(fleet, 2)

    fleet, orders = run(fleet, Roll(plan(3)))

    assert orders == [*(Drain(name, 0.0, 0.0) for name in overtaken), *(Start(name, 3) for name in names(fleet, 3))]
    fleet, orders = run(fleet, *(Ready(name) for name in overtaken))
    assert orders == []
    assert [r.name for r in fleet.takers] == names(fleet, 1)


def test_a_crashed_replica_comes_back_after_a_pause_under_another_name() -> None:
    fleet = serving(1)
    victim, other = names(fleet, 1)

    fleet, orders = run(fleet, Exited(victim, "Was killed by signal 9 (SIGKILL)."), now_s=10.0)
    assert orders == []
    assert [r.name for r in fleet.takers] == [other]
    assert next_due_s(fleet) == 10.5

    fleet, orders = run(fleet, Tick(), now_s=10.4)
    assert orders == []
    fleet, orders = run(fleet, Tick(), now_s=10.5)
    assert len(orders) == 1
    [start] = orders
    assert isinstance(start, Start)
    assert start.name not in {victim, other}
    assert next(r for r in fleet.replicas if r.name == start.name).restarts == 1

    fleet, _ = run(fleet, Ready(start.name), now_s=11.0)
    assert [r.name for r in fleet.takers] == [other, start.name]


def test_pauses_double_up_to_half_a_minute() -> None:
    assert [pause_s(n) for n in range(8)] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert pause_s(10_000) == LONGEST_PAUSE_S


def test_restarts_are_counted_anew_after_a_minute_of_service() -> None:
    fleet = serving(1, replicas=1)
    fleet = replace(fleet, replicas=tuple(replace(r, restarts=5) for r in fleet.replicas))

    shaken, _ = run(fleet, Exited(names(fleet, 1)[0], "crash"), now_s=STEADY_S - 1)
    steady, _ = run(fleet, Exited(names(fleet, 1)[0], "crash"), now_s=STEADY_S)

    assert shaken.pauses[0].restarts == 6
    assert steady.pauses[0].restarts == 1


def test_a_replica_that_keeps_dying_while_it_loads_makes_its_generation_fail() -> None:
    fleet, _ = begin(plan(replicas=1), "seed", 0.0)
    now_s = 0.0
    for _ in range(MAX_LOAD_CRASHES):
        [name] = names(fleet, 1)
        fleet, _ = run(fleet, Exited(name, "Was killed by signal 11 (SIGSEGV)."), now_s=now_s)
        now_s += LONGEST_PAUSE_S
        fleet, _ = run(fleet, *(Beat(n) for n in names(fleet, 1)), Tick(), now_s=now_s)

    assert fleet.error == "Was killed by signal 11 (SIGSEGV)."
    assert names(fleet, 1) == []


def test_a_replica_of_the_serving_generation_is_never_given_up() -> None:
    fleet = serving(1, replicas=1)
    now_s = 0.0
    for _ in range(20):
        [name] = names(fleet, 1)
        fleet, _ = run(fleet, Refused(name, "disk is full"), Exited(name, "exit code 1"), now_s=now_s)
        assert fleet.pauses[0].reason == "disk is full"
        now_s += LONGEST_PAUSE_S
        fleet, _ = run(fleet, Tick(), now_s=now_s)

    assert len(names(fleet, 1)) == 1
    assert fleet.error is None


def test_a_silent_replica_is_killed_and_replaced() -> None:
    fleet = serving(1)
    silent, lively = names(fleet, 1)
    fleet, _ = run(fleet, Tick(), Beat(lively), now_s=HANG_S - 1)

    fleet, orders = run(fleet, Tick(), now_s=HANG_S)

    assert orders == [Kill(silent, f"Gave no sign of life for {HANG_S:g} s.")]
    fleet, orders = run(fleet, Tick(), now_s=HANG_S + 1)
    assert orders == []  # it is not killed over and over while its exit is on the way
    fleet, _ = run(fleet, Exited(silent, "Was killed by signal 9 (SIGKILL)."), now_s=HANG_S + 1)
    assert fleet.pauses[0].reason == f"Gave no sign of life for {HANG_S:g} s."


def test_a_host_that_was_suspended_itself_does_not_kill_its_replicas() -> None:
    fleet = serving(1)
    fleet, _ = run(fleet, Tick(), now_s=1.0)

    fleet, orders = run(fleet, Tick(), now_s=3600.0)

    assert orders == []


def test_a_generation_that_does_not_load_in_time_is_killed_and_given_up() -> None:
    fleet = serving(1, replicas=1)
    fleet, _ = run(fleet, Roll(plan(2, replicas=1)))
    [slow] = names(fleet, 2)
    late_s = plan().load_timeout_s + LOAD_GRACE_S
    for now_s in range(int(late_s)):
        fleet, orders = run(fleet, *(Beat(r.name) for r in fleet.replicas), Tick(), now_s=float(now_s))
        assert orders == []

    fleet, orders = run(fleet, Tick(), now_s=late_s)

    assert Kill(slow, "Did not load within 20 s.") in orders
    assert fleet.error == "Did not load within 20 s."
    assert len(fleet.takers) == 1


def test_a_leaving_replica_that_does_not_end_is_killed() -> None:
    fleet = serving(1, replicas=1)
    [stuck] = names(fleet, 1)
    fleet, _ = run(fleet, Stop(), now_s=100.0)
    due_s = next_due_s(fleet)

    fleet, orders = run(fleet, Tick(), now_s=due_s)

    assert due_s > 100.0 + plan().drain_s
    assert orders == [Kill(stuck, "Did not end in time after it was told to.")]


def test_a_stop_drains_without_lingering_and_ends_when_the_last_replica_has() -> None:
    fleet = serving(1)
    first, second = names(fleet, 1)

    fleet, orders = run(fleet, Stop())
    assert orders == [Drain(first, 0.0, 30.0), Drain(second, 0.0, 30.0)]
    assert fleet.takers == ()
    fleet, orders = run(fleet, Exited(first, "exit code 0"))
    assert orders == []
    fleet, orders = run(fleet, Exited(second, "exit code 0"))
    assert orders == [End()]


def test_a_stop_while_rolling_ends_both_generations() -> None:
    fleet = serving(1, replicas=1)
    fleet, _ = run(fleet, Roll(plan(2, replicas=1)))
    [old], [new] = names(fleet, 1), names(fleet, 2)

    fleet, orders = run(fleet, Stop())
    assert {order.name for order in orders if isinstance(order, Drain)} == {old, new}
    fleet, orders = run(fleet, Ready(new), Exited(old, ""), Exited(new, ""))
    assert orders == [End()]


def test_a_stop_while_a_crashed_replica_pauses_ends_at_once() -> None:
    fleet = serving(1, replicas=1)
    fleet, _ = run(fleet, Exited(names(fleet, 1)[0], "crash"))

    fleet, orders = run(fleet, Stop())

    assert orders == [End()]
    assert run(fleet, Roll(plan(2))) == (fleet, [])


def test_events_about_a_replica_that_is_gone_change_nothing() -> None:
    fleet = serving(1)

    for event in (Ready("engine-1-gone-0"), Beat("engine-1-gone-0"), Exited("engine-1-gone-0", ""), Refused("x", "")):
        assert run(fleet, event) == (fleet, [])
