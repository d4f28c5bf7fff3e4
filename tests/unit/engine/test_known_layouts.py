from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.engine.arrow_codec import decode_arrow
from bettong.engine.arrow_lists import is_list
from bettong.engine.known_layouts import KnownLayouts
from bettong.errors import BadInput

KINDS = [
    pa.float32(),
    pa.int64(),
    pa.uint8(),
    pa.list_(pa.float32()),
    pa.large_list(pa.int16()),
    pa.list_(pa.float64(), 3),
    pa.list_(pa.list_(pa.list_(pa.float32(), 2), 2), 3),
    pa.list_(pa.list_(pa.int32())),
]


def array_of(kind: Any, rows: int, start: int, sizes: int = 3) -> Any:
    """Regular lists of counting numbers."""
    if not is_list(kind):
        return pa.array(np.arange(start, start + rows) % 100).cast(kind)
    size = kind.list_size if pa.types.is_fixed_size_list(kind) else sizes
    child = array_of(kind.value_type, rows * size, start)
    if pa.types.is_fixed_size_list(kind):
        fixed: Any = pa.FixedSizeListArray
        return fixed.from_arrays(child, type=kind)
    made: Any = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    return made.from_arrays(pa.array(np.arange(rows + 1) * size).cast(made_offsets(kind)), child, type=kind)


def made_offsets(kind: Any) -> Any:
    return pa.int64() if pa.types.is_large_list(kind) else pa.int32()


def body_of(*batches: pa.RecordBatch, stream: bool = False, compression: Any = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read(body: bytes, schema: pa.Schema) -> pa.Table:
    return decode_arrow(body, schema, max_unpacked_bytes=2**24)


def learned(body: bytes, schema: pa.Schema) -> KnownLayouts:
    layouts = KnownLayouts(schema)
    keep(layouts, body, read(body, schema))
    return layouts


def keep(layouts: KnownLayouts, body: bytes, rows: pa.Table) -> None:
    """As it is kept when it comes for the second time."""
    for _ in range(2):
        layouts.keep(body, rows)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), st.integers(1, 40), st.booleans(), st.integers(0, 2**20)
)
def test_a_body_laid_out_like_one_before_is_read_as_if_it_were_the_first(
    kinds: list[Any], rows: int, stream: bool, start: int
) -> None:
    names = [f"c{at}" for at in range(len(kinds))]
    first, other = (
        body_of(pa.RecordBatch.from_arrays([array_of(kind, rows, n) for kind in kinds], names), stream=stream)
        for n in (start, start + 1)
    )
    schema = pa.schema(list(zip(names, kinds, strict=True)))

    found = learned(first, schema).find(other)

    assert found is not None
    found.validate(full=True)
    assert found.equals(read(other, schema), check_metadata=True)
    assert found.schema.equals(schema, check_metadata=True)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(KINDS), st.data())
def test_with_any_other_byte_than_a_value_changed_it_is_another_layout(kind: Any, data: st.DataObject) -> None:
    batch = pa.RecordBatch.from_arrays([array_of(kind, 5, 1)], ["x"])
    body, schema = body_of(batch), batch.schema
    layouts = learned(body, schema)
    at = data.draw(st.integers(0, len(body) - 1))
    changed = body[:at] + bytes([body[at] ^ 0xFF]) + body[at + 1 :]

    found = layouts.find(changed)

    if found is None:
        return
    assert len(found) == 5
    assert found.equals(read(changed, schema))  # a value it was


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.array([[1.0], [1.0, 2.0]], pa.list_(pa.float32())), None),
        (pa.array([1.0, 2.0], pa.float64()), pa.float32()),
        (pa.array(["a", "b"]), None),
        (pa.array([True, False]), None),
        (pa.array([1, 2]).dictionary_encode(), pa.int64()),
        (pa.array([[1.0, 2.0]] * 40_000, pa.list_(pa.float32())), None),
    ],
    ids=["ragged", "cast", "texts", "bits", "dictionary", "more offsets than are worth comparing"],
)
def test_what_does_not_lie_in_a_body_as_it_is_read_is_not_kept(array: Any, kind: Any) -> None:
    batch = pa.RecordBatch.from_arrays([array], ["x"])
    body = body_of(batch)

    assert learned(body, pa.schema([("x", kind or array.type)])).find(body) is None


