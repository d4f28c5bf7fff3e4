"""Both ends of the worker socket in one process: a table through the parent's frames and the child's numpy."""

from __future__ import annotations

import datetime
import decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettong.engine.workers.frames import BadFrame, decode, encode, type_tree
from mac._frames import ColumnReader, write_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

UTC_TIME = datetime.datetime(2024, 2, 29, 12, 30, 1, 123456)
STRUCT = pa.struct([("x", pa.int16()), ("words", pa.list_(pa.string()))])

SAMPLES: list[tuple[pa.DataType, list[object]]] = [
    (pa.bool_(), [True, False, True, True, False]),
    *[(getattr(pa, f"int{bits}")(), [-(2 ** (bits - 1)), 0, 2 ** (bits - 1) - 1]) for bits in (8, 16, 32, 64)],
    *[(getattr(pa, f"uint{bits}")(), [0, 1, 2**bits - 1]) for bits in (8, 16, 32, 64)],
    (pa.float16(), [np.float16(0.5), np.float16(-2.0)]),
    (pa.float32(), [0.5, -2.25, float("inf")]),
    (pa.float64(), [0.1, -1e300, 5e-324]),
    (pa.string(), ["", "text", "žluť 🦘"]),
    (pa.large_string(), ["a", "", "c"]),
    (pa.binary(), [b"", b"\x00\xff"]),
    (pa.large_binary(), [b"abc", b""]),
    (pa.date32(), [datetime.date(1969, 12, 31), datetime.date(2024, 2, 29)]),
    (pa.date64(), [datetime.date(1969, 12, 31), datetime.date(2024, 2, 29)]),
    (pa.timestamp("s"), [UTC_TIME.replace(microsecond=0)]),
    (pa.timestamp("ms"), [UTC_TIME.replace(microsecond=123000)]),
    (pa.timestamp("us"), [UTC_TIME]),
    (pa.timestamp("ns"), [UTC_TIME]),
    (pa.timestamp("us", tz="Europe/Prague"), [UTC_TIME]),
    (pa.decimal128(10, 3), [decimal.Decimal("-1.125"), decimal.Decimal("9999999.999")]),
    (pa.decimal128(38, 0), [decimal.Decimal(10**38 - 1), decimal.Decimal(-(10**38 - 1))]),
    (pa.list_(pa.int32()), [[1, 2], [3, 4]]),
    (pa.list_(pa.int32()), [[1], [], [2, 3, 4]]),
    (pa.list_(pa.int32()), [[], []]),
    (pa.large_list(pa.float32()), [[1.0], [2.0, 3.0]]),
    (pa.list_(pa.float64(), 2), [[1.0, 2.0], [3.0, 4.0]]),
    (pa.list_(pa.list_(pa.float32(), 2), 2), [[[1.0, 2.0], [3.0, 4.0]]]),
    (pa.list_(pa.string()), [["a", "b"], ["c"]]),
    (pa.list_(pa.bool_()), [[True, False], [False]]),
    (pa.list_(pa.list_(pa.int64())), [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]),
    (pa.list_(pa.list_(pa.int64())), [[[1], [2, 3]], [], [[4, 5, 6]]]),
    (STRUCT, [{"x": 1, "words": ["a", "b"]}, {"x": -2, "words": []}]),
    (pa.list_(STRUCT), [[{"x": 1, "words": ["a"]}], [], [{"x": 2, "words": []}, {"x": 3, "words": ["b", "c"]}]]),
    (pa.struct([("inner", STRUCT)]), [{"inner": {"x": 1, "words": ["a"]}}]),
]


def through(rows: pa.Table) -> dict[str, np.ndarray[Any, Any]]:
    """What model code sees of a table."""
    encoded = encode(rows)
    body = bytearray(b"".join(encoded.buffers))
    assert len(body) == encoded.body_bytes
    reader = ColumnReader(body)
    return {name: reader.column(tree) for name, tree in zip(rows.column_names, encoded.columns, strict=True)}


def back(answer: dict[str, Any], schema: pa.Schema, rows: int) -> pa.Table:
    """What the platform makes of a model's answer."""
    fields = [{"name": field.name, "type": type_tree(field.type)} for field in schema]
    trees, buffers = write_answer(answer, fields, rows)
    body = b"".join(buffer.tobytes() + bytes(-buffer.nbytes % 8) for buffer in buffers)
    return decode(trees, memoryview(body), schema, rows)


def answer_of(values: object, kind: pa.DataType, rows: int) -> list[object]:
    answered: list[object] = back({"y": values}, pa.schema([("y", kind)]), rows).column("y").to_pylist()
    return answered


def table_of(kind: pa.DataType, values: Sequence[object]) -> pa.Table:
    return pa.table({"y": pa.array(values, kind)})


