"""Appends inference rows: with the operating system before the answer leaves, on the disk a moment later."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.logs import SEGMENT_BYTES, OnLogFull
from bettong.errors import BadInput, StorageFull, TooLarge, Unavailable
from bettong.logstore.columns import ROW_COLUMN, TIME_COLUMN, TIME_TYPE
from bettong.logstore.layout import check_name, create_segment
from bettong.logstore.message_parts import MessageParts
from bettong.logstore.segment import MAX_PAYLOAD_BYTES, Codec, SegmentFile, header_of, header_over, refused
from bettong.logstore.sharing import check_shape, row_fits, row_form, said_row, said_shape, said_shared

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from bettong.domain.logs import LogShape
    from bettong.logstore.sharing import RowForm

    NDArray = np.ndarray[Any, np.dtype[Any]]

ROLL_AGE_S = 3600.0
SYNC_INTERVAL_S = 0.05
SAY_AGAIN_S = 10.0  # that rows are not logged
_log = logging.getLogger(__name__)


class SegmentLogWriter:
    """The log of one replica process: a topic for inferences, one for failures, in a partition of its own.

    Nothing is opened, and no thread started, before the first append: make it before or after a fork, use it after.
    Safe to call from several threads.
    """

    def __init__(
        self,
        folder: Path,
        topic: str,
        failures_topic: str,
        partition: str,
        *,
        roll_bytes: int = SEGMENT_BYTES,
        roll_age_s: float = ROLL_AGE_S,
        on_full: OnLogFull = OnLogFull.STOP,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_name("partition", partition)
        self._gap = _Gap(topic, on_full, clock)
        self._syncer = _Syncer()
        self._inferences, self._failures = (
            _TopicWriter(folder, check_name("topic", name), partition, roll_bytes, roll_age_s, clock, self._syncer)
            for name in (topic, failures_topic)
        )
        self._lock = threading.Lock()
        self._closed = False

    @property
    def problem(self) -> str | None:
        """What is wrong with this log, in words; None while it has taken everything."""
        return self._gap.words()

    def append(self, rows: pa.RecordBatch, *, failed: bool = False) -> int:
        """Hand `rows` to the operating system; a killed process loses none of them once this has returned.

        The bytes that were written are told, with what the segment needed beside the rows.

        Args:
            rows: flat columns, among them `time` as timestamp[ms] without a null. No rows is no record.
            failed: whether they belong to a failed inference.

        Raises:
            BadInput: `rows` has no such `time`, or a dictionary or extension column. TooLarge beyond 2 GiB.
            StorageFull: the disk is. Nothing of `rows` is in the log. With `on_full` continue, rows that did not fail
                are counted instead (`problem`), and 0 is returned.
            Unavailable: the writer is closed, or the operating system refused. Nothing of `rows` is in the log.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            if failed:  # its caller hears of the failure, whether it is logged or not
                return self._failures.append(rows)
            try:
                return self._gap.ended(self._inferences.append(rows))
            except StorageFull as full:
                return self._gap.met(full, rows.num_rows)

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        """Hand the rows of one answered request to the operating system, as `append` does.

        What they share is written once: for 10,000 rows of 18 numbers 0.8 MB instead of 3.3 MB.

        Args:
            shape: what the rows look like; the same object for as long as nothing of it changes.
            time_ms: of all the rows, since the epoch.
            shared: the values of `shape.shared`.
            rows: of `shape.by_row`, at least one.

        Raises:
            BadInput, TooLarge, StorageFull, Unavailable: as `append`.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            try:
                return self._gap.ended(self._inferences.append_request(shape, time_ms, shared, rows))
            except StorageFull as full:
                return self._gap.met(full, rows.num_rows)

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[NDArray]) -> int:
        """Hand one row of numbers to the operating system, as `append_request` does, at half its cost.

        Args:
            shape, time_ms, shared: as there.
            values: of each column of `shape.by_row`: an array of the column's type, of shape (1,) for a number and
                (1, values) for a list.

        Raises:
            BadInput, StorageFull, Unavailable: as `append`.
        """
        with self._lock:
            if self._closed:
                raise _closed()
            try:
                return self._gap.ended(self._inferences.append_row(shape, time_ms, shared, values))
            except StorageFull as full:
                return self._gap.met(full, 1)

    def close(self) -> None:
        """Put everything on the disk and let go of the segments. Closing again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._inferences.retire()
            self._failures.retire()
        self._syncer.close()


