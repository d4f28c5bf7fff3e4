"""Work beside the requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from bettong.jobs.loop import Loop

if TYPE_CHECKING:
    import pytest

PATIENCE_S = 10.0


def test_a_round_that_fails_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    rounds: list[int] = []
    again = threading.Event()

    def work() -> None:
        rounds.append(len(rounds))
        if len(rounds) == 1:
            loop.wake()
            raise RuntimeError("the first round")
        again.set()

    loop = Loop("failing", work, every_s=3600)
    loop.start()
    assert again.wait(PATIENCE_S)
    assert loop.stop(PATIENCE_S)

    assert "the first round" in caplog.text
