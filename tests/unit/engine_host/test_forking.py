"""What has to hold before a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from bettong.engine.forking import SINGLE_THREADED, open_descriptors, require_single_thread, thread_names


def test_a_process_with_a_second_thread_is_not_forked_and_the_thread_is_named() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="log-compaction")
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="log-compaction"):
            require_single_thread()
    finally:
        done.set()
        thread.join()


def test_importing_the_engine_starts_no_thread_under_the_environment_that_compose_sets() -> None:
    code = "import bettong.engine.nursery as n; n.require_single_thread(); print('one')"

    ran = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **SINGLE_THREADED}, capture_output=True, text=True, check=False
    )

    assert (ran.stdout, ran.stderr) == ("one\n", "")


def test_this_thread_is_among_the_threads() -> None:
    assert any(threading.current_thread().name in name for name in thread_names())


def test_an_open_descriptor_is_seen_and_a_closed_one_is_not() -> None:
    reading, writing = os.pipe()
    assert {reading, writing} <= open_descriptors()

    os.close(reading)
    os.close(writing)

    assert not {reading, writing} & open_descriptors()


def test_a_fork_closes_everything_but_what_it_keeps() -> None:
    code = """
import os
from bettong.engine.forking import close_others, open_descriptors
keep, lose = os.pipe()
close_others({keep})
print(sorted(open_descriptors()) == [0, 1, 2, keep])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (ran.stdout, ran.stderr) == ("True\n", "")