class _Gap:
    """What the log had no room for."""

    def __init__(self, topic: str, on_full: OnLogFull, clock: Callable[[], float]) -> None:
        self._topic, self._on_full, self._clock = topic, on_full, clock
        self._full = False  # the last append found no space
        self._rows = 0  # answered and not logged
        self._say_at = -math.inf

    def ended(self, written: int) -> int:
        """An append went through: it is handed on what it wrote."""
        if self._full:
            self._full, self._say_at = False, -math.inf
            _log.warning("inference log has space again: topic=%s unlogged_rows=%d", self._topic, self._rows)
        return written

    def met(self, full: StorageFull, rows: int) -> int:
        """There was no space for so many rows. Raises `full` unless the log may have gaps."""
        self._full = True
        if self._on_full is OnLogFull.STOP:
            raise full
        self._rows += rows
        if self._clock() >= self._say_at:
            self._say_at = self._clock() + SAY_AGAIN_S
            _log.error("inference log full, answers go on unlogged: topic=%s unlogged_rows=%d", self._topic, self._rows)
        return 0

    def words(self) -> str | None:
        if self._rows:
            now = "is full, and inferences go on" if self._full else "was full for a while"
            return f"The disk of the inference log {now}: {self._rows} answered rows are not in the log."
        if self._full:
            return "The disk of the inference log is full: inferences are refused until there is space."
        return None


class _TopicWriter:
    """Appends to one topic's current segment and knows when it is time for the next."""

    def __init__(
        self,
        folder: Path,
        topic: str,
        partition: str,
        roll_bytes: int,
        roll_age_s: float,
        clock: Callable[[], float],
        syncer: _Syncer,
    ) -> None:
        self._folder, self._topic, self._partition = folder, topic, partition
        self._roll_bytes, self._roll_age_s, self._clock = roll_bytes, roll_age_s, clock
        self._syncer = syncer
        self._segment: SegmentFile | None = None
        self._opened_at = 0.0
        self._schema: pa.Schema | None = None  # of the segment's last schema record
        self._time_at = 0
        self._shape: LogShape | None = None  # of the segment's last shape record, None when a schema came after it
        self._checked: LogShape | None = None  # the last shape that was found right
        self._row_form: RowForm | None = None  # its own
        self._message = MessageParts()

    def append(self, rows: pa.RecordBatch) -> int:
        if not rows.num_rows:
            return 0
        schema = rows.schema
        changed = self._schema is None or not schema.equals(self._schema)
        time_at = _time_column(schema) if changed else self._time_at
        first_ms, last_ms = _times(rows.column(time_at))
        payload = _checked(self._message.of(rows))
        segment = self._current()
        parts = [header_over(Codec.ARROW_BATCH, payload, rows.num_rows, first_ms, last_ms), *payload]
        if changed or self._schema is None:  # a segment begun just now has no schema record yet
            said = schema.remove_metadata().serialize()
            parts = [header_of(Codec.SCHEMA, said), said, *parts]
        written = segment.append(parts)
        self._schema, self._time_at, self._shape = schema, time_at, None
        self._syncer.written(segment)
        return written

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        self._check(shape)
        if not rows.num_rows or len(shared) != len(shape.shared) or not rows.schema.equals(shape.by_row):
            raise BadInput(
                "The log rows are none, or of another shape than was said.",
                "Give a value for each of shape.shared, and rows of shape.by_row.",
            )
        payload = (said_shared(shared), *_checked(self._message.of(rows)))
        return self._append_sharing(shape, Codec.SHARING_BATCH, payload, rows.num_rows, time_ms)

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[NDArray]) -> int:
        self._check(shape)
        form = self._row_form
        if form is None or len(shared) != len(shape.shared) or not row_fits(form, values):
            raise BadInput(
                "The log row is of another shape than was said.",
                "Give a value for each of shape.shared, and an array for each of shape.by_row.",
            )
        return self._append_sharing(shape, Codec.SHARING_ROW, said_row(shared, values), 1, time_ms)

    def _check(self, shape: LogShape) -> None:
        if self._checked is not shape:
            _time_column(shape.schema)
            check_shape(shape)
            self._checked, self._row_form = shape, row_form(shape)

    def _append_sharing(
        self, shape: LogShape, codec: Codec, payload: Sequence[bytes | pa.Buffer], rows: int, time_ms: int
    ) -> int:
        segment = self._current()
        parts = [header_over(codec, payload, rows, time_ms, time_ms), *payload]
        if self._shape is not shape:
            said = said_shape(shape)
            parts = [header_of(Codec.SHAPE, said), said, *parts]
        written = segment.append(parts)
        self._shape, self._schema = shape, None
        self._syncer.written(segment)
        return written

    def retire(self) -> None:
        """Leave the current segment to be synced and closed."""
        if self._segment is not None:
            self._segment.retired = True
            self._syncer.written(self._segment)
            self._segment = self._schema = self._shape = None

    def _current(self) -> SegmentFile:
        if self._segment is not None and self._due():
            self.retire()
        if self._segment is None:
            try:
                self._segment = SegmentFile(*create_segment(self._folder, self._topic, self._partition))
            except OSError as failure:
                raise refused(failure) from failure
            self._opened_at = self._clock()
            self._syncer.opened(self._segment)
        return self._segment

    def _due(self) -> bool:
        segment = self._segment
        return segment is not None and (
            segment.broken or segment.size >= self._roll_bytes or self._clock() - self._opened_at >= self._roll_age_s
        )


