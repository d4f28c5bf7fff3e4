"""Columns that decide which model takes a request and that no model takes: a request may have them, of a plain type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from bettong.engine.arrow_codec import FILE_MAGIC
from bettong.engine.codec import Format

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.arrow_types import Kind


def widened(form: Format, body: bytes, schema: pa.Schema, keys: Sequence[str]) -> pa.Schema:
    """`schema` with those of `keys` that the body has, as text, int64, double or boolean, whichever fits.

    Never raises: a body that cannot be read is told of by whoever decodes it.
    """
    kinds = _in_arrow(body, keys) if form in (Format.ARROW_FILE, Format.ARROW_STREAM) else _in_json(form, body, keys)
    return pa.schema([*schema, *(pa.field(key, kind) for key, kind in kinds.items())]) if kinds else schema


def _in_json(form: Format, body: bytes, keys: Sequence[str]) -> dict[str, Kind]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    found: dict[str, Kind] = {}
    for key in keys:
        if form is Format.WALLAROO:
            values = document.get(key) if isinstance(document, dict) else None
        else:
            rows = document if isinstance(document, list) else []
            values = [row[key] for row in rows if isinstance(row, dict) and key in row]
        if isinstance(values, list) and values:
            found[key] = _kind_of(values)
    return found


def _kind_of(values: list[Any]) -> Kind:
    kinds = set(map(type, values))
    if kinds == {bool}:
        return pa.bool_()
    if kinds == {int}:
        return pa.int64()
    if kinds <= {int, float}:
        return pa.float64()
    return pa.string()  # what is none is refused as such


def _in_arrow(body: bytes, keys: Sequence[str]) -> dict[str, Kind]:
    try:
        buffer = pa.py_buffer(body)
        schema = (pa.ipc.open_file if body.startswith(FILE_MAGIC) else pa.ipc.open_stream)(buffer).schema
    except (pa.ArrowException, OSError, ValueError, TypeError):
        return {}
    return {key: _plain(schema.field(key).type) for key in keys if schema.get_field_index(key) >= 0}


def _plain(kind: Kind) -> Kind:
    if pa.types.is_boolean(kind):
        return pa.bool_()
    if pa.types.is_integer(kind):
        return pa.int64()
    return pa.float64() if pa.types.is_floating(kind) else pa.string()
