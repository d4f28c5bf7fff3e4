"""Work beside the requests."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from bettong.jobs.loop import Loop

PATIENCE_S = 10.0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux knows a niceness of threads")
def test_a_nice_loop_stands_back_and_its_process_does_not() -> None:
    here = os.getpriority(os.PRIO_PROCESS, 0)
    found: list[int] = []
    looked = threading.Event()

    def work() -> None:
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        looked.set()

    loop = Loop("nice", work, every_s=3600, niceness=here + 5)
    loop.start()
    assert looked.wait(PATIENCE_S)
    assert loop.stop(PATIENCE_S)

    assert found == [here + 5]
    assert os.getpriority(os.PRIO_PROCESS, 0) == here


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
