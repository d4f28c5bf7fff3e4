"""The rows that a job leaves in its folder, read back while it may still be writing them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from bettong.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENDINGS = (".arrow", ".parquet")
LET_GO = "let-go"  # a file in place of others that went, since those of all jobs took too much
BATCH_ROWS = 16_384
_FILE_MAGIC, _FILE_HEAD_BYTES = b"ARROW1", 8


@contextmanager
def rows_of(folder: Path, what: str) -> Iterator[pa.RecordBatchReader]:
    """The rows of the files `{what}*.arrow` and `{what}*.parquet` in the order of their names, one batch in memory.

    Columns that some files lack are null there. Of an Arrow file or stream that is not whole, because an attempt is
    writing it or was killed over it, the whole batches come; a Parquet file is there only when it is whole.

    Raises:
        NotFound: they were there, and are kept no longer.
    """
    if (folder / LET_GO).exists():
        raise NotFound(
            f"The {what} of this job went: files of all jobs took more than the platform keeps.",
            "Make the job anew, or have the operator keep more: BETTONG_JOB_BYTES.",
        )
    files = sorted(file for file in folder.glob(f"{what}*") if file.suffix in ENDINGS) if folder.is_dir() else []
    schemas = [schema for file in files if (schema := _schema_of(file)) is not None]
    schema = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])

    def batches() -> Iterator[pa.RecordBatch]:
        for file in files:
            for batch in _batches_of(file):
                yield _fitted(batch, schema)

    yield pa.RecordBatchReader.from_batches(schema, batches())


def _schema_of(file: Path) -> pa.Schema | None:
    """None for one that has just been begun."""
    if file.suffix == ".parquet":
        try:
            return pq.read_schema(file)
        except pa.ArrowInvalid:
            return None
    with pa.memory_map(str(file)) as source:
        try:
            return _stream(source).schema
        except (pa.ArrowInvalid, OSError):
            return None


def _batches_of(file: Path) -> Iterator[pa.RecordBatch]:
    if _schema_of(file) is None:
        return
    if file.suffix == ".parquet":
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(BATCH_ROWS)
        return
    with pa.memory_map(str(file)) as source:
        reader = _stream(source)
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):  # its end, or as far as it is whole
                return
            yield batch


def _stream(source: pa.MemoryMappedFile) -> pa.RecordBatchStreamReader:
    """An Arrow file is a stream between a head and a table of contents, which one that is not whole lacks."""
    source.seek(_FILE_HEAD_BYTES if source.read(len(_FILE_MAGIC)) == _FILE_MAGIC else 0)
    return pa.ipc.open_stream(source)


def _fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(schema):
        return batch
    columns = [
        batch.column(field.name).cast(field.type)
        if field.name in batch.schema.names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
