"""Touch the machine's free memory once, before anything is measured.

A virtual machine gets each page from its host when it first touches it: 8 µs a page were seen, 1.5 ms for an inference
log's record of 700 kB that takes 0.15 ms in memory used before. On a machine that has just started, whoever writes
files pays for that, and whoever is measured later does not.
"""

from __future__ import annotations

import numpy as np
import psutil

LEFT_BYTES = 2 * 2**30  # for those who are at work
PAGE_BYTES = 4096


def warm_memory() -> None:
    free = psutil.virtual_memory().free - LEFT_BYTES
    if free > 0:
        np.zeros(free, np.uint8)[::PAGE_BYTES] = 1
