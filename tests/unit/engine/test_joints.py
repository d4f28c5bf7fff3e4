"""What one step gives, and what the next one takes."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from bettong.engine.faults import Fault
from bettong.engine.joints import fits, handed_on

F32, F64, I64 = pa.float32(), pa.float64(), pa.int64()
NATIVE_OUT = pa.list_(pa.field("inner", F32, nullable=False))


@pytest.mark.parametrize(
    ("given", "wanted", "python", "native"),
    [
        (F32, F32, True, True),
        (NATIVE_OUT, pa.list_(F32), True, True),
        (NATIVE_OUT, pa.list_(F32, 3), True, True),
        (pa.list_(F32, 3), pa.list_(F32, 4), False, False),
        (F64, F32, False, True),
        (F32, F64, False, True),
        (I64, F32, False, True),
        (pa.list_(F64), pa.list_(F32, 18), False, True),
        (F32, I64, False, False),
        (I64, pa.int32(), False, False),
        (F32, pa.list_(F32), False, False),
        (pa.string(), F32, False, False),
    ],
)
def test_lists_fit_lists_and_only_native_models_take_other_widths(
    given: pa.DataType, wanted: pa.DataType, python: bool, native: bool
) -> None:
    assert fits(given, wanted, native=False) is python
    assert fits(given, wanted, native=True) is native


def test_a_column_is_handed_on_as_exactly_what_is_wanted() -> None:
    column: pa.Array[Any] = pa.array([[1.5, 2.5], [3.5, 4.5]], pa.list_(F64)).slice(1)

    handed = handed_on(column, pa.list_(F32, 2))

    assert (handed.type, handed.to_pylist()) == (pa.list_(F32, 2), [[3.5, 4.5]])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([[1.0, 2.0], [1.0]], "found a list of 1 values, expected exactly 2"),
        ([[1.0, None]], "may not be null"),
        ([[1.0, 1e300]], "out of the range of float"),
    ],
)
def test_values_that_do_not_fit_are_named(values: list[Any], words: str) -> None:
    with pytest.raises(Fault, match=words):
        handed_on(pa.array(values, pa.list_(F64)), pa.list_(F32, 2))


def test_rows_of_empty_lists_go_over_as_empty_lists() -> None:
    column = pa.array([[], []], pa.list_(pa.list_(F64)))

    assert handed_on(column, pa.list_(pa.list_(F32))).to_pylist() == [[], []]
