"""Rows to and from the platform as Arrow streams: one batch in memory at a time, in the form that was asked for."""

from __future__ import annotations

import io
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from wallaroo._transport import Reply, error_of
from wallaroo._wait import Clock, Screen
from wallaroo.object import CommunicationError, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from wallaroo._transport import Transport

ARROW_STREAM = "application/vnd.apache.arrow.stream"
BATCH_ROWS = 65_536
PROGRESS_AFTER_S = 1.0
PROGRESS_EVERY_S = 0.25
_PROBLEM = b"bettong.problem"
Form = Literal["pandas", "arrow", "polars", "batches"]
FORMS = ("pandas", "arrow", "polars", "batches")


class Batches:
    """Rows that arrive as they are taken, as Arrow record batches. Iterate once; `close` before the end gives up.

    Take each batch within some 20 seconds of the one before: the platform ends an answer that nobody reads.

    Attributes:
        schema: of every batch.
    """

    def __init__(self, answer: AbstractContextManager[Iterator[bytes]], progress: Progress) -> None:
        self._stack = ExitStack()
        self._progress = progress
        try:
            chunks = self._stack.enter_context(answer)
            self._reader = pa.ipc.open_stream(pa.PythonFile(io.BufferedReader(_ChunkFile(chunks)), mode="r"))
        except pa.ArrowInvalid:
            self._stack.close()
            raise CommunicationError("The answer is not an Arrow stream.") from None
        except BaseException:
            self._stack.close()
            raise
        self.schema: pa.Schema = self._reader.schema

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self

    def __next__(self) -> pa.RecordBatch:
        try:
            batch, told = self._reader.read_next_batch_with_custom_metadata()
            if told is not None and _PROBLEM in told:
                problem = json.loads(told[_PROBLEM])
                reply = Reply(int(problem["code"]), {}, told[_PROBLEM])
                raise error_of(RequestRefused, reply, "The rows broke off:")
        except StopIteration:
            self._progress.is_over()
            self.close()
            raise
        except pa.ArrowInvalid:
            self.close()
            raise CommunicationError("The rows broke off in the middle.") from None
        except BaseException:
            self.close()
            raise
        self._progress.has(batch.num_rows)
        return batch

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no further. Twice is no error."""
        self._stack.close()


class Progress:
    """How many rows went over, on one line, once it takes longer than a moment."""

    def __init__(self, screen: Screen, verb: str, clock: Clock | None = None) -> None:
        self._screen, self._verb, self._clock = screen, verb, clock or Clock()
        self._rows = 0
        self._next_s = self._clock.now_s() + PROGRESS_AFTER_S
        self._shown = False

    def has(self, rows: int) -> None:
        self._rows += rows
        if self._clock.now_s() >= self._next_s:
            self._next_s = self._clock.now_s() + PROGRESS_EVERY_S
            self._shown = True
            self._screen.write(f"\r{self._verb} {self._rows:,} rows")

    def is_over(self) -> None:
        if self._shown:
            self._screen.write(f"\r{self._verb} {self._rows:,} rows, done.\n")


def read(
    transport: Transport, path: str, request: Mapping[str, Any] | None, as_: Form, timeout_s: float, progress: Progress
) -> Any:
    """The rows that `path` answers with: a pandas or polars DataFrame, an Arrow table, or `Batches`.

    Raises:
        ValueError: `as_` is none of these.
        ImportError: polars is asked for and not installed.
        WallarooAPIError, CommunicationError: there are no rows, or they broke off.
    """
    if as_ not in FORMS:
        raise ValueError(f"as_ is {as_!r}. It is one of {', '.join(map(repr, FORMS))}.")
    if as_ == "polars":
        try:
            import polars as pl
        except ImportError:
            raise ImportError("as_='polars' needs polars. Run: pip install polars") from None
    batches = Batches(transport.stream(path, request, ARROW_STREAM, timeout_s=timeout_s), progress)
    if as_ == "batches":
        return batches
    table = pa.Table.from_batches(list(batches), batches.schema)
    if as_ == "arrow":
        return table
    return pl.from_arrow(table) if as_ == "polars" else table.to_pandas()


def encoded(data: Any, progress: Progress) -> Iterator[bytes]:
    """Rows as the bytes of an Arrow stream, made as they are sent.

    Args:
        data: a pandas or polars DataFrame, an Arrow table, record batch or reader, `Batches`, a list of dicts, or an
            iterable of record batches.

    Raises:
        TypeError: it is none of these.
        ValueError: it has no columns: an empty list, or an iterable without a batch.
    """
    schema, batches = _rows_of(data)
    return _stream(schema, batches, progress)


def _stream(schema: pa.Schema, batches: Iterable[pa.RecordBatch], progress: Progress) -> Iterator[bytes]:
    sink = _Pieces()
    with pa.ipc.new_stream(sink, schema) as writer:
        yield from sink.taken()
        for batch in batches:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                writer.write_batch(part)
                yield from sink.taken()
                progress.has(part.num_rows)
    yield from sink.taken()
    progress.is_over()


def _rows_of(data: Any) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    if isinstance(data, pa.Table):
        return data.schema, data.to_batches()
    if isinstance(data, pa.RecordBatch):
        return data.schema, [data]
    if isinstance(data, (pa.RecordBatchReader, Batches)):
        return data.schema, data
    if isinstance(data, list):
        if not data:
            raise ValueError(
                "The list of rows is empty: it says nothing of columns. Pass a DataFrame or an Arrow table."
            )
        if all(isinstance(row, dict) for row in data):
            return _rows_of(pa.Table.from_pylist(data))
    kind = f"{type(data).__module__.partition('.')[0]}.{type(data).__name__}"
    if kind == "pandas.DataFrame":
        return _rows_of(pa.Table.from_pandas(data, preserve_index=False))
    if kind == "polars.DataFrame":
        return _rows_of(data.to_arrow())
    if hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict)):
        return _from_first(iter(data))
    raise _no_rows(data)


def _from_first(batches: Iterator[Any]) -> tuple[pa.Schema, Iterable[pa.RecordBatch]]:
    first = next(batches, None)
    if first is None:
        raise ValueError("There is no batch of rows. Pass at least one, if need be without rows: it says the columns.")
    if not isinstance(first, pa.RecordBatch):
        raise _no_rows(first)

    def all_of_them() -> Iterator[pa.RecordBatch]:
        yield first
        for batch in batches:
            if not isinstance(batch, pa.RecordBatch):
                raise _no_rows(batch)
            yield batch

    return first.schema, all_of_them()


def _no_rows(data: object) -> TypeError:
    return TypeError(
        f"Rows are of type {type(data).__name__}. Pass a DataFrame, an Arrow table, record batches, or a list of dicts."
    )


class _ChunkFile(io.RawIOBase):
    """A file over bytes that arrive in chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
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
