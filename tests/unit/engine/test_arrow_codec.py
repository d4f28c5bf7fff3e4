from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.engine.arrow_codec import decode_arrow, encode_arrow
from bettong.engine.dataset import Dataset
from bettong.engine.json_answer import encode_batch
from bettong.errors import BadInput, TooLarge

LIMIT = 2**20
IMAGE = pa.list_(pa.list_(pa.float32(), 3), 2)


def body_of(table: pa.Table, *, stream: bool = False, compression: Any = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, table.schema, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def column_of(kind: Any, sent: Any) -> list[Any]:
    schema = pa.schema([pa.field("x", kind)])
    table = decode_arrow(body_of(pa.table({"x": sent})), schema, max_unpacked_bytes=LIMIT)
    table.validate(full=True)
    assert table.schema == schema
    return table.column("x").to_pylist()


def refusal(kind: Any, sent: Any) -> str:
    with pytest.raises(BadInput) as refused:
        column_of(kind, sent)
    return str(refused.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_files_and_streams_are_read_packed_or_not(stream: bool, compression: str | None) -> None:
    sent = pa.table({"b": ["x", "y"], "a": pa.array([[1, 2], []], pa.list_(pa.int32()))})
    schema = pa.schema([pa.field("a", pa.list_(pa.int32())), pa.field("b", pa.string())])

    table = decode_arrow(body_of(sent, stream=stream, compression=compression), schema, max_unpacked_bytes=LIMIT)

    assert table.to_pylist() == [{"a": [1, 2], "b": "x"}, {"a": [], "b": "y"}]
    assert table.schema == schema


@pytest.mark.parametrize(
    ("kind", "sent", "kept"),
    [
        (pa.float32(), pa.array([1, 2], pa.int64()), [1.0, 2.0]),
        (pa.float32(), pa.array([2**53 + 1], pa.int64()), [float(2**53)]),
        (pa.float32(), pa.array([1.5], pa.float64()), [1.5]),
        (pa.float64(), pa.array([1.5], pa.float32()), [1.5]),
        (pa.float32(), pa.array([float("inf")], pa.float64()), [float("inf")]),
        (pa.int8(), pa.array([5], pa.int64()), [5]),
        (pa.string(), pa.array(["a"], pa.large_string()), ["a"]),
        (pa.string(), pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.int32(), pa.array([7, 7], pa.int64()).dictionary_encode(), [7, 7]),
        (pa.list_(pa.int32()), pa.array([[1], [2, 3]], pa.large_list(pa.int64())), [[1], [2, 3]]),
        (pa.list_(pa.int32()), pa.array([[1, 2], [3, 4]], pa.list_(pa.int32(), 2)), [[1, 2], [3, 4]]),
        (pa.list_(pa.float32(), 2), pa.array([[1, 2], [3, 4]], pa.list_(pa.int64())), [[1.0, 2.0], [3.0, 4.0]]),
        (pa.list_(pa.float32(), 2), pa.array([[0, 0], [1, 2]], pa.list_(pa.int64(), 2))[1:], [[1.0, 2.0]]),
        (pa.list_(pa.int32()), pa.array([[9], [1], [2, 3]], pa.list_(pa.int32()))[1:], [[1], [2, 3]]),
        (IMAGE, pa.array([[9] * 6, [*range(6)]], pa.list_(pa.int64()))[1:], [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]),
        (IMAGE, pa.array([[9] * 6, [*range(6)]], pa.list_(pa.float32(), 6))[1:], [[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]),
        (pa.binary(), pa.array([b"ab"], pa.binary(2)), [b"ab"]),
        (pa.struct([("b", pa.int8()), ("a", pa.string())]), pa.array([{"a": "x", "b": 1}]), [{"b": 1, "a": "x"}]),
        (pa.list_(pa.list_(pa.string())), pa.array([[["a"], []]], pa.list_(pa.large_list(pa.string()))), [[["a"], []]]),
    ],
    ids=str,
)  # fmt: skip
def test_columns_are_cast_where_nothing_is_lost(kind: Any, sent: Any, kept: Any) -> None:
    assert column_of(kind, sent) == kept


@pytest.mark.parametrize(
    ("kind", "sent", "words"),
    [
        (pa.int32(), pa.array([1.0]), "found the type double, expected int32"),
        (pa.int32(), pa.array([True]), "found the type bool, expected int32"),
        (pa.float32(), pa.array(["1"]), "found the type string, expected float"),
        (pa.float32(), pa.array([True]), "found the type bool"),
        (pa.int8(), pa.array([1, 300], pa.int64()), "Column 'x', row 1: found a value out of the range of int8"),
        (pa.uint8(), pa.array([1, -1], pa.int64()), "Column 'x', row 1: found a value out of the range"),
        (pa.float32(), pa.array([1.0, 1e300]), "Column 'x', row 1: found a number out of the range of float"),
        (pa.int32(), pa.array([1, None], pa.int32()), "Column 'x', row 1: tensor values may not be null"),
        (pa.int32(), pa.nulls(2), "Column 'x', row 0: tensor values may not be null"),
        (pa.string(), pa.array(["a", None]).dictionary_encode(), "row 1: tensor values may not be null"),
        (pa.list_(pa.int32()), pa.array([[1], [2, None]]), "Column 'x', row 1, item 1: tensor values may not be null"),
        (pa.list_(pa.int32()), pa.array([[1], None]), "Column 'x', row 1: tensor values may not be null"),
        (pa.list_(pa.int32()), pa.array([1, 2]), "found the type int64"),
        (pa.list_(pa.float32(), 2), pa.array([[1.0, 2.0], [1.0]]), "row 1: found a list of 1 values, expected"),
        (IMAGE, pa.array([[0.0] * 6, [0.0] * 5]), "row 1: found a flat list of 5 values, expected 6. Send 6"),
        (IMAGE, pa.array([[0.0] * 6, [0.0] * 5 + [None]]), "row 1, item 5: tensor values may not be null"),
        (pa.struct([("a", pa.int32())]), pa.array([{"b": 1}]), "Its fields are: a"),
        (pa.struct([("a", pa.int8())]), pa.array([{"a": 1}, {"a": 999}]), "row 1, field 'a': found a value out of"),
        (pa.timestamp("ms"), pa.array([1], pa.timestamp("us")), "out of the range of timestamp[ms]"),
        (pa.timestamp("ms"), pa.array(["2025-01-01"]), "found the type string"),
        (pa.int32(), pa.array([[1]], pa.list_(pa.int32())), "expected int32"),
    ],
    ids=str,
)  # fmt: skip
def test_columns_that_would_lose_something_are_refused(kind: Any, sent: Any, words: str) -> None:
    assert words in refusal(kind, sent)


@pytest.mark.parametrize("stream", [False, True])
def test_columns_of_the_right_type_are_not_copied(stream: bool) -> None:
    kind = pa.list_(pa.list_(pa.float32(), 2))
    schema = pa.schema([pa.field("x", kind), pa.field("y", pa.int8())])
    sent = pa.table({"x": [[[1, 2]], [[3, 4], [5, 6]]], "y": [1, 2]}, schema=schema)
    body = body_of(sent, stream=stream)

    table = decode_arrow(body, schema, max_unpacked_bytes=LIMIT)

    start = pa.py_buffer(body).address
    arrays: list[Any] = [column.chunk(0) for column in table.columns]
    for buffer in (buffer for array in arrays for buffer in array.buffers() if buffer is not None):
        assert start <= buffer.address < start + len(body)
    assert table.equals(sent)


def test_lists_of_which_there_are_none_may_come_without_offsets() -> None:
    inner = pa.Array.from_buffers(pa.list_(pa.int8()), 0, [None, None], children=[pa.array([], pa.int8())])
    outer = pa.Array.from_buffers(pa.list_(pa.list_(pa.int8())), 1, [None, pa.py_buffer(bytes(8))], children=[inner])

    assert column_of(outer.type, outer) == [[]]
    assert encode_batch(pa.record_batch([outer], names=["out.x"]), Dataset()) == b'[{"out":{"x":[]}}]'


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_that_are_not_whole_arrow_are_refused(stream: bool) -> None:
    schema = pa.schema([pa.field("x", pa.list_(pa.int64()))])
    good = body_of(pa.table({"x": [[1, 2], [3]]}), stream=stream)
    for broken in (b"", b"ARROW1", b"\xff\xff\xff\xff", b"[]", good[: len(good) // 2], good[:-20], b"x" * 1000):
        with pytest.raises(BadInput) as refused:
            decode_arrow(broken, schema, max_unpacked_bytes=LIMIT)
        assert "Arrow" in str(refused.value)


def test_names_and_rows_are_checked() -> None:
    schema = pa.schema([pa.field("a", pa.int64()), pa.field("b", pa.int64())])
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.int64())})
    cases = {
        "lacks the column 'b'": pa.table({"a": [1]}),
        "has the extra column 'c'": pa.table({"a": [1], "b": [1], "c": [1]}),
        "a column more than once": pa.Table.from_arrays([pa.array([1])] * 3, names=["a", "b", "b"]),
        "has no row": empty,
    }
    for words, table in cases.items():
        with pytest.raises(BadInput, match=words):
            decode_arrow(body_of(table), schema, max_unpacked_bytes=LIMIT)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_a_body_that_would_unpack_to_too_much_is_refused_before_it_is(stream: bool, compression: str) -> None:
    bomb = body_of(pa.table({"x": pa.array(np.zeros(LIMIT, np.float64))}), stream=stream, compression=compression)
    assert len(bomb) < LIMIT

    with pytest.raises(TooLarge, match="unpacks to more than 1048576 bytes"):
        decode_arrow(bomb, pa.schema([pa.field("x", pa.float64())]), max_unpacked_bytes=LIMIT)


def test_one_long_word_repeated_by_a_dictionary_is_counted_for_each_row() -> None:
    word = pa.array(["w" * 1000])
    column = pa.DictionaryArray.from_arrays(np.zeros(2000, np.int8), word)

    with pytest.raises(TooLarge, match="2000000 bytes"):
        column_of(pa.string(), column)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a" * 20], pa.string_view()),
        pa.RunEndEncodedArray.from_arrays(pa.array([2**30], pa.int32()), pa.array(["a"])),
        pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([["a"]])),
    ],
    ids=["view", "run lengths", "dictionary of lists"],
)
def test_types_that_stand_for_more_than_they_hold_are_refused(column: Any) -> None:
    assert "Column 'x', row 0: found" in refusal(pa.string(), column)


