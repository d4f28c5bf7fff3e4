"""The message of a batch in parts has the very bytes of the one in a piece, and no part outlives its use."""

from __future__ import annotations

import gc
import os
import resource
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from builders import log_rows, request_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.domain.logs import LogQuery, topic_of
from bettong.errors import StorageFull, TooLarge
from bettong.logstore import message_parts
from bettong.logstore.message_parts import LEAST_BYTES, MOST_PARTS, PART_BYTES, MessageParts
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.segment import SegmentFile
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TOPIC, FAILURES = topic_of(1, "p"), topic_of(1, "p", failures=True)
FLOATS = st.floats(width=32, allow_nan=False)
WORDS = st.text(max_size=12)
INTS = st.integers(-(2**31), 2**31 - 1)
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.float32(), FLOATS),
    (pa.int64(), INTS),
    (pa.bool_(), st.booleans()),
    (pa.string(), WORDS),
    (pa.large_string(), WORDS),
    (pa.binary(), st.binary(max_size=9)),
    (pa.timestamp("ms"), INTS),
    (pa.null(), st.none()),
    (pa.list_(pa.float32()), st.lists(FLOATS, max_size=4)),
    (pa.large_list(pa.int64()), st.lists(INTS, max_size=4)),
    (pa.list_(pa.float32(), 3), st.lists(FLOATS, min_size=3, max_size=3)),
    (pa.list_(pa.string()), st.lists(st.none() | WORDS, max_size=3)),
    (pa.list_(pa.list_(pa.bool_())), st.lists(st.lists(st.booleans(), max_size=3), max_size=3)),
    (pa.struct([("a", pa.int64()), ("b", pa.string())]), st.fixed_dictionaries({"a": INTS, "b": WORDS})),
]


