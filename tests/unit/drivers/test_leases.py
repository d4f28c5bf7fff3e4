"""Leases: asked for once, kept alive while they are used, given back at the end, whatever happens on the way."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bettong.drivers.leases import Given, Lease, Loan, granted
from bettong.drivers.references import ReferencePolicy
from bettong.errors import Unavailable

if TYPE_CHECKING:
    import pytest

    from bettong.drivers.references import Reference

BOTH = {
    "user": {"$secret": "vault:database/creds/r#username"},
    "password": {"$secret": "vault:database/creds/r#password"},
}


def test_a_lease_is_renewed_at_half_its_life_until_it_gets_less_than_it_asks_for() -> None:
    lease = granted("l", 100.0, 60.0, renewable=True)
    assert (lease.renew_s, lease.ends_s) == (130.0, 160.0)

    again = lease.renewed(130.0, 60.0)
    assert (again.renew_s, again.ends_s) == (160.0, 190.0)
    assert not again.near_its_end(189.0, 30.0)

    last = again.renewed(160.0, 40.0)
    assert (last.renew_s, last.ends_s) == (None, 200.0)
    assert [last.near_its_end(now, 30.0) for now in (184.9, 185.0)] == [False, True]
    assert [last.near_its_end(now, 5.0) for now in (194.9, 195.0)] == [False, True]


def test_a_renewal_that_failed_is_tried_again_soon_and_no_more_when_there_is_nothing_left() -> None:
    lease = granted("l", 0.0, 60.0, renewable=True)

    assert lease.postponed(30.0).renew_s == 36.0
    assert lease.postponed(55.0).renew_s is None


def test_one_that_cannot_be_renewed_never_is() -> None:
    lease = granted("l", 0.0, 60.0, renewable=False)

    assert lease.renew_s is None
    assert lease.near_its_end(45.0, 30.0)


@dataclass
class Manager:
    """Gives leases of so many seconds, and fails as often as it is to."""

    lasts_s: float = 0.2
    renewals_fail: int = 0
    keeps_all: bool = False
    asked: list[str] = field(default_factory=list)
    renewed: int = 0
    given_back: list[str] = field(default_factory=list)
    third_renewal: threading.Event = field(default_factory=threading.Event)

    def ask(self, reference: Reference, timeout_s: float) -> Given:
        self.asked.append(reference.place)
        lease = granted(f"lease {len(self.asked)}", time.monotonic(), self.lasts_s, renewable=True)
        return Given({"username": "u", "password": "p-of-the-lease"}, lease)

    def renew(self, lease: Lease, timeout_s: float) -> Lease:
        if self.renewals_fail:
            self.renewals_fail -= 1
            raise Unavailable("The vault does not answer.")
        self.renewed += 1
        if self.renewed == 3:
            self.third_renewal.set()
        return lease.renewed(time.monotonic(), self.lasts_s)

    def give_back(self, lease: Lease, timeout_s: float) -> None:
        if self.keeps_all:
            raise Unavailable("The vault answered with status 403.", "Allow it.")
        self.given_back.append(lease.id)


def test_both_fields_of_one_use_come_from_one_lease_which_is_given_back() -> None:
    manager = Manager()

    with closing(Loan({"vault": manager}, ReferencePolicy())) as loan:
        first, second = loan.take(BOTH, 10), loan.take(BOTH, 10)
        assert manager.given_back == []

    assert first == second == {"vault:database/creds/r": {"fields": {"username": "u", "password": "p-of-the-lease"}}}
    assert (manager.asked, manager.given_back) == (["vault:database/creds/r"], ["lease 1"])


def test_each_use_has_a_lease_of_its_own() -> None:
    manager = Manager()

    for _ in range(2):
        with closing(Loan({"vault": manager}, ReferencePolicy())) as loan:
            loan.take(BOTH, 10)

    assert manager.given_back == ["lease 1", "lease 2"]


def test_a_lease_lives_as_long_as_its_use_also_past_renewals_that_fail() -> None:
    manager = Manager(renewals_fail=1)

    with closing(Loan({"vault": manager}, ReferencePolicy())) as loan:
        loan.take(BOTH, 10)
        assert manager.third_renewal.wait(30)
        assert not loan.ends_within(30)


def test_a_lease_that_cannot_be_given_back_is_told_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with closing(Loan({"vault": Manager(lasts_s=60, keeps_all=True)}, ReferencePolicy())) as loan:
        loan.take(BOTH, 10)

    assert "lease not given back place=vault:database/creds/r" in caplog.text
    assert "p-of-the-lease" not in caplog.text + repr(loan)


def test_what_took_too_long_leaves_no_time_for_the_next_one() -> None:
    now = [0.0]

    class Slow(Manager):
        def ask(self, reference: Reference, timeout_s: float) -> Given:
            now[0] += 11
            return Given({"x": "1"})

    details = {"a": {"$secret": "vault:kv/a#x"}, "b": {"$secret": "vault:kv/b#x"}}
    with closing(Loan({"vault": Slow()}, ReferencePolicy(), lambda: now[0])) as loan:
        taken = loan.take(details, 10)

    assert taken["vault:kv/a"] == {"fields": {"x": "1"}}
    assert taken["vault:kv/b"]["failed"][:2] == ["unavailable", "There was no time left to ask for vault:kv/b."]
