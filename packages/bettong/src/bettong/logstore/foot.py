"""The checksum of a Parquet file's foot, in a file beside it.

Pages have checksums of their own; the foot, which tells where they are, has none, and Parquet's library ends the whole
process over some feet in which one bit is wrong. So nobody reads a foot that is not what was written.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isal.isal_zlib import crc32

if TYPE_CHECKING:
    from pathlib import Path

PARQUET, FOOT = ".parquet", ".foot"
_END_BYTES = 8  # the foot's length and "PAR1"
_SUM_BYTES = 4


def keep_foot(file: Path) -> Path:
    """Write down what the foot of a finished `file` is; the file that says so, which is not synced."""
    said = file.with_suffix(FOOT)
    said.write_bytes(2 * _sum_of(file))  # twice: when the two differ, it is they that are damaged
    return said


def check_foot(file: Path) -> None:
    """Parts of earlier versions have nothing that says what theirs is, and are believed.

    Raises:
        ValueError: it is not what was written.
        OSError: the file cannot be read.
    """
    try:
        said = file.with_suffix(FOOT).read_bytes()
    except FileNotFoundError:
        return
    one, other = said[:_SUM_BYTES], said[_SUM_BYTES:]
    if len(one) == _SUM_BYTES and one == other and one != _sum_of(file):
        raise ValueError("the foot is not what was written")


def _sum_of(file: Path) -> bytes:
    with file.open("rb") as data:
        size = data.seek(0, os.SEEK_END)
        data.seek(max(0, size - _END_BYTES))
        length = int.from_bytes(data.read(4), "little")
        data.seek(max(0, size - _END_BYTES - length))
        return crc32(data.read()).to_bytes(_SUM_BYTES, "little")