@pytest.mark.parametrize(("kind", "values"), SAMPLES, ids=lambda sample: str(sample)[:40])
def test_every_type_comes_back_as_it_went(kind: pa.DataType, values: list[object]) -> None:
    rows = table_of(kind, values)

    returned = back(through(rows), rows.schema, len(values))

    assert returned.equals(rows)
    returned.validate(full=True)


@pytest.mark.parametrize(("kind", "values"), SAMPLES, ids=lambda sample: str(sample)[:40])
def test_slices_chunks_and_no_rows_come_back_too(kind: pa.DataType, values: list[object]) -> None:
    array = pa.array(values * 3, kind)
    chunks = pa.chunked_array([array.slice(1), array.slice(0, 2), array.slice(len(array))])
    chunked = pa.Table.from_arrays([chunks], names=["y"])
    for rows in (pa.table({"y": array.slice(1, len(values))}), chunked, pa.table({"y": array.slice(0, 0)})):
        assert back(through(rows), rows.schema, rows.num_rows).equals(rows)


@given(st.lists(st.lists(st.lists(st.integers(-100, 100), max_size=3), max_size=3), min_size=1, max_size=5))
def test_any_nesting_of_lists_comes_back(values: list[list[list[int]]]) -> None:
    rows = table_of(pa.list_(pa.list_(pa.int32())), values)

    assert back(through(rows), rows.schema, len(values)).equals(rows)


def test_rows_of_equal_length_arrive_as_one_array_and_ragged_ones_as_an_array_of_arrays() -> None:
    equal = through(table_of(pa.list_(pa.int32()), [[1, 2, 3], [4, 5, 6]]))["y"]
    assert (equal.shape, equal.dtype) == ((2, 3), np.dtype("<i4"))

    ragged = through(table_of(pa.list_(pa.int32()), [[1, 2, 3], [4]]))["y"]
    assert (ragged.shape, ragged.dtype) == ((2,), np.dtype(object))
    assert [row.tolist() for row in ragged] == [[1, 2, 3], [4]]
    assert ragged[0].dtype == np.dtype("<i4")


def test_values_arrive_in_the_forms_that_model_code_expects() -> None:
    assert through(table_of(pa.bool_(), [True]))["y"].dtype == np.bool_
    assert through(table_of(pa.timestamp("ms"), [UTC_TIME.replace(microsecond=0)]))["y"].dtype == np.dtype("<M8[ms]")
    assert through(table_of(pa.string(), ["a", "bc"]))["y"].tolist() == ["a", "bc"]
    assert through(table_of(pa.decimal128(5, 2), [decimal.Decimal("1.25")]))["y"][0] == decimal.Decimal("1.25")
    assert through(table_of(pa.struct([("x", pa.int64())]), [{"x": 3}]))["y"][0] == {"x": 3}


def test_model_code_may_change_its_input_in_place() -> None:
    array = through(table_of(pa.float64(), [1.0, 2.0]))["y"]

    array *= 2

    assert array.tolist() == [2.0, 4.0]


def test_a_null_is_refused_by_column_name() -> None:
    with pytest.raises(ValueError, match="Column 'y': tensor values may not be null"):
        encode(table_of(pa.list_(pa.int32()), [[1, None]]))


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1, 2], "i8"), pa.int32(), [1, 2]),
        (np.array([1.0, 2.0]), pa.int16(), [1, 2]),
        (np.array([1, 2], ">i4"), pa.int32(), [1, 2]),
        (np.array([1, 2]), pa.float32(), [1.0, 2.0]),
        (np.array([[1], [2]]), pa.int32(), [1, 2]),
        (np.array([1, 2]), pa.list_(pa.int32()), [[1], [2]]),
        (np.array(["a", "b"]), pa.string(), ["a", "b"]),
        (np.array([["a"], ["b"]], object), pa.string(), ["a", "b"]),
        (np.array(["a", "b"], object), pa.list_(pa.string()), [["a"], ["b"]]),
        ([[1, 2], [3]], pa.list_(pa.int8()), [[1, 2], [3]]),
        ([1.5, 2], pa.float64(), [1.5, 2.0]),
        (np.array([0, 1]), pa.bool_(), [False, True]),
        (np.array([1, 2], object), pa.uint64(), [1, 2]),
        (np.array([2**64 - 1, 0], object), pa.uint64(), [2**64 - 1, 0]),
        (np.array(["2024-01-02", "2024-01-03"], "M8[D]"), pa.timestamp("s"), None),
        (
            np.arange(8).reshape(2, 2, 2)[:, :, ::-1],
            pa.list_(pa.list_(pa.int64())),
            [[[1, 0], [3, 2]], [[5, 4], [7, 6]]],
        ),
    ],
    ids=str,
)
def test_an_answer_is_cast_where_its_type_can_hold_it(values: object, kind: pa.DataType, expected: object) -> None:
    answered = answer_of(values, kind, 2)

    if expected is not None:
        assert answered == expected


