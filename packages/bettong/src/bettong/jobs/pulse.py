"""Whether a job's process still lives, and whether its work goes on: told by what it says, with a clock that the caller
reads."""

from __future__ import annotations

MOST_OF_A_LOOK_S = 1.0
IDLE_TOLD_FIRST_S = 600.0


class Pulse:
    """Adds up for how long a process has said nothing at all, and nothing of how far it is.

    A look counts for `MOST_OF_A_LOOK_S` at most: while this process slept or was stopped itself, often together with
    the other one, it could not hear.
    """

    def __init__(self, now_s: float) -> None:
        self.silent_s = self.idle_s = 0.0
        self._looked_s = now_s
        self._tell_s = IDLE_TOLD_FIRST_S

    def looked(self, now_s: float, *, heard: bool, progress: bool) -> None:
        """What was there since the last look."""
        passed_s = min(now_s - self._looked_s, MOST_OF_A_LOOK_S)
        self._looked_s = now_s
        self.silent_s = 0.0 if heard else self.silent_s + passed_s
        self.idle_s = 0.0 if progress else self.idle_s + passed_s
        if progress:
            self._tell_s = IDLE_TOLD_FIRST_S

    def news(self) -> str | None:
        """What to tell people of work that does not go on: once after ten minutes, then each time it has doubled."""
        if self.idle_s < self._tell_s:
            return None
        self._tell_s = 2 * self.idle_s
        return f"Its process lives, but has told no progress for {self.idle_s / 60:.0f} minutes."