def _closed() -> Unavailable:
    return Unavailable("The inference log of this replica is closed.", "Send the request again.")


def _checked(payload: Sequence[bytes | pa.Buffer]) -> Sequence[bytes | pa.Buffer]:
    size = sum(map(len, payload))
    if size > MAX_PAYLOAD_BYTES:
        raise TooLarge(f"The log row group has {size} bytes.", f"Send at most {MAX_PAYLOAD_BYTES} at once.")
    return payload


def _time_column(schema: pa.Schema) -> int:
    """Where `time` is in a schema that the log can take."""
    at = int(schema.get_field_index(TIME_COLUMN))
    if at < 0 or schema.field(at).type != TIME_TYPE:
        found = f"of type {schema.field(at).type}" if at >= 0 else "missing or there twice"
        raise BadInput(f"Log column '{TIME_COLUMN}' is {found}.", f"Give it once, as {TIME_TYPE}.")
    for field in schema:
        if _unsupported(field.type):
            raise BadInput(f"Log column '{field.name}' has type {field.type}.", "Log its plain values instead.")
    if len({*schema.names, ROW_COLUMN}) != len(schema) + 1:
        raise BadInput("The log row has two columns of one name, or one named '_row'.", "Name each column once.")
    return at


def _unsupported(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or isinstance(kind, pa.BaseExtensionType):
        return True
    return any(_unsupported(kind.field(i).type) for i in range(kind.num_fields))


def _times(column: pa.Array[Any]) -> tuple[int, int]:
    """Earliest and latest epoch milliseconds of a `time` column of at least one row."""
    if column.null_count:
        raise BadInput(f"Log column '{TIME_COLUMN}' has {column.null_count} nulls.", "Give every row its time.")
    if len(column) == 1:
        value = column[0].value
        return value, value
    found = pc.min_max(column.view(pa.int64()))
    return int(found["min"].as_py()), int(found["max"].as_py())


class _Syncer:
    """Puts written segments on the disk from a thread of its own, and closes those that are done with.

    It alone closes descriptors, so that none is closed, and its number used again, under an fdatasync.
    """

    def __init__(self) -> None:
        self._segments: list[SegmentFile] = []
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def opened(self, segment: SegmentFile) -> None:
        self._segments.append(segment)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="inference-log-sync", daemon=True)
            self._thread.start()

    def written(self, segment: SegmentFile) -> None:
        segment.dirty = True  # before the look at the event: the thread looks at them the other way round
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Sync and close all segments; they must be retired."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._sync()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._stop.wait(SYNC_INTERVAL_S)  # gather what is written meanwhile
            self._wake.clear()
            self._sync()

    def _sync(self) -> None:
        for segment in list(self._segments):
            last_time = segment.retired  # read before the sync: nothing is written after it was set
            try:
                segment.sync()
            except OSError as failure:
                _log.error("inference log not synced: segment=%s errno=%s", segment.path, failure.errno)
            if last_time:
                self._segments.remove(segment)
                os.close(segment.fd)
