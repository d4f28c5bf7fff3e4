"""Arrow as it leaves a driver: plain types in bounded batches. What other readers do not know is undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.types as types

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_BATCH_BYTES = 32 * 2**20


def plain_type(kind: Any) -> Any:
    """The type that values of `kind` are handed on as: no dictionaries, extensions, views or run lengths."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return plain_type(kind.value_type)
    if types.is_string_view(kind):
        return pa.string()
    if types.is_binary_view(kind):
        return pa.binary()
    if types.is_null(kind):
        return pa.string()
    if types.is_struct(kind):
        return pa.struct([plain_field(kind.field(i)) for i in range(kind.num_fields)])
    if types.is_fixed_size_list(kind):
        return pa.list_(plain_field(kind.value_field), kind.list_size)
    if types.is_large_list(kind):
        return pa.large_list(plain_field(kind.value_field))
    if types.is_list(kind):
        return pa.list_(plain_field(kind.value_field))
    return kind


def plain_field(field: Any) -> Any:
    return pa.field(field.name, plain_type(field.type), field.nullable)


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with plain types and without metadata: a driver's is nobody's business."""
    return pa.schema([plain_field(field) for field in schema])


def plain_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch in the types of `schema`, which `plain_schema` made of its own."""
    columns = [plain_array(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def plain_array(array: Any, kind: Any) -> Any:
    if isinstance(array, pa.ExtensionArray):
        return plain_array(array.storage, kind)
    if types.is_dictionary(array.type):
        return plain_array(array.dictionary_decode(), kind)
    if array.type.equals(kind):
        return array
    if types.is_run_end_encoded(array.type):
        import pyarrow.compute as pc

        return plain_array(cast("Any", pc).run_end_decode(array), kind)
    if types.is_struct(array.type):
        fields = list(kind)
        parts = [plain_array(part, field.type) for part, field in zip(array.flatten(), fields, strict=True)]
        return pa.StructArray.from_arrays(parts, fields=fields, mask=array.is_null())
    if types.is_list(array.type) or types.is_large_list(array.type):
        if len(array) == 0:
            return pa.array([], kind)
        offsets, values = array.offsets, plain_array(array.values, kind.value_type)
        maker = pa.LargeListArray if types.is_large_list(array.type) else pa.ListArray
        return maker.from_arrays(offsets, values, type=kind, mask=array.is_null() if array.null_count else None)
    return array.cast(kind)


def plain_reader(reader: pa.RecordBatchReader) -> pa.RecordBatchReader:
    schema = plain_schema(reader.schema)
    return pa.RecordBatchReader.from_batches(schema, (plain_batch(batch, schema) for batch in reader))


def bounded(batches: Iterable[pa.RecordBatch], batch_rows: int, limit: int | None = None) -> Iterator[pa.RecordBatch]:
    """The same rows, at most `limit`, in batches of at most `batch_rows` rows and about 32 MiB, none empty."""
    left = limit
    if left == 0:
        return
    for batch in batches:
        rows = batch.num_rows if left is None else min(batch.num_rows, left)
        if not rows:
            continue
        fit = max(1, int(MAX_BATCH_BYTES / max(1.0, batch.nbytes / batch.num_rows)))
        step = max(1, min(batch_rows, fit))
        for start in range(0, rows, step):
            yield batch.slice(start, min(step, rows - start))
        if left is not None:
            left -= rows
            if left <= 0:
                return


def one_row(values: tuple[Any, ...]) -> pa.RecordBatch | None:
    """Parameters of a query as a batch of one row; None without any.

    Raises:
        BadInput: a value has no Arrow type; its place is named.
    """
    arrays = []
    for place, value in enumerate(values, 1):
        try:
            arrays.append(pa.array([value]))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise BadInput(
                f"Parameter {place} of the query is a {type(value).__name__}, which no database takes.",
                "Pass numbers, texts, bytes, booleans, dates, times, decimals or None.",
            ) from None
    names = [str(place) for place in range(len(values))]
    return pa.RecordBatch.from_arrays(arrays, names=names) if arrays else None
