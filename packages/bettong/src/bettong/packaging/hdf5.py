"""One attribute of an HDF5 file, read without h5py: Keras writes its version so."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"\x89HDF\r\n\x1a\n"
FIXED_TEXT, VARIABLE = 3, 9  # classes of datatypes
HEAP, HEAP_HEADER_BYTES = b"GCOL", 16


def has_attribute(path: Path, name: str) -> bool:
    """Whether an attribute of this name seems to be somewhere in the file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(name.encode() + b"\0") >= 0


def text_attribute(path: Path, name: str) -> str:
    """The first attribute of this name, when it is one short text; "" when it is not there or of another form.

    Read is version 1 of the attribute message, which libraries write unless they are told to break with old readers:
    version, reserved, sizes of name, datatype and dataspace; then each of the three, padded to 8 bytes; then the value.
    """
    key = name.encode() + b"\0"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        at = content.find(key)
        while at >= 0:
            try:
                if (text := _value(content, at, len(key))) is not None:
                    return text
            except (struct.error, UnicodeDecodeError, IndexError):
                pass  # these bytes stood elsewhere by chance
            at = content.find(key, at + 1)
    return ""


def _value(content: mmap.mmap, at: int, name_bytes: int) -> str | None:
    version, _, name_size, type_size, space_size = struct.unpack_from("<BBHHH", content, at - 8)
    if version != 1 or name_size != name_bytes:
        return None
    kind_at = at + _padded(name_size)
    value_at = kind_at + _padded(type_size) + _padded(space_size)
    kind, size = content[kind_at] & 15, struct.unpack_from("<I", content, kind_at + 4)[0]
    if kind == FIXED_TEXT:
        return _text(content[value_at : value_at + size])
    if kind != VARIABLE:
        return None
    length, heap, index = struct.unpack_from("<IQI", content, value_at)
    return _text(_in_heap(content, heap, index)[:length])


def _in_heap(content: mmap.mmap, heap: int, index: int) -> bytes:
    """An object of a global heap collection, where texts of any length lie."""
    if content[heap : heap + 4] != HEAP:
        return b""
    at, end = heap + HEAP_HEADER_BYTES, heap + struct.unpack_from("<Q", content, heap + 8)[0]
    while at < end:
        found, _, size = struct.unpack_from("<HHxxxxQ", content, at)
        if found == index:
            return content[at + 16 : at + 16 + size]
        if found == 0:  # the free space at the end
            break
        at += 16 + _padded(size)
    return b""


def _text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("utf-8")


def _padded(size: int) -> int:
    return size + -size % 8
