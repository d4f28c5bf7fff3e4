"""One row of numbers through a program of one model, as numpy arrays all the way: nothing of it becomes Arrow.

A row of 18 floats takes 32 µs of CPU this way, the model's 10 and the log included, and 106 µs the general way. What is
not certain to come out the same is left to that one, which also tells what is wrong with a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa

from bettong.engine.arrow_lists import is_list
from bettong.engine.json_answer import pieces_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bettong.engine.answer import AnswerShape
    from bettong.engine.arrow_types import Kind
    from bettong.engine.dataset import Dataset
    from bettong.engine.json_answer import Piece

    NDArray = np.ndarray[Any, np.dtype[Any]]

MAX_BYTES = 8 * 2**10  # of a body


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of numbers, or of lists of numbers (of `size`, unless that is None)."""

    name: str
    listed: bool
    size: int | None
    dtype: np.dtype[Any]
    wide: type  # what numbers are read as
    takes: frozenset[type]
    least: float  # what fits the type
    most: float

    def array(self, value: Any) -> NDArray | None:
        """Shape (1, values) or (1,); None when the general way has to look at the value."""
        values = value if self.listed else [value]
        if type(values) is not list or not self.takes.issuperset(map(type, values)):
            return None
        if self.size is not None and len(values) != self.size:
            return None
        try:
            found: NDArray = np.array([values] if self.listed else values, self.wide)
        except OverflowError:
            return None
        if self.dtype == self.wide:
            return found
        if values and not (self.least <= min(values) and max(values) <= self.most):
            return None
        return found.astype(self.dtype)

    def fits(self, array: NDArray) -> bool:
        """Whether a model's output is a row of this column."""
        if array.dtype != self.dtype or array.shape[:1] != (1,) or array.ndim != 1 + self.listed:
            return False
        return self.size is None or array.shape[1] == self.size


class OneRow:
    """The way of one row for schemas that `of` takes."""

    def __init__(self, inputs: Sequence[_Column], outputs: Sequence[_Column]) -> None:
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)

    @classmethod
    def of(cls, inputs: pa.Schema, outputs: pa.Schema) -> OneRow | None:
        """None when a column is not of numbers, or of lists of lists."""
        columns = [[_column(field.name, field.type) for field in schema] for schema in (inputs, outputs)]
        if None in columns[0] or None in columns[1]:
            return None
        return cls(*([c for c in side if c is not None] for side in columns))

    def decode(self, body: bytes) -> list[NDArray] | None:
        """The row of a pandas-records body: an array per column. None when the general way has to look at it."""
        try:
            rows = orjson.loads(body)
        except orjson.JSONDecodeError:
            return None
        if type(rows) is not list or len(rows) != 1 or type(rows[0]) is not dict or len(rows[0]) != len(self._inputs):
            return None
        row = rows[0]
        arrays = []
        for column in self._inputs:
            if (array := column.array(row.get(column.name))) is None:
                return None
            arrays.append(array)
        return arrays

    def takes(self, outputs: Sequence[NDArray]) -> bool:
        """Whether outputs are what the output schema says."""
        if len(outputs) != len(self._outputs):
            return False
        for column, array in zip(self._outputs, outputs, strict=True):  # noqa: SIM110 (a third of what all() takes)
            if not column.fits(array):
                return False
        return True


def encode_row(shape: AnswerShape, dataset: Dataset, values: Sequence[NDArray], shared: Mapping[str, Any]) -> bytes:
    """The answer for one row: `values` are those of `shape.rows`, `shared` has the others."""
    return encode_pieces(pieces_of(shape, dataset), values, shared)


def encode_pieces(pieces: Sequence[Piece], values: Sequence[NDArray], shared: Mapping[str, Any]) -> bytes:
    """The same with the answer's pieces at hand."""
    parts = [b"["]
    for piece in pieces:
        if isinstance(piece, bytes):
            parts.append(piece)
        elif isinstance(piece, int):
            parts.append(orjson.dumps(values[piece], option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
        else:
            parts.append(orjson.dumps(shared[piece]))
    parts.append(b"]")
    return b"".join(parts)


def _column(name: str, kind: Kind) -> _Column | None:
    listed, size = is_list(kind), None
    if listed:
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        kind = kind.value_type
    if pa.types.is_floating(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        floats: Any = np.finfo(dtype.name)
        most = float(floats.max)
        return _Column(name, listed, size, dtype, np.float64, frozenset({int, float}), -most, most)
    if pa.types.is_integer(kind):
        dtype = np.dtype(kind.to_pandas_dtype())
        limits: Any = np.iinfo(dtype.name)
        wide = np.int64 if dtype.kind == "i" else np.uint64
        return _Column(name, listed, size, dtype, wide, frozenset({int}), limits.min, limits.max)
    return None
