"""How large segments of a log may grow beside what the log may take."""

from __future__ import annotations

import pytest

from bettong.domain.logs import LEAST_SEGMENT_BYTES, SEGMENT_BYTES, segment_bytes

MB = 2**20


@pytest.mark.parametrize(
    ("log", "replicas", "segment"),
    [(10 * 1024 * MB, 2, SEGMENT_BYTES), (64 * MB, 2, 8 * MB), (64 * MB, 1, 16 * MB), (MB, 8, LEAST_SEGMENT_BYTES)],
)
def test_segments_being_written_take_at_most_a_quarter_of_a_log(log: int, replicas: int, segment: int) -> None:
    assert segment_bytes(log, replicas) == segment
