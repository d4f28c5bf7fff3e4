"""JSON as rows: an array of objects, one object, or an object a line, taken apart as the bytes come.

The types of the first batch are those of the stream, unless they were declared. JSON has no dates: texts stay texts.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_RECORD_BYTES = 16 * 2**20
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)
_STEP = {b"{": 1, b"[": 1, b"}": -1, b"]": -1}
_DECLARE = "Declare the types of all columns as `columns` in the details."


def read(chunks: Iterable[bytes], batch_rows: int, columns: pa.Schema | None, *, lines: bool) -> pa.RecordBatchReader:
    """The records as batches. With `columns` just those, null where a record lacks one.

    Raises (while reading, too):
        BadInput: it is no JSON, no objects, or a record does not fit the types.
    """
    groups = _grouped(_lines(chunks) if lines else _records(chunks), batch_rows)
    first = next(groups, [])
    if columns is not None:
        schema, batch = columns, _fitted(first, columns, declared=True, before=0)
    else:
        batch = _inferred(first)
        schema = batch.schema

    def batches() -> Iterator[pa.RecordBatch]:
        yield batch
        seen = batch.num_rows
        for group in groups:
            fitted = _fitted(group, schema, declared=columns is not None, before=seen)
            yield fitted
            seen += fitted.num_rows

    return pa.RecordBatchReader.from_batches(schema, batches())


def _records(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of each object of an array, or of objects that follow one another."""
    buffer, at, gap, begun, depth = b"", 0, 0, 0, 0  # `gap`: where the text between two objects begins
    array = closed = False
    for chunk in chunks:
        buffer += chunk
        while (found := _TOKEN.search(buffer, at)) is not None:
            token = found.group()
            if token == b'"':  # a text that goes on in the next chunk
                break
            at = found.end()
            if depth:
                depth += _STEP.get(token, 0)
                if not depth:
                    yield buffer[begun:at]
                    gap = at
                continue
            _check_gap(buffer[gap : found.start()])
            gap = at
            if closed or token not in (b"{", b"[", b"]") or (array and token == b"["):
                raise _no_objects() if array and not closed else _no_json()
            if token == b"{":
                begun, depth = found.start(), 1
            elif token == b"[":
                array = True
            elif array:
                closed = True
            else:
                raise _no_json()
        keep = begun if depth else gap
        if len(buffer) - keep > MAX_RECORD_BYTES:
            raise BadInput("One record of the JSON is longer than 16 MiB.", "Split it.")
        buffer, at, begun, gap = buffer[keep:], at - keep, 0, 0
    if depth or array != closed:
        raise _no_json()
    _check_gap(buffer[gap:])


def _check_gap(text: bytes) -> None:
    if text.strip(b" \t\r\n,"):
        raise _no_objects()


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_RECORD_BYTES:
            raise BadInput("One line of the JSON is longer than 16 MiB.", "Split it.")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _grouped(records: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    group: list[bytes] = []
    held = 0
    for record in records:
        group.append(record)
        held += len(record)
        if len(group) >= size or held >= 8 * 2**20:
            yield group
            group, held = [], 0
    if group:
        yield group


def _inferred(group: list[bytes]) -> pa.RecordBatch:
    values = _parsed(group)
    if not values:
        return pa.RecordBatch.from_arrays([], schema=pa.schema([]))
    try:
        rows = pa.array(values)
    except (pa.ArrowException, OverflowError):
        raise BadInput("The records hold values of different types in one column.", _DECLARE) from None
    return pa.RecordBatch.from_struct_array(rows)


def _fitted(group: list[bytes], schema: pa.Schema, *, declared: bool, before: int) -> pa.RecordBatch:
    if not group:
        return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    import pyarrow.json as pajson

    options = pajson.ParseOptions(
        explicit_schema=schema, newlines_in_values=True, unexpected_field_behavior="ignore" if declared else "error"
    )
    data = b"\n".join(group)
    try:
        block = pajson.ReadOptions(use_threads=False, block_size=max(len(data) + 1, 2**16))
        table = pajson.read_json(io.BytesIO(data), block, options)
        table = table.select(schema.names).cast(schema)
    except (pa.ArrowException, KeyError):
        types = "those that were declared" if declared else "those of the ones before"
        raise BadInput(
            f"After {before} records comes one whose columns and types are not {types}.",
            "Correct it, or declare other types." if declared else _DECLARE,
        ) from None
    merged = table.combine_chunks().to_batches()
    return merged[0]


def _parsed(group: list[bytes]) -> list[Any]:
    try:
        values: list[Any] = orjson.loads(b"[" + b",".join(group) + b"]")
    except orjson.JSONDecodeError:
        raise _no_json() from None
    if not all(isinstance(value, dict) for value in values):
        raise _no_objects()
    return values


def _no_objects() -> BadInput:
    return BadInput("The JSON holds something else than objects.", 'Rows look like [{"a": 1}, …], or an object a line.')


def _no_json() -> BadInput:
    return BadInput("What is there is no whole JSON document.", "Look at what was written there, or name its format.")
