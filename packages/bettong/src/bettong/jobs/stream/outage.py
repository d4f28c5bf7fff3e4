"""How long to wait for something that is not there: a decision without a clock of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
LONGEST_S = 600.0  # it is gone, then, and no more waited for
LONGEST_AT_FIRST_S = 60.0  # what never was there is rather called by a wrong name


@dataclass(frozen=True, slots=True)
class Outage:
    """`since_s` is when it began, None when there is none; `tries` how many failed since; `was_there` whether it has
    ever been there."""

    since_s: float | None = None
    tries: int = 0
    was_there: bool = False

    @property
    def longest_s(self) -> float:
        """For how long it is waited for, from its beginning on."""
        return LONGEST_S if self.was_there else LONGEST_AT_FIRST_S

    def on_failure(self, now_s: float) -> tuple[Outage, float | None]:
        """What is so after one more try failed, and how long to wait for the next; None when to give up."""
        since_s = now_s if self.since_s is None else self.since_s
        left = since_s + self.longest_s - now_s
        pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self.tries, 16), left)
        return replace(self, since_s=since_s, tries=self.tries + 1), pause_s if left > 0 else None

    def on_opening(self) -> Outage:
        """It was there, if only for a moment."""
        return replace(self, was_there=True)

    def on_success(self) -> Outage:
        return Outage(was_there=True)