@st.composite
def batches(draw: st.DrawFn) -> list[pa.RecordBatch]:
    """Several of one schema, some a slice, each long enough not to be copied."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    found = []
    for _ in range(draw(st.integers(1, 3))):
        few = draw(st.integers(1, 20))
        columns: list[pa.Array[Any]] = [pa.array(np.arange(MOST_PARTS * PART_BYTES // 8))]  # it alone is large enough
        for kind, values in kinds:
            nulls = draw(st.booleans())
            some = draw(st.lists(st.none() | values if nulls else values, min_size=few, max_size=few))
            picks = pa.array(np.arange(len(columns[0])) % few)
            columns.append(pa.array(some, kind).take(picks))
        rows = pa.RecordBatch.from_arrays(columns, [f"c{i}" for i in range(len(columns))])
        start = draw(st.integers(0, 70))
        found.append(rows.slice(start, draw(st.integers(0, 300))) if draw(st.booleans()) else rows)
    return found


def joined(parts: Sequence[pa.Buffer | bytes]) -> bytes:
    return b"".join(memoryview(part) for part in parts)


def numbers(rows: int, columns: int = 1) -> pa.RecordBatch:
    return pa.record_batch({f"c{i}": pa.array(np.arange(rows, dtype=np.float64)) for i in range(columns)})


@settings(max_examples=60, deadline=None)
@given(batches())
def test_the_parts_are_the_bytes_of_the_whole_message(found: list[pa.RecordBatch]) -> None:
    message = MessageParts()
    for rows in found:
        parts = message.of(rows)
        assert len(parts) > 1
        assert joined(parts) == rows.serialize().to_pybytes()


def test_schemas_may_take_turns() -> None:
    message = MessageParts()
    one, other = numbers(20_000), numbers(20_000, 2).replace_schema_metadata({"made": "by hand"})

    for rows in (one, other, one, other.replace_schema_metadata(None), other):
        assert joined(message.of(rows)) == rows.serialize().to_pybytes()


def test_large_columns_are_not_copied_and_small_batches_are_one_part() -> None:
    message, large = MessageParts(), numbers(LEAST_BYTES // 8)
    (column,) = [buffer for buffer in large.column(0).buffers() if buffer is not None]

    assert [part.address for part in message.of(large) if isinstance(part, pa.Buffer)] == [column.address]
    assert len(message.of(numbers(LEAST_BYTES // 8 - 1))) == 1


def test_a_batch_that_is_small_for_its_many_parts_is_copied() -> None:
    message, columns = MessageParts(), 40
    count = len(message.of(numbers(10_000, columns)))
    enough = -(-PART_BYTES * count // (8 * columns))

    assert count > columns
    assert len(message.of(numbers(enough - 1, columns))) == 1
    assert len(message.of(numbers(enough, columns))) == count


def test_a_message_in_too_many_parts_is_made_in_one_also_the_next_time() -> None:
    message, wide = MessageParts(), numbers(10_000, MOST_PARTS)
    for _ in range(2):
        parts = message.of(wide)
        assert len(parts) == 1
        assert joined(parts) == wide.serialize().to_pybytes()


def test_after_a_batch_that_could_not_be_written_the_next_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    message, rows = MessageParts(), numbers(20_000, 3)
    message.of(rows)
    written = message_parts._Sink.write
    with monkeypatch.context() as broken:

        def no_memory(sink: Any, part: pa.Buffer | bytes) -> None:
            if isinstance(part, pa.Buffer):
                raise MemoryError
            written(sink, part)

        broken.setattr(message_parts._Sink, "write", no_memory)
        with pytest.raises(MemoryError):
            message.of(rows)

    assert joined(message.of(rows)) == rows.serialize().to_pybytes()


def test_the_memory_of_a_batch_is_free_once_its_append_has_returned(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    shape, shared, rows = request_rows(range(50_000))
    writer.append_request(shape, 1, shared, rows)
    before = pa.total_allocated_bytes()
    kept = rows.get_total_buffer_size()
    del rows
    gc.collect()

    assert before - pa.total_allocated_bytes() >= kept * 0.9
    writer.close()


def test_large_requests_are_read_back_as_they_were_also_after_one_that_found_no_space(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    shape, shared, rows = request_rows(range(20_000))
    writer.append_request(shape, 1, shared, rows)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    (segment,) = tmp_path.rglob("*.seg")
    size = segment.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, hard))  # in the middle of a part
    try:
        with pytest.raises(StorageFull):
            writer.append_request(shape, 2, shared, rows)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert segment.stat().st_size == size
    writer.append_request(shape, 3, shared, rows.slice(5))
    writer.append(log_rows([4] * 20_000, range(20_000)), failed=True)
    writer.close()

    answered, failed = (
        SegmentLogReader(tmp_path).page(LogQuery(topic, limit=100_000)).table["in.number"].to_pylist()
        for topic in (TOPIC, FAILURES)
    )
    assert answered == [*range(20_000), *range(5, 20_000)]
    assert failed == [*range(20_000)]


def test_parts_that_the_system_takes_by_and_by_are_all_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, path = numbers(20_000, 3), tmp_path / "1.seg"
    segment = SegmentFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), path)
    monkeypatch.setattr(os, "writev", lambda fd, parts: os.write(fd, joined(parts)[:200_001]))
    segment.append(MessageParts().of(rows))
    os.close(segment.fd)

    assert path.read_bytes() == rows.serialize().to_pybytes()


def test_a_message_above_the_limit_is_refused_in_parts_as_in_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")
    shape, shared, rows = request_rows(range(20_000))
    size = rows.serialize().size
    monkeypatch.setattr("bettong.logstore.writer.MAX_PAYLOAD_BYTES", size - 1)
    with pytest.raises(TooLarge, match=str(size)):
        writer.append_request(shape, 1, shared, rows)
    monkeypatch.setattr("bettong.logstore.writer.MAX_PAYLOAD_BYTES", size)
    writer.append_request(shape, 1, shared, rows)
    writer.close()
