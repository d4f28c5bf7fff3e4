"""The inference endpoint of one pipeline as an OpenAPI document, for people and generators who have no SDK."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from wallaroo.inference import ARROW, RECORDS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pyarrow as pa

    Json = dict[str, Any]

OPENAPI = "3.1.1"
_REFUSALS = {
    "400": "The rows do not fit: malformed, a column missing or unknown, a wrong type, a null.",
    "404": "No such pipeline runs here for this caller.",
    "413": "More bytes or rows than the platform takes at once.",
    "415": "A content type that is not one of these.",
    "500": "The model raised; `source` is `sidekick`.",
    "503": "No replica is free; try again after `Retry-After` seconds.",
    "504": "The model took too long.",
}


def document(name: str, version: str, url: str, inputs: pa.Schema | None, outputs: pa.Schema | None) -> Json:
    """An OpenAPI 3.1.1 document of the inference endpoint at `url`; a schema of None allows any columns."""
    parts = urlsplit(url)
    row_in = _row(inputs, "in")
    row_out = {
        "type": "object",
        "required": ["time", "in", "out", "anomaly", "metadata"],
        "properties": {
            "time": {"type": "integer", "format": "int64", "description": "Milliseconds since 1970, UTC."},
            "in": _row(inputs, "out"),
            "out": _row(outputs, "out"),
            "anomaly": {
                "type": "object",
                "required": ["count"],
                "properties": {"count": {"type": "integer"}},
                "additionalProperties": {"type": "boolean"},
            },
            "metadata": {"type": "object"},
        },
    }
    arrow = {ARROW: {"schema": {"type": "string", "contentMediaType": ARROW, "description": "An Arrow IPC file."}}}
    answer = {
        "description": "One row per row sent, in the same order, in the form of the Accept header.",
        "content": {RECORDS: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Answer"}}}, **arrow},
    }
    rows = {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Row"}}
    operation = {
        "operationId": "infer",
        "summary": f"Predictions of pipeline {name}",
        "parameters": _parameters(),
        "requestBody": {"required": True, "content": {RECORDS: {"schema": rows}, **arrow}},
        "responses": {
            "200": answer,
            "401": {
                "description": "No token, or one that does not hold.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            **{status: _refusal(description) for status, description in _REFUSALS.items()},
        },
    }
    return {
        "openapi": OPENAPI,
        "info": {"title": f"Pipeline {name}", "version": version},
        "servers": [{"url": f"{parts.scheme}://{parts.netloc}"}],
        "security": [{"bearer": []}],
        "paths": {parts.path: {"post": operation}},
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Row": row_in, "Answer": row_out, "Error": _error()},
        },
    }


def as_text(spec: Json) -> str:
    """YAML, in the part of it that is JSON: every reader of YAML takes it."""
    return json.dumps(spec, indent=2, ensure_ascii=False) + "\n"


def json_type(kind: pa.DataType, direction: str) -> Json:
    """The JSON Schema of a value of an Arrow type; `direction` is "in" for what is sent, "out" for answers.

    Answers have one form where requests may choose, and null for a number that is none.
    """
    import pyarrow as pa

    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind):
        return {"type": "array", "items": json_type(kind.value_type, direction)}
    if types.is_fixed_size_list(kind):
        size = kind.list_size
        return {"type": "array", "items": json_type(kind.value_type, direction), "minItems": size, "maxItems": size}
    if types.is_struct(kind):
        return _object((kind.field(at) for at in range(kind.num_fields)), direction)
    if types.is_boolean(kind):
        return {"type": "boolean"}
    if types.is_integer(kind):
        return _integer(kind)
    sent = direction == "in"
    if types.is_floating(kind):
        form = {"format": {16: "float", 32: "float", 64: "double"}[kind.bit_width]}
        return {"type": "number" if sent else ["number", "null"], **form}
    if types.is_timestamp(kind):
        text = "Milliseconds since 1970, UTC" + ("; or ISO 8601 text." if sent else ".")
        return {"type": ["integer", "string"] if sent else "integer", "description": text}
    if types.is_date(kind):
        return {"type": ["string", "integer"] if sent else "string", "format": "date"}
    if types.is_decimal(kind):
        return {"type": ["string", "number"] if sent else "string", "description": f"A decimal number, {kind}."}
    if types.is_binary(kind) or types.is_large_binary(kind):
        return {"type": "string", "contentEncoding": "base64"}
    if types.is_string(kind) or types.is_large_string(kind):
        return {"type": "string"}
    return {"description": f"Arrow type {kind}."}


def _row(schema: pa.Schema | None, direction: str) -> Json:
    return {"type": "object"} if schema is None else _object(schema, direction)


def _object(fields: Iterable[pa.Field[Any]], direction: str) -> Json:
    properties = {field.name: json_type(field.type, direction) for field in fields}
    return {
        "type": "object",
        "required": list(properties),
        "properties": properties,
        "additionalProperties": False,
    }


def _integer(kind: pa.DataType) -> Json:
    import pyarrow as pa

    bits, signed = kind.bit_width, pa.types.is_signed_integer(kind)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    form = {"format": f"int{bits}"} if signed and bits >= 32 else {}
    return {"type": "integer", **form, "minimum": low, "maximum": high}


def _parameters() -> list[Json]:
    names = {"type": "array", "items": {"type": "string"}}
    return [
        {
            "name": "dataset[]",
            "in": "query",
            "schema": {**names, "default": ["*"]},
            "description": "Groups or columns to answer with: *, time, in, out, anomaly, metadata, out.NAME.",
        },
        {"name": "dataset.exclude[]", "in": "query", "schema": names, "description": "Groups or columns to leave out."},
        {
            "name": "dataset.separator",
            "in": "query",
            "schema": {"type": "string"},
            "description": 'Flat rows with this text between group and name, such as "." for out.NAME; nested without.',
        },
    ]


def _refusal(description: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }


def _error() -> Json:
    return {
        "type": "object",
        "required": ["code", "status", "error", "source"],
        "properties": {
            "code": {"type": "integer"},
            "status": {"const": "error"},
            "error": {"type": "string", "description": "What was found, and what to do next."},
            "source": {"type": "string", "description": "`engine`, or `sidekick` when a model's own code failed."},
        },
    }
