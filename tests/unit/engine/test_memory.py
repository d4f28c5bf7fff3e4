"""What a replica frees it has at hand again, up to a bound."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from bettong.engine.memory import KEPT_BYTES

PROGRAM = textwrap.dedent("""
    import ctypes, sys
    from bettong.engine.memory import keep_freed_memory

    def faults_of(size):
        before = int(open("/proc/self/stat").read().rpartition(")")[2].split()[7])
        block = bytearray(size)
        del block
        return int(open("/proc/self/stat").read().rpartition(")")[2].split()[7]) - before

    told = keep_freed_memory()
    faults_of(int(sys.argv[1]))
    print(told, faults_of(int(sys.argv[1])))
""")


def second_time(size: int) -> int:
    """Pages that had to be made for a block of `size` bytes when one of that size was freed before."""
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(size)], capture_output=True, text=True, check=True)
    told, faults = ran.stdout.split()
    if told != "True":
        pytest.skip("this C library keeps memory in ways of its own")
    return int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_a_request_freed_is_there_for_the_next_one() -> None:
    assert second_time(16 * 2**20) < 100
    assert second_time(2 * KEPT_BYTES) > 2 * KEPT_BYTES // 4096 // 2, "not all of it is kept"
