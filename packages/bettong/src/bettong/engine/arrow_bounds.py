"""How much an Arrow IPC body unpacks to, read from its message headers before a byte of it is unpacked.

A few compressed kilobytes may claim terabytes. Each compressed buffer starts with its unpacked length; the headers
(FlatBuffers, described at https://arrow.apache.org/docs/format/Columnar.html) say which buffers are compressed.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from bettong.errors import TooLarge

_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # members of the MessageHeader union


def check_unpacked_size(stream: pa.Buffer, max_bytes: int) -> None:
    """Raises TooLarge when the compressed buffers of an Arrow IPC stream claim more than `max_bytes` in all.

    Raises:
        ValueError, struct.error, pa.ArrowException: the headers cannot be read.
    """
    total = 0
    reader = pa.ipc.MessageReader.open_stream(stream)
    while (message := _next(reader)) is not None:
        total += _claimed(message)
        if total > max_bytes:
            raise TooLarge(f"The Arrow body unpacks to more than {max_bytes} bytes.", "Send fewer rows in one request.")


def _next(reader: pa.ipc.MessageReader) -> pa.ipc.Message | None:
    try:
        return reader.read_next_message()
    except StopIteration:
        return None


def _claimed(message: pa.ipc.Message) -> int:
    """Unpacked bytes that the compressed buffers of one message claim; 0 for one without any."""
    head = message.metadata.to_pybytes()
    root = _indirect(head, 0)
    kind = _scalar(head, root, 1, "<B")
    header = _table(head, root, 2)
    if kind == _DICTIONARY_BATCH and header is not None:
        header = _table(head, header, 1)
    elif kind != _RECORD_BATCH:
        return 0
    if header is None or _field(head, header, 3) is None:  # no BodyCompression
        return 0
    at = _field(head, header, 2)
    if at is None or message.body is None:
        return 0
    buffers = _indirect(head, at)
    (count,) = struct.unpack_from("<I", head, buffers)
    total = 0
    for i in range(count):
        offset, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * i)
        if length >= 8:
            (unpacked,) = struct.unpack_from("<q", message.body, offset)
            total += length if unpacked < 0 else unpacked  # -1: this buffer was left as it is
    return total


def _indirect(data: bytes, at: int) -> int:
    return int(at + struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, index: int) -> int | None:
    """Where field `index` of a FlatBuffers table lies; None when it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    (size,) = struct.unpack_from("<H", data, vtable)
    slot = 4 + 2 * index
    if slot + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", data, vtable + slot)
    return table + offset if offset else None


def _scalar(data: bytes, table: int, index: int, form: str) -> int:
    at = _field(data, table, index)
    return 0 if at is None else int(struct.unpack_from(form, data, at)[0])


def _table(data: bytes, table: int, index: int) -> int | None:
    at = _field(data, table, index)
    return None if at is None else _indirect(data, at)
