"""Rows to and from files, one batch at a time: CSV, Parquet, Arrow and lines of JSON, by the end of the file's name."""

from __future__ import annotations

import io
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.cli.calls import fail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.cli.calls import Server

ARROW_STREAM = "application/vnd.apache.arrow.stream"
FORMS = "They end in .csv, .parquet, .arrow or .jsonl."
_PROBLEM = b"bettong.problem"


@contextmanager
def rows_of(server: Server, path: str, body: object = None) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The rows that the server answers with to a POST, or to a GET without a `body`. Fails in its words when they
    break off."""
    with server.stream(path, body) as chunks:
        try:
            reader = pa.ipc.open_stream(pa.PythonFile(io.BufferedReader(_Chunks(chunks)), mode="r"))
        except pa.ArrowInvalid:
            fail("The server's answer is not an Arrow stream. See: bettong logs")
        yield reader.schema, _batches(reader)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    while True:
        try:
            batch, told = reader.read_next_batch_with_custom_metadata()
        except StopIteration:
            return
        except pa.ArrowInvalid:
            fail("The rows broke off in the middle. See: bettong logs")
        if told is not None and _PROBLEM in told:
            fail(f"The rows broke off: {json.loads(told[_PROBLEM])['msg']}")
        yield batch


def save(schema: pa.Schema, batches: Iterator[pa.RecordBatch], to: str | None) -> int:
    """Write rows to a file, or as CSV to standard output without one; how many. A file is there whole or not at all."""
    if to is None:
        return _write(schema, batches, sys.stdout.buffer, ".csv")
    draft = Path(f"{to}.part")
    try:
        with draft.open("wb") as file:
            rows = _write(schema, batches, file, _ending(to))
        draft.replace(to)
    except OSError as refused:
        fail(f"The file '{to}' cannot be written ({refused.strerror}).")
    finally:
        draft.unlink(missing_ok=True)
    return rows


def load(place: str) -> Iterator[bytes]:
    """The rows of a file as the bytes of an Arrow stream, made as they are sent."""
    sink = _Pieces()
    with _reader(place) as (schema, batches), pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield from sink.taken()
    yield from sink.taken()


def _write(schema: pa.Schema, batches: Iterator[pa.RecordBatch], file: Any, ending: str) -> int:
    rows = 0
    if ending == ".jsonl":
        for batch in batches:
            file.writelines(f"{json.dumps(row, default=str)}\n".encode() for row in batch.to_pylist())
            rows += batch.num_rows
        return rows
    with _writer(schema, file, ending) as writer:
        for batch in batches:
            writer.write_batch(_flat(batch) if ending == ".csv" else batch)
            rows += batch.num_rows
    return rows


def _writer(schema: pa.Schema, file: Any, ending: str) -> Any:
    if ending == ".csv":
        from pyarrow import csv

        flat = pa.schema([pa.field(f.name, pa.string() if pa.types.is_nested(f.type) else f.type) for f in schema])
        return csv.CSVWriter(file, flat)
    if ending == ".parquet":
        from pyarrow import parquet

        return parquet.ParquetWriter(file, schema)
    return pa.ipc.new_file(file, schema)


def _flat(batch: pa.RecordBatch) -> pa.RecordBatch:
    """CSV has no lists: they are written as JSON."""
    columns = [
        pa.array([None if v is None else json.dumps(v, default=str) for v in column.to_pylist()], pa.string())
        if pa.types.is_nested(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


@contextmanager
def _reader(place: str) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    ending = _ending(place)
    try:
        if ending == ".parquet":
            from pyarrow import parquet

            with parquet.ParquetFile(place) as file:
                yield file.schema_arrow, file.iter_batches()
        elif ending == ".arrow":
            with pa.OSFile(place, "rb") as opened:
                arrow = pa.ipc.open_file(opened)
                yield arrow.schema, (arrow.get_batch(n) for n in range(arrow.num_record_batches))
        else:
            from pyarrow import csv
            from pyarrow import json as lines

            reader = csv.open_csv(place) if ending == ".csv" else lines.open_json(place)
            with reader:
                yield reader.schema, iter(reader)
    except OSError as refused:
        fail(f"The file '{place}' cannot be read ({refused.strerror or 'it is damaged'}).")
    except pa.ArrowInvalid:
        fail(f"The file '{place}' does not hold what its name says. {FORMS}")


def _ending(place: str) -> str:
    ending = Path(place).suffix.lower()
    if ending not in (".csv", ".parquet", ".arrow", ".jsonl"):
        fail(f"The file '{place}' is of no kind that is known here. {FORMS}")
    return ending


class _Chunks(io.RawIOBase):
    """A file over bytes that arrive in chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            if (chunk := next(self._chunks, None)) is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Pieces(io.RawIOBase):
    """A file that hands on what was written to it."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def taken(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces
