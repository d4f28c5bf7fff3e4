"""The server's end of a job's process: started, told its job, heard, told to stop, and ended for certain."""

from __future__ import annotations

import select
import time
from typing import TYPE_CHECKING, Any

from bettong.drivers import frames
from bettong.drivers.piped import PipedProcess
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

MODULE = "bettong.jobs._child"
SAY_TIMEOUT_S = 20.0  # it listens in a thread of its own, and always


class JobProcess(PipedProcess):
    """Used from one thread. It waits until it is told its job, and ends with this process."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. Raises Unavailable when the system does not let us."""
        super().__init__(MODULE, environment)

    def tell(self, words: dict[str, Any]) -> None:
        """Raises Unavailable: it is dead, or does not listen, which makes it as good as dead."""
        try:
            self.line.say(words, time.monotonic() + SAY_TIMEOUT_S)
        except (frames.Ended, TimeoutError):
            raise self.death() from None

    def hear(self, wait_s: float) -> dict[str, Any] | None:
        """What it says next; None when it said nothing for so long. Raises Unavailable: it is dead."""
        poll = select.poll()
        poll.register(self.line.incoming, select.POLLIN)
        if not poll.poll(wait_s * 1000):
            return None
        try:
            kind, body = self.line.receive(time.monotonic() + SAY_TIMEOUT_S)
            if kind == frames.WORDS:
                return frames.words(body)
        except (frames.Ended, TimeoutError):
            pass
        raise self.death()

    def death(self) -> Unavailable:
        """What to say of it; it is ended, if it was not."""
        return Unavailable(f"The job's process ended {self.kill()}.")

    def silent(self, for_s: float) -> Unavailable:
        """What to say of one that lives and tells nothing; it is ended, with all that it started."""
        return Unavailable(f"The job's process told nothing for {for_s:g} s: it hung, and was ended {self.kill()}.")
