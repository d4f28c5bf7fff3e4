"""Touch the machine's free memory before something is measured.

A virtual machine gets each page from its host when it first touches it: 8 µs a page were seen, 1.5 ms for an inference
log's record of 700 kB that takes 0.15 ms in memory used before. On a machine that has just started, whoever writes
files pays for that, and whoever is measured later does not. What is free for some minutes may go back to the host.
"""

from __future__ import annotations

import numpy as np
import psutil

LEFT_BYTES = 2 * 2**30  # for those who are at work
PAGE_BYTES = 4096


def warm_memory(most_bytes: int = 2**40) -> None:
    """Touch up to so much of what is free. A kernel gives what was freed last first."""
    free = min(psutil.virtual_memory().free - LEFT_BYTES, most_bytes)
    if free > 0:
        np.zeros(free, np.uint8)[::PAGE_BYTES] = 1
