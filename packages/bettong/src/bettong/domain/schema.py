"""Arrow schemas of models: how they travel, which types they may use, and how they are named to people."""

from __future__ import annotations

import base64
import binascii

import pyarrow as pa

from bettong.errors import BadInput


def encode_schema(schema: pa.Schema) -> bytes:
    """The serialised form that is stored and sent (as base64)."""
    return bytes(schema.serialize())


def decode_schema(data: bytes) -> pa.Schema:
    """Raises BadInput when `data` is not a serialised Arrow schema."""
    try:
        return pa.ipc.read_schema(pa.py_buffer(data))
    except (pa.ArrowInvalid, pa.ArrowException, OSError, ValueError) as broken:
        raise BadInput(
            "The schema is not a serialised Arrow schema.", "Send base64 of pyarrow.Schema.serialize()."
        ) from broken


def decode_schema_text(text: str) -> pa.Schema:
    """The same from base64 text."""
    try:
        return decode_schema(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError) as broken:
        raise BadInput("The schema is not base64 text.", "Send base64 of pyarrow.Schema.serialize().") from broken


def check_model_schema(which: str, schema: pa.Schema) -> pa.Schema:
    """Return `schema` if models can take it: at least one field, names unique and not empty, every type supported.

    Supported: bool, integers, floats, strings, binary, dates, timestamps, decimal128, and lists, fixed-size lists
    and structs of these (spec 4.12). Raises BadInput naming the field otherwise.
    """
    if len(schema) == 0:
        raise BadInput(f"The {which} has no field.", "Give every column the model takes or returns a pa.field.")
    names = [f.name for f in schema]
    for name in names:
        if not name or names.count(name) > 1:
            raise BadInput(
                f"The {which} has the field name '{name}' {names.count(name)} times.", "Name each field once."
            )
    for field in schema:
        if (fault := _unsupported(field.type)) is not None:
            raise BadInput(
                f"The {which} field '{field.name}' has type {fault}.",
                "Use bool, integers, floats, string, binary, date, timestamp, decimal128, or lists or structs of them.",
            )
    return schema


def _unsupported(kind: pa.DataType) -> pa.DataType | None:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _unsupported(kind.value_type)
    if pa.types.is_struct(kind):
        return next((bad for i in range(kind.num_fields) if (bad := _unsupported(kind.field(i).type))), None)
    simple = (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_date(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_decimal128(kind)
    )
    return None if simple else kind
