"""Files as rows and rows as files: Parquet, Arrow, CSV, JSON records and JSON lines, a batch at a time."""

from __future__ import annotations

import io
import tempfile
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import pyarrow as pa
from pydantic import Field, field_validator

from bettong.drivers.details import Details
from bettong.drivers.packing import unpacked_if_gzip
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

Format = Literal["parquet", "arrow", "csv", "json", "jsonl"]
BY_EXTENSION: dict[str, Format] = {
    "parquet": "parquet",
    "pq": "parquet",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
    "csv": "csv",
    "tsv": "csv",
    "json": "json",
    "jsonl": "jsonl",
    "ndjson": "jsonl",
}
_BY_CONTENT: dict[str, Format] = {
    "application/vnd.apache.parquet": "parquet",
    "application/x-parquet": "parquet",
    "application/vnd.apache.arrow.file": "arrow",
    "application/vnd.apache.arrow.stream": "arrow",
    "text/csv": "csv",
    "application/csv": "csv",
    "application/json": "json",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
}
_CHUNK = 2**18


class FormatDetails(Details):
    """How files are read, where their names and content do not say it."""

    format: Literal["", "parquet", "arrow", "csv", "json", "jsonl"] = Field(
        "", description="The format of the data, where neither its name nor its content type says it."
    )
    delimiter: str = Field("", max_length=1, description="What stands between the fields of CSV: a comma, by default.")
    columns: dict[str, str] = Field(
        {},
        description='Names and Arrow types of the columns to read, as in {"day": "date32", "sales": "list<double>"}.',
    )

    @field_validator("columns")
    @classmethod
    def _types_exist(cls, columns: dict[str, str]) -> dict[str, str]:
        for name, word in columns.items():
            if arrow_type(word) is None:
                raise ValueError(f"gives column {name!r} a type that Arrow does not have")
        return columns

    @property
    def schema_(self) -> pa.Schema | None:
        """The declared columns; None when there are none."""
        return pa.schema([pa.field(n, arrow_type(word)) for n, word in self.columns.items()]) if self.columns else None


class Sink(Protocol):
    """A file that is being written."""

    def write(self, batch: pa.RecordBatch) -> None: ...
    def close(self) -> None: ...


def arrow_type(word: str) -> Any:
    """The Arrow type behind a word such as `double`, `timestamp[us]` or `list<float>`; None when there is none."""
    word = word.strip()
    if word.startswith("list<") and word.endswith(">"):
        inner = arrow_type(word[5:-1].removeprefix("item:"))
        return None if inner is None else pa.list_(inner)
    try:
        return cast("Any", pa).type_for_alias(word)
    except ValueError:
        return None


def named_format(name: str) -> Format | None:
    """The format that a file's name tells, `.gz` aside."""
    return BY_EXTENSION.get(name.lower().removesuffix(".gz").rpartition(".")[2])


def format_of(details: FormatDetails, name: str, content_type: str = "") -> Format:
    """What is declared, or what the content type tells, or the name. Raises BadInput when nothing does."""
    told = _BY_CONTENT.get(content_type.partition(";")[0].strip().lower())
    named = named_format(name)
    if told == "json" and named == "jsonl":
        told = named
    found = details.format or told or named
    if not found:
        raise BadInput(
            "Neither the name nor the content type of the data tells its format.",
            f"Set format in the details to one of {', '.join(sorted(set(BY_EXTENSION.values())))}.",
        )
    return found


def read_chunks(
    chunks: Iterable[bytes], form: Format, details: FormatDetails, name: str, batch_rows: int
) -> pa.RecordBatchReader:
    """Rows of data that comes once, from its beginning. What is read from its end first goes to a temporary file.

    Raises (while reading, too):
        BadInput: the data is not of that format, or does not fit the declared columns.
    """
    if form in ("parquet", "arrow"):
        source = iter(chunks)
        head = next(source, b"")
        while len(head) < 8 and (more := next(source, b"")):
            head += more
        if form == "arrow" and not head.startswith(b"ARROW1"):
            stream = _Readable(head, source)
            return _guarded(lambda: pa.ipc.open_stream(stream), form, stream)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with its reader
        file.write(head)
        for chunk in source:
            file.write(chunk)
        file.seek(0)
        return read_file(file, form, details, name, batch_rows)
    unpacked = unpacked_if_gzip(chunks)
    if form == "csv":
        text = _Readable(b"", unpacked)
        return _guarded(lambda: _csv(text, details, name), form, text)
    from bettong.drivers import json_rows

    return json_rows.read(unpacked, batch_rows, details.schema_, lines=form == "jsonl")


def read_file(file: BinaryIO, form: Format, details: FormatDetails, name: str, batch_rows: int) -> pa.RecordBatchReader:
    """Rows of a file in which one can go back and forth. It is closed when its rows are read, or by who opened it."""
    if form == "parquet":
        return _guarded(lambda: _parquet(file, details, batch_rows), form)
    if form == "arrow":
        head = file.read(6)
        file.seek(0)
        opened = _arrow_file if head == b"ARROW1" else pa.ipc.open_stream
        return _guarded(lambda: cast("Any", opened)(file), form)
    return read_chunks(iter(lambda: file.read(_CHUNK), b""), form, details, name, batch_rows)