def test_nan_is_an_answer() -> None:
    assert np.isnan(np.array(answer_of(np.array([np.nan]), pa.float32(), 1), float)).all()


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (np.array([2**40]), pa.int32(), "beyond its range"),
        (np.array([-1]), pa.uint8(), "beyond its range"),
        (np.array([2.0**63]), pa.int64(), "beyond its range"),
        (np.array([2**64], object), pa.int64(), "beyond its range"),
        (np.array([1.5]), pa.int32(), "fraction"),
        (np.array([np.nan]), pa.int32(), "NaN"),
        (np.array([1e300]), pa.float32(), "beyond its range"),
        (np.array([2]), pa.bool_(), "True or False"),
        (np.array([None], object), pa.float64(), "None"),
        (np.array([None], object), pa.string(), "None"),
        (np.array([None], object), pa.list_(pa.int32()), "None"),
        (np.array(["secret-value"]), pa.int64(), "expected numbers"),
        (np.array([["secret-value", 1]], object), pa.list_(pa.int64()), "type str"),
        (np.array([12345]), pa.string(), "expected text"),
        (np.array([[1, 2]]), pa.int32(), r"shape \(1, 2\)"),
        (np.array([[1, 2, 3]]), pa.list_(pa.int32(), 2), "expected 2 in every row"),
        (np.array(["NaT"], "M8[s]"), pa.timestamp("s"), "NaT"),
        (np.array(["2024-01-01T00:00:00.5"], "M8[ms]"), pa.timestamp("s"), "cannot hold"),
        (np.array([decimal.Decimal("1.2345")], object), pa.decimal128(10, 2), "cannot hold"),
        (np.array([{"x": 1}], object), pa.struct([("x", pa.int8()), ("y", pa.int8())]), "without 'y'"),
        (np.array([1, 2]), pa.int32(), "2 rows were returned for 1"),
        (np.array(7), pa.int32(), "single value"),
        (7, pa.int32(), "expected a numpy array"),
        (np.array(["\ud800"], object), pa.string(), "Unicode"),
    ],
    ids=str,
)
def test_an_answer_that_does_not_fit_is_named_by_field_and_type_without_its_values(
    values: object, kind: pa.DataType, words: str
) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        answer_of(values, kind, 1)

    assert "'y'" in str(raised.value)
    assert "secret-value" not in str(raised.value)
    assert "12345" not in str(raised.value)


@pytest.mark.parametrize("answer", [None, [1], {"other": np.array([1])}, {}])
def test_an_answer_that_lacks_a_field_says_which(answer: Any) -> None:
    with pytest.raises(ValueError, match="y"):
        back(answer, pa.schema([("y", pa.int32())]), 1)


# What a hostile model may send instead


@pytest.mark.parametrize(
    ("columns", "body"),
    [
        (None, b""),
        ([], b""),
        ([{"n": 2}], bytes(64)),
        ([{}], bytes(64)),
        ([7], bytes(64)),
        ([{"n": 1, "child": {"n": 3}}], np.array([0, 4], "<i8").tobytes() + bytes(16)),
        ([{"n": 1, "child": {"n": 2**40}}], np.array([0, 2**40], "<i8").tobytes()),
        ([{"n": 1, "child": {"n": -1}}], np.array([0, -1], "<i8").tobytes()),
        ([{"n": 1, "child": {"n": 1}}], np.array([1, 2], "<i8").tobytes() + bytes(8)),
        ([{"n": 1, "child": {"n": 1}}], np.array([0, 1], "<i8").tobytes() + bytes(800)),
        ([{"n": 1, "child": {"n": 1}}], b"\x00"),
    ],
    ids=str,
)
def test_a_forged_answer_is_refused(columns: Any, body: bytes) -> None:
    with pytest.raises(BadFrame):
        decode(columns, memoryview(body), pa.schema([("y", pa.list_(pa.int32()))]), 1)


@pytest.mark.parametrize("offsets", [[0, 3, 2], [1, 2, 2], [0, 1, -1], [0, 2**40, 2**40], [0, 1, 5]], ids=str)
def test_forged_offsets_of_several_rows_are_refused(offsets: list[int]) -> None:
    body = np.array(offsets, "<i8").tobytes() + bytes(8)

    with pytest.raises(BadFrame):
        decode([{"n": 2, "child": {"n": 2}}], memoryview(body), pa.schema([("y", pa.list_(pa.int32()))]), 2)


def test_forged_text_that_is_not_utf8_is_refused() -> None:
    body = np.array([0, 2], "<i8").tobytes() + b"\xff\xfe" + bytes(6)

    with pytest.raises(BadFrame, match="'y'"):
        decode([{"n": 1}], memoryview(body), pa.schema([("y", pa.string())]), 1)
