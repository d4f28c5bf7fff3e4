"""Answers as JSON: Arrow columns as what orjson writes fast and exactly.

Numbers stay numpy values on the way, so that a float32 is written with the digits of a float32. NaN and infinity
become null, timestamps milliseconds since the epoch, dates ISO text, decimals text, binary base64.
"""

from __future__ import annotations

import base64
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bettong.engine.arrow_lists import is_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.arrow_types import Array
    from bettong.engine.dataset import Dataset

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def encode_records(batch: pa.RecordBatch, dataset: Dataset) -> bytes:
    """The chosen columns of a batch of dotted columns as a list of objects: nested, or flat when a separator is set."""
    names = batch.schema.names
    chosen = dataset.chosen(names)
    columns = [_per_row(batch.column(at)) for at in chosen]
    if dataset.separator:
        keys = [names[at].replace(".", dataset.separator, 1) for at in chosen]
        return orjson.dumps(_objects(keys, columns, batch.num_rows), option=_OPTIONS)
    groups: dict[str, tuple[list[str], list[Sequence[Any]]]] = {}
    whole: dict[str, Sequence[Any]] = {}
    for at, values in zip(chosen, columns, strict=True):
        group, dot, rest = names[at].partition(".")
        if not dot:
            whole[group] = values
            continue
        keys, parts = groups.setdefault(group, ([], []))
        keys.append(rest)
        parts.append(values)
        whole.setdefault(group, ())  # holds its place in the order
    for group, (keys, parts) in groups.items():
        whole[group] = _objects(keys, parts, batch.num_rows)
    return orjson.dumps(_objects(list(whole), list(whole.values()), batch.num_rows), option=_OPTIONS)


def encode_legacy(batch: pa.RecordBatch) -> bytes:
    """The answer to `format=wallaroo` (spec 7.8): a list with one object, `outputs` holding a list per column."""
    columns = {name: _per_row(batch.column(at)) for at, name in enumerate(batch.schema.names)}
    document = {
        "model_name": orjson.loads(columns["metadata.last_model"][0])["model_name"],
        "pipeline_version": columns["metadata.pipeline_version"][0],
        "time": columns["time"][0],
        "outputs": {name.partition(".")[2]: values for name, values in columns.items() if name.startswith("out.")},
        "elapsed": columns["metadata.elapsed"][0],
        "check_failures": [],
    }
    return orjson.dumps([document], option=_OPTIONS)


def _objects(keys: list[str], columns: list[Sequence[Any]], rows: int) -> list[dict[str, Any]]:
    if not columns:
        return [{} for _ in range(rows)]
    return [dict(zip(keys, values, strict=True)) for values in zip(*columns, strict=True)]


def _per_row(array: Array) -> Sequence[Any]:
    """One JSON-ready value per row, as a list or a numpy array."""
    kind = array.type
    if array.null_count:
        return _with_nulls(array)
    if is_list(kind):
        return _slices(array)
    if pa.types.is_struct(kind):
        names = [kind.field(i).name for i in range(kind.num_fields)]
        return _objects(names, [_per_row(part) for part in array.flatten()], len(array))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
        numbers: Sequence[Any] = array.to_numpy(zero_copy_only=False)
        return numbers
    if pa.types.is_timestamp(kind):
        # cut to the millisecond, the unit of the wire
        array = array.cast(pa.timestamp("ms", kind.tz), safe=False).cast(pa.int64())
    values: list[Any] = array.to_pylist()
    if pa.types.is_timestamp(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return values
    if pa.types.is_date(kind):
        return [value.isoformat() for value in values]
    if pa.types.is_decimal(kind):
        return [format(value, "f") for value in values]
    return [base64.b64encode(value).decode() for value in values]


def _slices(array: Array) -> list[Sequence[Any]]:
    inner = _per_row(array.flatten())
    lengths = pc.list_value_length(array).to_numpy(zero_copy_only=False)
    bounds = [0, *np.cumsum(lengths).tolist()]
    return [inner[start:end] for start, end in pairwise(bounds)]


def _with_nulls(array: Array) -> list[Any]:
    """A model may leave values out although callers may not: null in their place."""
    present: list[bool] = array.is_valid().to_pylist()
    values = iter(_per_row(array.drop_null()))
    return [next(values) if there else None for there in present]
