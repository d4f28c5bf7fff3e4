"""What is unpacked is what was packed; what is not whole, or too much, is refused before it takes memory."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.engine.body_coding import coding_of, unpack
from bettong.errors import BadInput, TooLarge, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

    Pack = Callable[[bytes], bytes]

PACKS: dict[str, Pack] = {"gzip": gzip.compress, "zstd": zstandard.compress}
DATA = bytes(range(256)) * 40
LIMIT = 2**20


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", None),
        (b"identity", None),
        (b"gzip", "gzip"),
        (b" X-GZIP", "gzip"),
        (b"ZSTD ", "zstd"),
    ],
)
def test_these_codings_are_taken(header: bytes, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", [b"br", b"deflate", b"compress", b"gzip, gzip", b"gzip,zstd", b"gzipp"])
def test_others_are_told_which_are(header: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="gzip, zstd"):
        coding_of(header)


@settings(max_examples=150, deadline=None)
@given(
    coding=st.sampled_from(sorted(PACKS)),
    parts=st.lists(st.binary(max_size=300) | st.integers(0, 400_000).map(bytes), min_size=1, max_size=3),
)
def test_what_was_packed_comes_out_whether_in_one_piece_or_several(coding: str, parts: list[bytes]) -> None:
    packed = b"".join(map(PACKS[coding], parts))

    assert unpack(coding, packed, 2 * LIMIT) == b"".join(parts)


@pytest.mark.parametrize("coding", sorted(PACKS))
def test_a_body_cut_off_anywhere_or_with_something_behind_it_is_refused(coding: str) -> None:
    packed = PACKS[coding](DATA)

    for end in range(len(packed)):
        with pytest.raises(BadInput, match=f"not whole {coding} data"):
            unpack(coding, packed[:end], LIMIT)
    for more in (b"x", b"\0", packed[:-1], b"x" * 2000):
        with pytest.raises(BadInput):
            unpack(coding, packed + more, LIMIT)


@settings(max_examples=200, deadline=None)
@given(
    coding=st.sampled_from(sorted(PACKS)),
    body=st.binary(max_size=100),
    at=st.integers(0, 200),
    flip=st.integers(1, 255),
)
def test_rubbish_is_bad_input(coding: str, body: bytes, at: int, flip: int) -> None:
    packed = bytearray(PACKS[coding](DATA))
    packed[at % len(packed)] ^= flip
    for broken in (body, bytes(packed)):
        try:
            unpack(coding, broken, LIMIT)
        except BadInput:
            continue


@pytest.mark.parametrize("coding", sorted(PACKS))
def test_the_limit_is_what_comes_out_to_the_byte(coding: str) -> None:
    assert len(unpack(coding, PACKS[coding](bytes(LIMIT)), LIMIT)) == LIMIT
    with pytest.raises(TooLarge):
        unpack(coding, PACKS[coding](bytes(LIMIT + 1)), LIMIT)


def deep(pack: Callable[[bytes], bytes]) -> bytes:
    """Many frames, one after the other, that each unpack to 16 MiB of zeros."""
    return pack(bytes(16 * 2**20)) * 64


@pytest.mark.parametrize("coding", sorted(PACKS))
def test_a_bomb_takes_little_more_memory_than_the_limit(coding: str) -> None:
    one = zlib.compressobj(wbits=31)
    bomb = one.compress(bytes(2**28)) + one.flush() if coding == "gzip" else deep(zstandard.compress)
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            unpack(coding, bomb, LIMIT)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20  # of a GiB, or a quarter of one


def test_a_frame_that_wants_a_large_window_is_refused_before_it_gets_one() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=0)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = packed.compress(DATA) + packed.flush()

    with pytest.raises(BadInput):
        unpack("zstd", body, LIMIT)
