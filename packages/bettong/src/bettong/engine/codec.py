"""Content types: which decoder takes a body, which encoder makes the answer (spec 7.2, 7.3, 7.5, 7.8)."""

from __future__ import annotations

from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from bettong.engine.arrow_codec import decode_arrow, encode_arrow
from bettong.engine.json_answer import encode_legacy, encode_records
from bettong.engine.json_codec import decode_columns, decode_records
from bettong.errors import UnsupportedFormat

if TYPE_CHECKING:
    from bettong.engine.answer import Answer, AnswerShape
    from bettong.engine.dataset import Dataset

ARROW_FILE = "application/vnd.apache.arrow.file"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
JSON_RECORDS = "application/json; format=pandas-records"
JSON_WALLAROO = "application/json; format=wallaroo"
TAKEN = (JSON_RECORDS, JSON_WALLAROO, ARROW_FILE, ARROW_STREAM)


class Format(Enum):
    """How rows are written in a body; the value is the content type of an answer."""

    RECORDS = JSON_RECORDS
    WALLAROO = JSON_WALLAROO
    ARROW_FILE = ARROW_FILE
    ARROW_STREAM = ARROW_STREAM


@lru_cache(maxsize=256)
def format_of(content_type: bytes) -> Format:
    """The format of a request body by its Content-Type.

    Raises:
        UnsupportedFormat: none of ours; the text names those that are taken.
    """
    found = _format(content_type)
    if found is None:
        raise UnsupportedFormat(
            "The Content-Type is none that an inference takes." if content_type else "The Content-Type is missing.",
            f"Send one of: {'; '.join(repr(taken) for taken in TAKEN)}.",
        )
    return found


@lru_cache(maxsize=256)
def accepted(accept: bytes) -> Format:
    """The format of the answer: the most preferred of ours in an Accept header, JSON records when there is none."""
    choices = []
    for at, choice in enumerate(accept.split(b",")):
        found = _format(choice)
        if found is not None and (quality := _quality(choice)) > 0:
            choices.append((-quality, at, found))
    return min(choices, key=lambda choice: choice[:2])[2] if choices else Format.RECORDS


def decode(form: Format, body: bytes, schema: pa.Schema, *, max_unpacked_bytes: int) -> pa.Table:
    """The rows of a body, of exactly `schema`, without a null, at least one.

    Raises:
        BadInput: what is wrong, in which column and row, and what was expected; never a value of the body.
        TooLarge: an Arrow body unpacks to more than `max_unpacked_bytes`.
    """
    if form is Format.RECORDS:
        return decode_records(body, schema)
    if form is Format.WALLAROO:
        return decode_columns(body, schema)
    return decode_arrow(body, schema, max_unpacked_bytes=max_unpacked_bytes)


def encode(form: Format, answer: Answer, dataset: Dataset) -> bytes | memoryview:
    """An answer's body, with the columns that `dataset` takes."""
    if form is Format.RECORDS:
        return encode_records(answer, dataset)
    if form is Format.WALLAROO:
        return encode_legacy(answer)
    schema, columns = _arrow_columns(answer.shape, dataset)
    batch = pa.RecordBatch.from_arrays([answer.column(at) for at in columns], schema=schema)
    return encode_arrow(batch, stream=form is Format.ARROW_STREAM)


@lru_cache(maxsize=256)
def _arrow_columns(shape: AnswerShape, dataset: Dataset) -> tuple[pa.Schema, tuple[int, ...]]:
    chosen = dataset.chosen(shape.names)
    fields = [shape.schema.field(at) for at in chosen]
    if dataset.separator not in (None, "", "."):
        fields = [field.with_name(field.name.replace(".", dataset.separator, 1)) for field in fields]
    return pa.schema(fields), tuple(chosen)


def _format(media: bytes) -> Format | None:
    kind, *parameters = (part.strip().lower() for part in media.split(b";"))
    if kind == b"application/json":
        stated = [value.strip(b'"') for key, _, value in (p.partition(b"=") for p in parameters) if key == b"format"]
        return {b"pandas-records": Format.RECORDS, b"wallaroo": Format.WALLAROO}.get(
            stated[-1] if stated else b"pandas-records"
        )
    return {ARROW_FILE.encode(): Format.ARROW_FILE, ARROW_STREAM.encode(): Format.ARROW_STREAM}.get(kind)


def _quality(choice: bytes) -> float:
    for parameter in choice.split(b";")[1:]:
        key, _, value = parameter.strip().partition(b"=")
        if key == b"q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
