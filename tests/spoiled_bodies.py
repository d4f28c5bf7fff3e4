"""Bodies that no client sends on purpose: good ones with something done to them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import numpy as np

JSON, ARROW = "application/json; format=pandas-records", "application/vnd.apache.arrow.file"
Head = dict[str, str]
TOKENS = [b"[", b"]", b"{", b"}", b",", b":", b'"', b"null", b"NaN", b"1e999", b"-0", b"\\u0000", b"\xff", b"\x00",
          b"18446744073709551616", b'"tensor"', b"[[[[[[[[", b"true", b"\xef\xbb\xbf"]  # fmt: skip
CONTENT_TYPES = [JSON, ARROW, "application/json; format=wallaroo", "application/json", "text/plain", "", "a/b;c=d;;"]


def good(rows: np.ndarray) -> list[tuple[Head, bytes]]:
    """What is answered with 200: each form of the same rows, packed and not."""
    sink = pa.BufferOutputStream()
    table = pa.table({"tensor": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    text = json.dumps([{"tensor": row.tolist()} for row in rows]).encode()
    arrow = sink.getvalue().to_pybytes()
    packed = {"Content-Type": JSON, "Content-Encoding": "gzip"}
    return [({"Content-Type": JSON}, text), ({"Content-Type": ARROW}, arrow), (packed, gzip.compress(text))]


def spoiled(body: bytes, luck: random.Random) -> bytes:
    """`body` after one to four of the usual accidents."""
    for _ in range(luck.randint(1, 4)):
        body = luck.choice(ACCIDENTS)(body, luck)
    return body


def _flip(body: bytes, luck: random.Random) -> bytes:
    if not body:
        return b"\x00"
    at = luck.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1 << luck.randrange(8)]) + body[at + 1 :]


def _cut(body: bytes, luck: random.Random) -> bytes:
    return body[: luck.randint(0, len(body))]


def _lose(body: bytes, luck: random.Random) -> bytes:
    start = luck.randint(0, len(body))
    return body[:start] + body[start + luck.randint(1, 64) :]


def _repeat(body: bytes, luck: random.Random) -> bytes:
    start = luck.randint(0, len(body))
    piece = body[start : start + luck.randint(1, 64)]
    return body[:start] + piece * luck.randint(2, 200) + body[start:]


def _insert(body: bytes, luck: random.Random) -> bytes:
    at = luck.randint(0, len(body))
    return body[:at] + luck.choice(TOKENS) + body[at:]


def _number(body: bytes, luck: random.Random) -> bytes:
    """Overwrite eight aligned bytes: lengths and offsets of Arrow are such."""
    if len(body) < 16:
        return body
    at = luck.randrange(len(body) // 8) * 8
    value = luck.choice([0, 1, -1, 2**31 - 1, -(2**31), 2**62, -(2**63), luck.getrandbits(32)])
    return body[:at] + value.to_bytes(8, "little", signed=True) + body[at + 8 :]


ACCIDENTS: list[Callable[[bytes, random.Random], bytes]] = [_flip, _cut, _lose, _repeat, _insert, _number]
