"""Work in the background rests while others use the machine, and not when it is alone."""

from __future__ import annotations

import pytest

from bettong.logstore.courtesy import (
    FULL_RESTS,
    LOOK_EVERY_S,
    MAX_REST_S,
    PATIENT_S,
    RESTS,
    Courtesy,
    machine_busy_s,
    rest_s,
)


class Machine:
    """Two cores: a piece of work takes 0.2 s of one, others use `others` cores, also while we rest."""

    def __init__(self, others: float, *, tells: bool = True) -> None:
        self.others, self.tells = others, tells
        self.now = self.busy = self.worked = self.rested = 0.0
        self.courtesy = Courtesy(
            busy_s=lambda: self.busy if self.tells else None,
            clock=lambda: self.now,
            worked_s=lambda: self.worked,
            sleep=self.sleep,
            cores=2,
        )

    def work(self, seconds: float = 0.2) -> None:
        self.now += seconds
        self.worked += seconds
        self.busy += seconds * (1 + self.others)
        self.courtesy.rest()

    def sleep(self, seconds: float) -> None:
        self.rested += seconds
        self.now += seconds
        self.busy += seconds * self.others


def test_alone_on_the_machine_it_never_rests() -> None:
    machine = Machine(others=0.05)

    for _ in range(50):
        machine.work()

    assert machine.rested == 0


@pytest.mark.parametrize("others", [0.3, 0.5, 0.9])
def test_beside_others_it_takes_a_fifth_of_a_core(others: float) -> None:
    machine = Machine(others)

    for _ in range(50):
        machine.work()

    assert machine.worked / machine.now == pytest.approx(1 / (1 + RESTS), rel=0.1)


@pytest.mark.parametrize("others", [1.1, 1.8])
def test_on_a_machine_that_others_fill_by_half_it_takes_next_to_nothing_until_that_has_lasted(others: float) -> None:
    machine = Machine(others)

    while machine.now < PATIENT_S:
        machine.work()
    share = machine.worked / machine.now
    began, worked = machine.now, machine.worked
    while machine.now < began + PATIENT_S:
        machine.work()

    assert share == pytest.approx(1 / (1 + FULL_RESTS), rel=0.1)
    assert (machine.worked - worked) / (machine.now - began) == pytest.approx(1 / (1 + RESTS), rel=0.1)


def test_it_works_on_at_once_when_the_others_are_done() -> None:
    machine = Machine(others=1.0)
    for _ in range(10):
        machine.work()
    rested, machine.others = machine.rested, 0.0

    machine.work()
    machine.work()

    assert machine.rested == rested


def test_short_pieces_are_looked_at_together() -> None:
    machine = Machine(others=1.0)
    machine.work()

    for _ in range(int(LOOK_EVERY_S / 0.001) - 5):
        machine.work(0.001)
    assert machine.rested == 0

    for _ in range(10):
        machine.work(0.001)
    assert machine.rested > 0


def test_a_rest_is_never_long() -> None:
    assert rest_s(60, others=2, full=True) == MAX_REST_S


def test_where_the_system_tells_nothing_it_never_rests() -> None:
    machine = Machine(others=2.0, tells=False)

    for _ in range(10):
        machine.work()

    assert machine.rested == 0


def test_what_the_machine_uses_only_grows() -> None:
    first, then = machine_busy_s(), machine_busy_s()

    if first is None:
        pytest.skip("this system does not tell")
    assert then is not None
    assert 0 < first <= then