def sink(file: BinaryIO, form: Format, schema: pa.Schema, delimiter: str = "") -> Sink:
    """Write batches of `schema` to an open file in a format."""
    if form == "parquet":
        import pyarrow.parquet as pq

        writer = pq.ParquetWriter(file, schema, compression="zstd")
        return cast("Sink", _BatchWriter(writer))
    if form == "arrow":
        return cast("Sink", pa.ipc.new_file(cast("Any", file), schema))
    if form == "csv":
        return _CsvSink(file, schema, delimiter or ",")
    if form == "jsonl":
        return _JsonLinesSink(file)
    raise BadInput("JSON records are not written: they cannot be added to.", "Write JSON lines (.jsonl) instead.")


class _BatchWriter:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch)

    def close(self) -> None:
        self._writer.close()


class _CsvSink:
    """Nested values stand as JSON."""

    def __init__(self, file: BinaryIO, schema: pa.Schema, delimiter: str) -> None:
        import pyarrow.csv as pacsv

        from bettong.drivers.sql_forms import schema_for

        self._schema = schema_for(schema, lambda kind: pa.string() if pa.types.is_nested(kind) else kind)
        self._writer = pacsv.CSVWriter(file, self._schema, write_options=pacsv.WriteOptions(delimiter=delimiter))

    def write(self, batch: pa.RecordBatch) -> None:
        from bettong.drivers.sql_forms import cast_batch

        self._writer.write_batch(cast_batch(batch, self._schema))

    def close(self) -> None:
        self._writer.close()


class _JsonLinesSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, batch: pa.RecordBatch) -> None:
        from bettong.drivers.sql_forms import json_texts

        rows = json_texts(batch.to_struct_array()).to_pylist()
        self._file.write("".join(f"{row}\n" for row in rows).encode())

    def close(self) -> None:
        self._file.flush()


class _Readable(io.RawIOBase):
    """An iterator of bytes as a file that is read once."""

    def __init__(self, head: bytes, chunks: Iterator[bytes]) -> None:
        self._rest, self._chunks = memoryview(head), chunks
        self.failed: BettongError | None = None  # the library that reads keeps no more of it than its text

    def readable(self) -> bool:
        return True

    def readinto(self, space: Any) -> int:
        while not self._rest:
            try:
                chunk = next(self._chunks, None)
            except BettongError as failed:
                self.failed = failed
                raise
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(space), len(self._rest))
        space[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _parquet(file: BinaryIO, details: FormatDetails, batch_rows: int) -> pa.RecordBatchReader:
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    names = [name for name in details.columns if name in opened.schema_arrow.names] or None
    schema = opened.schema_arrow if names is None else pa.schema([opened.schema_arrow.field(n) for n in names])
    return pa.RecordBatchReader.from_batches(schema, opened.iter_batches(batch_rows, columns=names, use_threads=False))


def _arrow_file(file: Any) -> pa.RecordBatchReader:
    opened = pa.ipc.open_file(file)
    batches = (opened.get_batch(n) for n in range(opened.num_record_batches))
    return pa.RecordBatchReader.from_batches(opened.schema, batches)


def _csv(file: Any, details: FormatDetails, name: str) -> pa.RecordBatchReader:
    import pyarrow.csv as pacsv

    tabs = name.lower().removesuffix(".gz").endswith(".tsv")
    parse = pacsv.ParseOptions(delimiter=details.delimiter or ("\t" if tabs else ","), newlines_in_values=True)
    flat = {n: arrow_type(word) for n, word in details.columns.items() if not pa.types.is_nested(arrow_type(word))}
    convert = pacsv.ConvertOptions(
        column_types=flat, include_columns=list(details.columns) or None, include_missing_columns=True
    )
    return pacsv.open_csv(io.BufferedReader(file, _CHUNK), pacsv.ReadOptions(use_threads=False), parse, convert)


def _guarded(open_it: Callable[[], Any], form: str, stream: _Readable | None = None) -> pa.RecordBatchReader:
    """A reader whose errors, now and while it is read, are in our words."""

    def told() -> BettongError:
        return (stream.failed if stream is not None else None) or BadInput(
            f"The data is not whole {form.upper()}, or a value in it does not fit the type of its column.",
            "Look at what was written there, name its format, or declare `columns`.",
        )

    try:
        reader = open_it()
    except (pa.ArrowException, OSError, EOFError):
        raise told() from None

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for batch in reader:
                if form == "arrow":
                    batch.validate(full=True)  # offsets from outside reach into our memory, where secrets are
                yield batch
        except (pa.ArrowException, OSError):
            raise told() from None

    return pa.RecordBatchReader.from_batches(reader.schema, batches())
