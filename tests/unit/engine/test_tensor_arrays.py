"""Arrow columns become tensors and tensors Arrow columns: the same values, and no copy where none is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bettong.engine.faults import Fault
from bettong.engine.tensor_arrays import from_tensor, to_tensor

F32 = pa.float32()
INNER = pa.field("inner", F32, nullable=False)


def shares_memory(column: pa.Array[Any], values: np.ndarray[Any, Any]) -> bool:
    buffer = column.buffers()[-1]
    assert buffer is not None
    return bool(buffer.address <= values.ctypes.data < buffer.address + buffer.size)


@pytest.mark.parametrize(
    ("kind", "values", "dims"),
    [
        (F32, [1.0, 2.0, 3.0], ()),
        (pa.list_(F32, 2), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], (2,)),
        (pa.list_(F32), [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], (None,)),
        (pa.large_list(pa.list_(F32, 1)), [[[1.0], [2.0]], [[3.0], [4.0]], [[5.0], [6.0]]], (2, 1)),
    ],
)
def test_numbers_are_taken_where_they_lie_also_from_a_slice(
    kind: pa.DataType, values: list[Any], dims: tuple[int | None, ...]
) -> None:
    column: pa.Array[Any] = pa.array(values, kind)

    whole = to_tensor(column, dims, np.dtype("float32"))
    cut = to_tensor(column.slice(1, 2), dims, np.dtype("float32"))

    assert whole.tolist() == values
    assert cut.tolist() == values[1:]
    assert shares_memory(column, whole)
    assert shares_memory(column, cut)


def test_values_at_an_odd_address_are_moved_to_an_even_one() -> None:
    data = pa.py_buffer(b"\0" + np.arange(4, dtype=np.float32).tobytes()).slice(1)
    column = pa.Array.from_buffers(F32, 4, [None, data])

    tensor = to_tensor(column, (), np.dtype("float32"))

    assert tensor.flags.aligned
    assert tensor.tolist() == [0, 1, 2, 3]


def test_texts_and_booleans_arrive_as_such() -> None:
    texts = to_tensor(pa.array([["a"], ["ö"]], pa.list_(pa.string(), 1)), (1,), np.dtype(object))
    flags = to_tensor(pa.array([True, False]), (), np.dtype(bool))

    assert texts.tolist() == [["a"], ["ö"]]
    assert (flags.dtype, flags.tolist()) == (np.dtype(bool), [True, False])


def test_all_values_of_a_row_in_one_list_take_the_tensors_shape() -> None:
    flat = pa.array([[1, 2, 3, 4, 5, 6]], pa.list_(pa.int8()))

    assert to_tensor(flat, (2, 3), np.dtype("float32")).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert to_tensor(pa.array([7.0]), (1,), np.dtype("float32")).tolist() == [[7]]


@pytest.mark.parametrize(
    ("column", "dims", "dtype", "words"),
    [
        (pa.array([[1.0], [2.0, 3.0]]), (None,), "f4", "row 1: found a list of 2 values, the first one has 1"),
        (
            pa.array([[[1.0], [2.0]], [[1.0], [2.0, 3.0]]]),
            (2, None),
            "f4",
            "row 1, item 1: found a list of 2 values, the first one has 1",
        ),
        (pa.array([[1.0, 2.0]]), (3,), "f4", "row 0: found lists of 2 values, expected 3"),
        (pa.array([[1.0, 2.0]]), (2, 2), "f4", "row 0: found 2 values in a row, expected 4"),
        (pa.array([[1.0], [None]]), (1,), "f4", "row 1, item 0: tensor values may not be null"),
        (pa.array([[1.0], None]), (1,), "f4", "row 1: tensor values may not be null"),
        (pa.array([[1.0, 1e300]], pa.list_(pa.float64(), 2)), (2,), "f4", "row 0, item 1: found a number out of the"),
        (pa.array([1, 300]), (), "i1", "row 1: found a number out of the range of int8"),
        (pa.array([1, -1]), (), "u8", "row 1: found a number out of the range of uint64"),
    ],
)
def test_rows_that_are_no_tensor_name_the_first_wrong_place_and_no_value(
    column: pa.Array[Any], dims: tuple[int | None, ...], dtype: str, words: str
) -> None:
    with pytest.raises(Fault) as fault:
        to_tensor(column, dims, np.dtype(dtype))

    told = fault.value.as_bad_input("x").problem
    assert words in told
    assert "1e300" not in told


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1, 2], "f4"), pa.list_(INNER), [[1.0], [2.0]]),
        (np.array([[1], [2]], "f4"), pa.list_(INNER), [[1.0], [2.0]]),
        (np.array([[1], [2]], "f4"), pa.float64(), [1.0, 2.0]),
        (np.array([1, 2], "i8"), pa.int16(), [1, 2]),
        (np.arange(8, dtype="f4").reshape(2, 2, 2), pa.list_(pa.list_(F32, 2)), [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]),
        (np.arange(4, dtype="f4").reshape(1, 2, 2), pa.large_list(F32), [[0, 1, 2, 3]]),
        (np.array([["a", "b"]], object), pa.list_(pa.string()), [["a", "b"]]),
        (np.array([[True], [False]]), pa.list_(pa.bool_(), 1), [[True], [False]]),
        (np.zeros((2, 0), "f4"), pa.list_(F32), [[], []]),
        (np.arange(6, dtype="f4").reshape(3, 2).T, pa.list_(F32, 3), [[0, 2, 4], [1, 3, 5]]),
    ],
)
def test_a_tensor_becomes_exactly_the_column_that_is_wanted(
    values: np.ndarray[Any, Any], kind: pa.DataType, expected: list[Any]
) -> None:
    column = from_tensor(values, kind)

    column.validate(full=True)
    assert column.type == kind
    assert column.to_pylist() == expected


def test_outputs_are_not_copied_and_many_rows_are_as_right_as_few() -> None:
    values = np.arange(20_000, dtype=np.float32).reshape(10_000, 2)

    column = from_tensor(values, pa.list_(INNER))

    assert shares_memory(column, values)
    assert column[9_999].as_py() == [19_998, 19_999]


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        (np.zeros((2, 3), "f4"), F32, "shape"),
        (np.zeros((2, 3), "f4"), pa.list_(F32, 2), "lists of 3 values"),
        (np.zeros((2, 3, 4), "f4"), pa.list_(pa.list_(pa.list_(F32))), "shape"),
        (np.array([1e300]), pa.list_(F32), "out of the range of float"),
        (np.array([300]), pa.int8(), "not in range|out of"),
    ],
)
def test_a_tensor_that_the_schema_has_no_place_for_is_refused(
    values: np.ndarray[Any, Any], kind: pa.DataType, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        from_tensor(values, kind)
