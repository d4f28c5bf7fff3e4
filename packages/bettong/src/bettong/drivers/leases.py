"""What one use of a connection has from managers of secrets, such as a vault: asked for by this process, so that no
driver's process knows the manager's token, kept alive while the use lasts, and given back when it ends.

Nothing of it is stored. When this process is killed, nobody keeps the leases alive: they run out by themselves.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from bettong.drivers import references
from bettong.errors import BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bettong.drivers.references import Reference, ReferencePolicy

log = logging.getLogger("bettong.drivers")

ASK_TIMEOUT_S = 10.0
SOON = 0.1  # of a lease's life: how long after a renewal that failed the next one is tried


@dataclass(frozen=True, slots=True)
class Lease:
    """Credentials that end. Times are those of a clock that only moves forward.

    Attributes:
        id: by which the manager knows it.
        asked_s: for how long it was given at first, and is asked for again.
        ends_s: when it ends, as far as is known.
        renew_s: when to ask for more; None when there is no more to be had.
    """

    id: str
    asked_s: float
    ends_s: float
    renew_s: float | None

    def renewed(self, now_s: float, lasts_s: float) -> Lease:
        """After a renewal that gave `lasts_s`. Less than was asked for is the last that there is."""
        capped = lasts_s < 0.9 * self.asked_s
        return replace(self, ends_s=now_s + lasts_s, renew_s=None if capped else now_s + lasts_s / 2)

    def postponed(self, now_s: float) -> Lease:
        """After a renewal that came to nothing: the next try is soon, as long as there is something to renew."""
        next_s = now_s + self.asked_s * SOON
        return replace(self, renew_s=next_s if next_s < self.ends_s else None)

    def at_its_last(self) -> Lease:
        return replace(self, renew_s=None)

    def near_its_end(self, now_s: float, most_s: float) -> bool:
        """Whether it gets no further and ends within `most_s`, or a quarter of its life if that is less."""
        return self.renew_s is None and now_s >= self.ends_s - min(most_s, self.asked_s / 4)


def granted(name: str, now_s: float, lasts_s: float, *, renewable: bool) -> Lease:
    """A lease as it is given; it is renewed at half its life."""
    return Lease(name, lasts_s, now_s + lasts_s, now_s + lasts_s / 2 if renewable else None)


@dataclass(frozen=True, slots=True)
class Given:
    """The fields of one secret, and the lease that they end with, if any."""

    fields: Mapping[str, Any] = field(repr=False)
    lease: Lease | None = None


class Manager(Protocol):
    """Keeps secrets, each a few fields by a path."""

    def ask(self, reference: Reference, timeout_s: float) -> Given:
        """Raises BadInput or Unavailable, naming the reference's field and place and no value."""


class Leasing(Manager, Protocol):
    def renew(self, lease: Lease, timeout_s: float) -> Lease:
        """As it is then; one that is not renewed any more is at its last. Raises Unavailable: try again."""

    def give_back(self, lease: Lease, timeout_s: float) -> None:
        """Raises Unavailable: it ends by itself, later."""


class Loan:
    """The secrets of one use. Used from one thread; a thread of its own renews leases, from the first one on."""

    def __init__(
        self,
        managers: Mapping[str, Manager],
        policy: ReferencePolicy,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._managers, self._policy, self._now_s = managers, policy, now_s
        self._given: dict[str, Given | BettongError] = {}
        self._leases: dict[str, tuple[Leasing, Lease]] = {}
        self._changed = threading.Condition()
        self._over = False
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Loan({len(self._leases)} leases)"

    def take(self, details: Mapping[str, Any], timeout_s: float) -> dict[str, dict[str, Any]]:
        """By place, what these details name of it: `{"fields": {…}}`, or `{"failed": [code, problem, next step]}`.

        Each place is asked for once per loan, whatever names it. Raises BadInput for a reference that is none.
        """
        taken: dict[str, dict[str, Any]] = {}
        until = self._now_s() + timeout_s
        for reference in references.kept_elsewhere(details, self._policy):
            place = reference.place
            if place not in self._given:
                self._given[place] = self._ask(reference, min(until - self._now_s(), ASK_TIMEOUT_S))
            given = self._given[place]
            if isinstance(given, BettongError):
                taken[place] = {"failed": [given.code, given.problem, given.next_step]}
                continue
            named = taken.setdefault(place, {"fields": {}})["fields"]
            if isinstance(value := given.fields.get(reference.name), str):
                named[reference.name] = value
        return taken

    def ends_within(self, most_s: float) -> bool:
        """Whether a lease gets no further and ends within `most_s`, or a quarter of its life if that is less."""
        with self._changed:
            return any(lease.near_its_end(self._now_s(), most_s) for _, lease in self._leases.values())

    def close(self) -> None:
        """Give every lease back. One that cannot be is told in the log, and ends by itself."""
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()
        for place, (manager, lease) in self._leases.items():
            try:
                manager.give_back(lease, ASK_TIMEOUT_S)
            except BettongError as refused:
                left_s = max(0.0, lease.ends_s - self._now_s())
                log.warning("lease not given back place=%s ends_within_s=%d problem=%s", place, left_s, refused)

    def _ask(self, reference: Reference, timeout_s: float) -> Given | BettongError:
        manager: Any = self._managers.get(reference.scheme)
        if manager is None:
            return references.nowhere(reference)
        if timeout_s <= 0:
            return Unavailable(f"There was no time left to ask for {reference.place}.", "Allow more time.")
        try:
            given: Given = manager.ask(reference, timeout_s)
        except BettongError as refused:
            return refused
        if given.lease is not None:
            with self._changed:
                self._leases[reference.place] = manager, given.lease
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep_alive, name="bettong-leases", daemon=True)
                self._thread.start()
        return given

    def _keep_alive(self) -> None:
        """Renew each lease when it is due, until the use is over."""
        while True:
            with self._changed:
                if self._over:
                    return
                now = self._now_s()
                waits = {
                    place: each.renew_s - now for place, (_, each) in self._leases.items() if each.renew_s is not None
                }
                due = [place for place, wait_s in waits.items() if wait_s <= 0]
                if not due:
                    self._changed.wait(min(waits.values(), default=None))
                    continue
            for place in due:
                self._renew(place, *self._leases[place])

    def _renew(self, place: str, manager: Leasing, lease: Lease) -> None:
        try:
            renewed = manager.renew(lease, ASK_TIMEOUT_S)
        except Unavailable as away:
            log.warning("lease not renewed place=%s problem=%s", place, away)
            renewed = lease.postponed(self._now_s())
        if renewed.renew_s is None:
            log.info("lease gets no further place=%s ends_within_s=%d", place, max(0.0, renewed.ends_s - self._now_s()))
        with self._changed:
            self._leases[place] = manager, renewed
