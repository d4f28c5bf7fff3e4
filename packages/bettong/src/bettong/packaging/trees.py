"""Folders that are written once, then only read; and locks between the processes that write them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import time
from typing import TYPE_CHECKING

from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WRITE_BITS = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
POLL_S = 0.05


@contextlib.contextmanager
def exclusive(lock: Path, *, wait_s: float, on_wait: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the file lock `lock` (made when absent); yields its descriptor. One holder at a time, threads included.

    A child process that is handed the descriptor keeps the lock for as long as it lives: whoever comes after a killed
    holder waits for the child that it left behind. `on_wait` is called once when the lock is not free at once.

    Raises:
        Unavailable: it was not free within `wait_s`.
    """
    lock.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _locked(fd):
            on_wait()
            give_up_at = time.monotonic() + wait_s
            while not _locked(fd):
                if time.monotonic() >= give_up_at:
                    raise Unavailable(
                        f"Another build holds '{lock.name}' for more than {wait_s:.0f} s.",
                        "Try again later; restart the platform if it does not end.",
                    )
                time.sleep(POLL_S)
        yield fd
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_read_only(tree: Path) -> None:
    """Take every write bit from the files and folders of `tree`, itself included. Links are left alone."""
    for folder, _, files in os.walk(tree, topdown=False):
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                _drop_write_bits(path)
        _drop_write_bits(folder)


def _drop_write_bits(path: str) -> None:
    os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~WRITE_BITS)


def remove_tree(tree: Path) -> None:
    """Remove a tree also when it is read-only. No error when there is none."""
    if not os.path.lexists(tree):
        return
    for folder, _, _ in os.walk(tree):
        os.chmod(folder, stat.S_IRWXU)  # what stands in a folder can be removed only while the folder is writable
    shutil.rmtree(tree)


def size_bytes(tree: Path) -> int:
    """What the files of `tree` add up to; a file with several names counts each time."""
    return sum(os.lstat(os.path.join(folder, name)).st_size for folder, _, files in os.walk(tree) for name in files)