def test_packed_bodies_and_those_of_several_batches_are_not_kept() -> None:
    batch = pa.RecordBatch.from_arrays([array_of(pa.float32(), 400, 1)], ["x"])
    for body in (body_of(batch, compression="zstd"), body_of(batch, batch)):
        assert learned(body, batch.schema).find(body) is None


def test_columns_said_to_lie_outside_the_batch_are_not_kept() -> None:
    """Else the bytes that tell what a body is would be taken for its values, and those of others not compared."""
    batch = pa.RecordBatch.from_arrays([array_of(pa.float32(), 400, 1)], ["x"])
    body = body_of(batch)
    over_the_head = pa.Array.from_buffers(pa.float32(), 16, [None, pa.py_buffer(body).slice(8, 64)])
    layouts = KnownLayouts(batch.schema)

    keep(layouts, body, pa.table({"x": over_the_head}, schema=batch.schema))

    assert layouts.find(body) is None


def test_lists_whose_offsets_are_values_of_another_column_are_not_kept() -> None:
    schema, count = pa.schema([("lists", pa.list_(pa.int32())), ("numbers", pa.int64())]), 16
    numbers = np.zeros(count, np.int64)
    numbers.view(np.int32)[: count + 1] = np.arange(count + 1)
    lists = array_of(schema.field("lists").type, count, 0, sizes=1)
    body = body_of(pa.record_batch([lists, pa.array(numbers)], schema=schema), stream=True)
    batch = pa.ipc.open_stream(body).read_next_batch()
    offsets: Any = batch.column("lists").buffers()[1]
    values: Any = batch.column("numbers").buffers()[1]
    apart = values.address - offsets.address
    told = np.array([0, offsets.size], np.int64).tobytes()  # where the offsets lie in the batch, and how many bytes
    assert body.count(told) == 1
    body = body.replace(told, np.array([apart, offsets.size], np.int64).tobytes())
    assert read(body, schema).column("lists").to_pylist() == [[n] for n in range(count)]
    assert learned(body, schema).find(body) is None


def test_of_too_many_layouts_the_longest_known_goes() -> None:
    schema = pa.schema([("x", pa.float32())])
    bodies = [body_of(pa.RecordBatch.from_arrays([array_of(pa.float32(), n, 1)], schema=schema)) for n in (10, 40, 80)]
    layouts = KnownLayouts(schema, most=2)
    for body in bodies:
        keep(layouts, body, read(body, schema))

    assert [layouts.find(body) is not None for body in bodies] == [False, True, True]


def test_what_came_once_is_not_worth_knowing() -> None:
    batch = pa.RecordBatch.from_arrays([array_of(pa.float32(), 10, 1)], ["x"])
    body, layouts = body_of(batch), KnownLayouts(batch.schema)

    layouts.keep(body, read(body, batch.schema))

    assert layouts.find(body) is None


def test_a_damaged_body_is_refused_as_before_however_well_its_like_is_known() -> None:
    batch = pa.RecordBatch.from_arrays([array_of(pa.list_(pa.int32()), 4, 1)], ["x"])
    body = body_of(batch)
    layouts = learned(body, batch.schema)
    offsets = np.arange(5, dtype=np.int32) * 3
    damaged = body.replace(offsets.tobytes(), np.array([0, 3, 6, 9, 10_000], np.int32).tobytes())

    assert damaged != body
    assert layouts.find(damaged) is None
    with pytest.raises(BadInput):
        read(damaged, batch.schema)
