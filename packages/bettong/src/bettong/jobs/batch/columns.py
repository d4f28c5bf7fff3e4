"""From columns of a source to those that a pipeline takes, and from its answers to those of a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.batch_requests import LINEAGE, outputs_of
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from bettong.domain.batch_requests import BatchRequest
    from bettong.jobs.batch.reading import Piece

    # From columns of the source to one of the pipeline, and the rows that do not fit with the reason.
    Build = Callable[[Sequence[Any]], tuple[Any, dict[int, str]]]

types = pa.types


@dataclass(frozen=True, slots=True)
class Asked:
    """Rows that can be sent to the pipeline.

    Attributes:
        rows: as it takes them.
        keys: of these rows, as the target has them.
        at: the numbers of these rows in the source.
        faults: rows that cannot be sent, by the number of the row in the source: the reason.
        fault_keys: their keys, in the same order.
    """

    rows: pa.Table
    keys: pa.RecordBatch
    at: NDArray[np.int64]
    faults: dict[int, str]
    fault_keys: list[tuple[Any, ...]]


class ColumnPlan:
    """How columns go from a source with `schema` through a pipeline into a target. Made before the first row.

    Raises:
        BadInput: the source lacks a column or has one of another type than the pipeline takes; all columns that do not
            fit are named, with what is there.
    """

    def __init__(
        self, request: BatchRequest, schema: pa.Schema, lineage: Mapping[str, str], *, whole_keys: bool
    ) -> None:
        self._request, self._whole_keys = request, whole_keys
        self._inputs = _inputs(request, schema)
        self._outputs = outputs_of(request)
        gives = request.columns.gives
        self.keys: tuple[Any, ...] = tuple(schema.field(key) for key in request.keys)
        self._lineage = {name: lineage[name] for name in LINEAGE} if request.lineage else {}
        self.target = pa.schema(
            [
                *(pa.field(key.name, key.type) for key in self.keys),
                *(
                    pa.field(name, _picked_type(gives.field(of).type, item))
                    for name, (of, item) in self._outputs.items()
                ),
                *(pa.field(name, pa.string()) for name in self._lineage),
            ]
        )

    @property
    def used(self) -> list[str]:
        """The columns of the source that anything is done with."""
        named = [name for _, sources, _ in self._inputs for name in sources]
        return list(dict.fromkeys([*named, *(key.name for key in self.keys)]))

    def asked(self, piece: Piece) -> Asked:
        """What is sent of a piece. Rows with a null, or with the keys of the row before, are not."""
        rows, faults = piece.rows, self._faults(piece)
        fault_keys: list[tuple[Any, ...]] = []
        at = np.arange(rows.num_rows, dtype=np.int64)
        if faults:
            fault_keys = self._keys_of(rows, list(faults))
            at = np.delete(at, list(faults))
            rows = rows.take(pa.array(at, pa.int64()))
        arrays, fields = [], []
        parsed: dict[int, str] = {}
        for name, sources, build in self._inputs:
            array, wrong = build([rows.column(source) for source in sources])
            parsed |= {int(at[row]): reason for row, reason in wrong.items() if int(at[row]) not in parsed}
            arrays.append(array)
            fields.append(pa.field(name, array.type))
        table = pa.Table.from_arrays(arrays, schema=pa.schema(fields))
        if parsed:
            good = np.flatnonzero(~np.isin(at, list(parsed)))
            places = pa.array(good, pa.int64())
            fault_keys += self._keys_of(piece.rows, list(parsed))
            faults |= parsed
            table, rows, at = table.take(places), rows.take(places), at[good]
        keys = rows.select([key.name for key in self.keys])
        told = {piece.first + row: reason for row, reason in faults.items()}
        return Asked(table, keys, at + piece.first, told, fault_keys)

    def written(self, keys: pa.RecordBatch, answer: pa.Table) -> pa.RecordBatch:
        """The rows of the target for rows with these keys and this answer."""
        columns: list[Any] = list(keys.columns)
        for of, item in self._outputs.values():
            column = _one_array(answer.column(of))
            columns.append(_exactly(column if item is None else list_item(column, item), self.target, len(columns)))
        columns += [pa.repeat(pa.scalar(value), answer.num_rows) for value in self._lineage.values()]
        return pa.RecordBatch.from_arrays(columns, schema=self.target)

    def short(self, answer: pa.Table) -> dict[int, str]:
        """The rows of an answer whose lists are too short for an item that the target is to have: the reason. Of a list
        that is null every item is null."""
        faults: dict[int, str] = {}
        for name, (of, item) in self._outputs.items():
            if item is None:
                continue
            column = _one_array(answer.column(of))
            lacking = _places(column)[1] <= item
            if column.null_count:
                lacking &= column.is_valid().to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(lacking).tolist():
                of_list = f"'{of.removeprefix('out.')}[{item}]'"
                faults.setdefault(row, f"Output '{name}' is {of_list}, and the list of this row has no such item.")
        return dict(sorted(faults.items()))

    def _keys_of(self, rows: pa.RecordBatch, at: list[int]) -> list[tuple[Any, ...]]:
        places = pa.array(at, pa.int64())
        return tuples([rows.column(key.name).take(places) for key in self.keys], len(at))

    def _faults(self, piece: Piece) -> dict[int, str]:
        """The rows that cannot be sent, by their place in the piece."""
        faults: dict[int, str] = {}
        if self._whole_keys:
            for key in self.keys:
                _note(faults, piece.rows.column(key.name), f"Key column '{key.name}' is null.")
        if piece.doubled is not None and piece.doubled.any():
            for row in np.flatnonzero(piece.doubled).tolist():
                faults.setdefault(row, "A row with the same keys came before.")
        for name, sources, _ in self._inputs:
            for source in sources:
                column = piece.rows.column(source)
                _note(faults, column, f"Column '{source}' is null, and the pipeline takes no null in '{name}'.")
        return dict(sorted(faults.items()))


def tuples(columns: Sequence[Any], count: int) -> list[tuple[Any, ...]]:
    """The rows of columns as tuples; without a column, as many empty ones."""
    if not columns:
        return [()] * count
    return list(zip(*(_in_microseconds(column).to_pylist() for column in columns), strict=True))


def list_item(column: Any, item: int) -> Any:
    """One item of each list, null where a list is shorter."""
    if not len(column):
        return pa.array([], column.type.value_type)
    starts, sizes = _places(column)
    there = sizes > item
    if column.null_count:
        there &= column.is_valid().to_numpy(zero_copy_only=False)
    return column.values.take(pa.array(np.where(there, starts + item, 0), mask=~there))


def _places(column: Any) -> tuple[Any, Any]:
    """Where the items of each list begin among all of them, and how many there are."""
    if types.is_fixed_size_list(column.type):
        size = column.type.list_size
        return (np.arange(len(column), dtype=np.int64) + column.offset) * size, np.full(len(column), size)
    offsets = column.offsets.to_numpy()
    return offsets[:-1].astype(np.int64), np.diff(offsets)


def _one_array(column: Any) -> Any:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _in_microseconds(column: Any) -> Any:
    """Times as Python has them: it knows nothing shorter."""
    if types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return column


def _exactly(column: Any, schema: pa.Schema, at: int) -> Any:
    """In the type that was told beforehand; answers may differ from it in what is nullable."""
    kind = schema.field(at).type
    return column if column.type.equals(kind, check_metadata=True) else column.cast(kind)


def _note(faults: dict[int, str], column: Any, reason: str) -> None:
    if column.null_count:
        for row in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
            faults.setdefault(row, reason)


# --- what a pipeline takes ------------------------------------------------------------------------------------------


def _inputs(request: BatchRequest, schema: pa.Schema) -> list[tuple[str, tuple[str, ...], Build]]:
    """For each column of the pipeline: its name, the columns of the source, and how it is made of them."""
    found: list[tuple[str, tuple[str, ...], Build]] = []
    wrong = []
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise BadInput(f"The source has several columns '{twice[0]}'.", "Name each once, with AS, in the query.")
    if missing := [key for key in request.keys if key not in schema.names]:
        wrong.append(f"there is no key column {', '.join(map(repr, missing))}")
    for field in request.columns.takes:
        of = request.map.get(field.name, field.name)
        sources = of if isinstance(of, tuple) else (of,)
        if missing := [source for source in sources if source not in schema.names]:
            wrong.append(f"'{field.name}' takes {', '.join(map(repr, missing))}, which is not there")
            continue
        kinds = [schema.field(source).type for source in sources]
        if isinstance(of, tuple):
            item: Any = field.type
            if any(_way(kind, item.value_type) is None for kind in kinds):
                told = ", ".join(dict.fromkeys(map(str, kinds)))
                wrong.append(f"'{field.name}' takes {item.value_type}, and its columns are {told}")
                continue
            found.append((field.name, sources, _gathered(field.type)))
        elif (way := _way(kinds[0], field.type)) is None:
            wrong.append(f"'{field.name}' takes {field.type}, and column '{of}' is {kinds[0]}")
        else:
            found.append((field.name, sources, way))
    for name in request.columns.keys:
        of = request.map.get(name, name)
        if isinstance(of, str) and of in schema.names and name not in request.columns.takes.names:
            found.append((name, (of,), _same))
    if wrong:
        raise BadInput(
            f"The rows do not fit the pipeline: {'; '.join(wrong)}.",
            f"The source has: {', '.join(f'{f.name} ({f.type})' for f in schema)}. "
            "Name columns in map={model column: source column}, or cast them in the query.",
        )
    return found


def _gathered(kind: Any) -> Build:
    """Several columns of numbers, or of anything else, as one column of lists."""
    item = kind.value_type
    width = getattr(kind, "list_size", None)

    def build(arrays: Sequence[Any]) -> tuple[Any, dict[int, str]]:
        rows = len(arrays[0])
        numbers = [pc.cast(array, pa.float64()) if types.is_decimal(array.type) else array for array in arrays]
        if types.is_floating(item) or (types.is_integer(item) and all(types.is_integer(a.type) for a in numbers)):
            wide = item if types.is_floating(item) else pa.int64()
            values = np.empty((rows, len(arrays)), wide.to_pandas_dtype())
            with np.errstate(over="ignore"):
                for at, array in enumerate(numbers):
                    values[:, at] = array.to_numpy(zero_copy_only=False)
            flat = pa.array(values.reshape(-1), wide)
            if types.is_floating(wide) and not np.isfinite(values).all():  # too large for it, or so in the source
                flat = pa.array(np.stack([a.to_numpy(zero_copy_only=False) for a in numbers], 1).reshape(-1))
        else:
            joined = pa.concat_arrays(arrays)
            flat = joined.take(pa.array(np.arange(rows * len(arrays)).reshape(len(arrays), rows).T.reshape(-1)))
        if width is not None and flat.type.equals(item):
            return pa.FixedSizeListArray.from_arrays(flat, type=kind), {}
        return pa.FixedSizeListArray.from_arrays(flat, len(arrays)), {}

    return build


def _way(source: Any, target: Any) -> Build | None:
    """How values of one type become what the pipeline takes; None when they do not. What is lost or does not fit is
    found by the pipeline, row by row."""
    if source.equals(target):
        return _same
    if types.is_decimal(source) and types.is_floating(target):
        return lambda arrays: (pc.cast(arrays[0], target, safe=False), {})
    if _is_text(source) and _is_list(target):
        return lambda arrays: _from_json(arrays[0], target)
    if _is_list(source) and _is_list(target):
        if _is_list(target.value_type) and not _is_list(source.value_type):  # a tensor as one flat list
            inner = target
            while _is_list(inner):
                inner = inner.value_type
            return _same if _way(source.value_type, inner) is not None else None
        if _way(source.value_type, target.value_type) is None:
            return None
        return lambda arrays: (_cast_lists(arrays[0], target), {})
    if types.is_struct(source) and types.is_struct(target):
        return _same
    if types.is_integer(source) and types.is_floating(target):
        return _same
    alike = (
        types.is_integer,
        types.is_floating,
        _is_text,
        _is_bytes,
        types.is_timestamp,
        types.is_date,
        types.is_decimal,
    )
    if any(is_a(source) and is_a(target) for is_a in alike) or (types.is_date(source) and types.is_timestamp(target)):
        return _same
    return None


def _same(arrays: Sequence[Any]) -> tuple[Any, dict[int, str]]:
    return arrays[0], {}


def _cast_lists(array: Any, target: Any) -> Any:
    """The lists as just what is taken where all of them fit: the pipeline then has nothing left to do. Otherwise they
    go as they are, and it says which row does not fit."""
    item = target.value_type
    try:
        cast = pc.cast(array, target, safe=not types.is_floating(item))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return array
    if types.is_floating(item) and not pc.all(pc.is_finite(cast.flatten())).as_py():
        return array  # a number may be too large for the type: that is the pipeline's to tell, too
    return cast


def _from_json(array: Any, target: Any) -> tuple[Any, dict[int, str]]:
    """Lists that databases without lists keep as JSON. Rows that are none are told and come as empty lists."""
    import orjson

    texts = array.to_pylist()
    try:
        return pa.array(orjson.loads(f"[{','.join(texts)}]"), target), {}
    except (orjson.JSONDecodeError, pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    wrong: dict[int, str] = {}
    values = []
    for row, text in enumerate(texts):
        try:
            values.append(pa.array([orjson.loads(text)], target))
        except (orjson.JSONDecodeError, pa.ArrowException, TypeError, ValueError, OverflowError):
            wrong[row] = f"A text that is no JSON of {target}."
            values.append(pa.nulls(1, target))
    return pa.concat_arrays(values), wrong


def _picked_type(kind: Any, item: int | None) -> Any:
    return kind if item is None else kind.value_type


def _is_list(kind: Any) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_text(kind: Any) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))
