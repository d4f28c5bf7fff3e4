"""Where the pieces of a log lie, and what their names say.

    <folder>/<topic>/sequence                                       last number given, locked while one is given
    <folder>/<topic>/<partition>/<number>.seg                       a segment
    <folder>/<topic>/<partition>/<number>_<first>_<last>_<rows>.part/   the same rows as Parquet, times in ms

Numbers grow over a whole topic, in the order in which segments were made. A segment beside a part of its number is a
leftover and does not count: names alone decide, so every row is there exactly once at every moment of a compaction.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

SEQUENCE_FILE = "sequence"
TEMPORARY = ".tmp"  # a part being written
GONE = ".gone"  # a part being removed
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_SEGMENT = re.compile(r"(\d{16})\.seg")
_PART = re.compile(r"(\d{16})_(-?\d+)_(-?\d+)_(\d+)\.part")
_MAX_LISTINGS = 100


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment by its name."""

    partition: str
    number: int
    path: Path


@dataclass(frozen=True, slots=True)
class PartEntry:
    """A part by its name: `rows` rows with times of `first_ms` to `last_ms`, both included."""

    partition: str
    number: int
    path: Path
    first_ms: int
    last_ms: int
    rows: int


Entry = SegmentEntry | PartEntry


def check_name(kind: str, name: str) -> str:
    """Return `name` if it can name a folder of the log.

    Raises:
        BadInput: it cannot.
    """
    if not is_name(name):
        raise BadInput(
            f"Log {kind} has a name of {len(name)} characters that cannot name a folder.",
            "Use 1 to 255 ASCII letters, digits, dots, dashes and underscores, with a letter or digit first.",
        )
    return name


def is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def segment_name(number: int) -> str:
    return f"{number:016d}.seg"


def part_name(number: int, first_ms: int, last_ms: int, rows: int) -> str:
    return f"{number:016d}_{first_ms}_{last_ms}_{rows}.part"


def entry_of(folder: Path, partition: str, name: str) -> Entry | None:
    """What a file or folder of a partition is by its name; None for what is no piece of the log."""
    path = folder / partition / name
    if match := _SEGMENT.fullmatch(name):
        return SegmentEntry(partition, int(match[1]), path)
    if match := _PART.fullmatch(name):
        return PartEntry(partition, int(match[1]), path, int(match[2]), int(match[3]), int(match[4]))
    return None


def current(entries: Iterable[Entry]) -> list[Entry]:
    """The entries that count, in order of their numbers: a segment whose part exists does not."""
    found = list(entries)
    parts = {(e.partition, e.number) for e in found if isinstance(e, PartEntry)}
    kept = [e for e in found if isinstance(e, PartEntry) or (e.partition, e.number) not in parts]
    return sorted(kept, key=lambda e: (e.number, e.partition))


def list_topic(topic_folder: Path) -> list[Entry]:
    """All entries of a topic, leftovers included, as they were together at one moment; [] when there is no topic.

    Reading a folder is no snapshot: a segment may go and its part may come behind the scan's back. Two equal scans
    one after the other have missed nothing that was there before the second.
    """
    seen = _scan(topic_folder)
    for _ in range(_MAX_LISTINGS):
        again = _scan(topic_folder)
        if again == seen:
            return seen
        seen = again
    raise Unavailable(f"The pieces of log topic '{topic_folder.name}' keep changing.", "Try again in a moment.")


def _scan(topic_folder: Path) -> list[Entry]:
    found: list[Entry] = []
    try:
        for partition in partitions(topic_folder):
            names = os.listdir(topic_folder / partition)
            found += [e for name in names if (e := entry_of(topic_folder, partition, name)) is not None]
    except FileNotFoundError:  # an empty partition was removed; the next scan will not see it
        pass
    return sorted(found, key=lambda e: (e.number, e.partition, e.path.name))


def partitions(topic_folder: Path) -> list[str]:
    """Names of a topic's partitions, [] when there is no topic."""
    try:
        with os.scandir(topic_folder) as inside:
            return sorted(item.name for item in inside if item.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return []


def topics(folder: Path) -> list[str]:
    """Names of all topics of a log folder, [] when there is no folder."""
    return [name for name in partitions(folder) if is_name(name)]


@contextmanager
def topic_lock(topic_folder: Path) -> Iterator[int]:
    """Alone among all processes while segments are made, claimed or removed; gives the open sequence file."""
    fd = os.open(topic_folder / SEQUENCE_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def create_segment(folder: Path, topic: str, partition: str) -> tuple[int, Path]:
    """Make the next segment of a topic in a partition; (open descriptor, path). The descriptor holds the segment's
    lock: as long as it is open nobody takes the segment for ended.

    Raises:
        OSError: the operating system refused.
    """
    topic_folder = folder / topic
    topic_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with topic_lock(topic_folder) as sequence:
        (topic_folder / partition).mkdir(mode=0o700, exist_ok=True)
        # The file alone would do, were it not that a power cut may take it back to an older number.
        text = os.pread(sequence, 32, 0)
        told = int(text) if text.strip().isdigit() else 0
        number = max([told, *(entry.number for entry in _scan(topic_folder))]) + 1
        path = topic_folder / partition / segment_name(number)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(sequence, b"%020d\n" % number, 0)
        except BaseException:
            os.close(fd)
            raise
    return fd, path


@contextmanager
def claimed(topic_folder: Path, path: Path) -> Iterator[bool]:
    """Whether `path` has no writer any more; True keeps others from claiming it until the block ends."""
    try:
        with topic_lock(topic_folder):
            fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    else:
        free = True
    try:
        yield free
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