def test_offsets_from_outside_are_not_believed() -> None:
    schema = pa.schema([pa.field("x", pa.string())])
    good = body_of(pa.table({"x": ["abcdefgh", "ijklmnop"]}), stream=True)
    offsets = np.array([0, 8, 16], np.int32).tobytes()
    assert offsets in good
    for lie in ([0, 8, 2**30], [0, -8, 16], [5, 4, 3]):
        with pytest.raises(BadInput, match="not a readable Arrow"):
            decode_arrow(good.replace(offsets, np.array(lie, np.int32).tobytes()), schema, max_unpacked_bytes=LIMIT)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_damaged_body_is_read_or_bad_input(data: st.DataObject) -> None:
    schema = pa.schema([pa.field("x", pa.list_(pa.int32())), pa.field("s", pa.string())])
    table = pa.table({"x": pa.array([[1], [2, 3]], pa.list_(pa.int32())), "s": ["a", "bc"]})
    good = bytearray(
        body_of(table, stream=data.draw(st.booleans()), compression=data.draw(st.sampled_from([None, "lz4", "zstd"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_arrow(bytes(good), schema, max_unpacked_bytes=LIMIT)
    except BadInput:
        return
    decoded.validate(full=True)
    assert decoded.schema == schema


@pytest.mark.parametrize("stream", [False, True])
def test_answers_are_read_back_as_they_were(stream: bool) -> None:
    batch = pa.record_batch({"out.x": pa.array([[1.5], []], pa.list_(pa.float32()))})

    body = bytes(encode_arrow(batch, stream=stream))

    reader = (pa.ipc.open_stream if stream else pa.ipc.open_file)(body)
    assert reader.read_all().equals(pa.Table.from_batches([batch]))
