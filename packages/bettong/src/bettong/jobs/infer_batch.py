"""Batch inference from connection to connection: reading, asking and writing overlap, at constant memory."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from bettong.domain.batch_requests import BatchRequest, guarantee
from bettong.domain.drivers import Capability, ReadOrder, ReadRequest, WriteMode, WriteRequest
from bettong.drivers import sql
from bettong.drivers.arrow_forms import plain_reader
from bettong.errors import BettongError
from bettong.jobs.batch.asking import Asking
from bettong.jobs.batch.columns import ColumnPlan
from bettong.jobs.batch.ends import SINK, SOURCE, Ends, NamedSink
from bettong.jobs.batch.limit import Limit, outcome
from bettong.jobs.batch.pace import Pace
from bettong.jobs.batch.positions import Position
from bettong.jobs.batch.reading import pieces, skipped
from bettong.jobs.batch.rejects import RejectFiles
from bettong.jobs.batch.writing import Writer, check_target
from bettong.jobs.space import space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bettong.domain.batch_requests import Guarantee
    from bettong.domain.drivers import Readable, Transactional, Writable
    from bettong.jobs.batch.asking import Answered
    from bettong.jobs.work import Work

POSITION_EVERY_S = 1.0
_SPOOL = "source.arrow"


def infer_batch(work: Work) -> Mapping[str, Any]:
    """Read the source, ask the pipeline, write its answers; counts, seconds and what holds for them.

    Raises:
        BadInput: columns do not fit, before the first row; or more rows were rejected than may be, or all.
        Unavailable: source, target or pipeline is not there.
    """
    request = BatchRequest.from_document(work.request)
    needed = Capability.UPSERT if request.mode is WriteMode.UPSERT else Capability.WRITE
    ends = Ends(work.titles)
    with ExitStack() as stack:
        with ends.at(SOURCE):
            source = stack.enter_context(work.source(SOURCE, Capability.READ))
        with ends.at(SINK):
            sink = stack.enter_context(work.source(SINK, needed))
        return _Attempt(work, request, cast("Readable", source), cast("Writable", sink), ends).run()


class _Attempt:
    """One attempt over open ends."""

    def __init__(self, work: Work, request: BatchRequest, source: Readable, sink: Writable, ends: Ends) -> None:
        self._work, self._request, self._source, self._sink = work, request, source, sink
        self._ends = ends
        self._order = getattr(source, "read_order", ReadOrder.NONE)
        self._transactional = hasattr(sink, "write_batch")
        self._guarantee: Guarantee = guarantee(self._order, self._transactional, request.mode, request.keys)
        self._ordered = self._order is ReadOrder.KEYS and bool(request.keys)
        # An attempt that starts over is for its target another job: REPLACE empties the table once more.
        self._checkpoint = work.job_id if self._guarantee.goes_on else f"{work.job_id}/{work.attempt}"
        self._target = WriteRequest(request.table, request.mode, request.keys)
        self._began = self._reported = time.monotonic()
        self._total: int | None = None
        self._first = Position()

    def run(self) -> dict[str, Any]:
        work, request = self._work, self._request
        work.say(f"Guarantee: {self._guarantee.words}.")
        self._first = first = self._position()
        if work.attempt > 1:
            work.say(
                f"Attempt {work.attempt} " + (f"goes on behind row {first.rows}." if first.rows else "starts over.")
            )
        self._total = self._counted()
        with self._rows(first) as rows:
            plan = ColumnPlan(
                request, rows.schema, work.lineage, whole_keys=self._ordered or request.mode is WriteMode.UPSERT
            )
            if self._transactional:
                with self._ends.at(SINK):
                    check_target(cast("Transactional", self._sink), self._target, plan.target)
            files = RejectFiles(work.folder, plan.keys, work.most_bytes, work.say)
            rejected = files.drop_from(first.rows, null_keys=self._ordered, found=first.rejected)
            if self._ordered:  # rows with a null among their keys come again
                first = Position(first.written + rejected, first.written, rejected, first.keys)
            limit = Limit(request.max_rejects, self._total, first, files.first)
            writer = Writer(first, plan.keys, files.keep, limit, self._report)
            batches = self._ends.read(rows)
            if self._order is ReadOrder.STABLE:
                batches = skipped(batches, first.rows)
            pace = Pace(1) if request.columns.by_request else Pace()
            cut = pieces(
                (batch.select(plan.used) for batch in batches),
                lambda: pace.rows,
                request.keys if self._ordered else (),
                first.rows,
            )
            asking = Asking(work.infer, plan, pace, limit, work.lanes, lambda: work.cancelled)
            with asking.answers(cut) as answers:
                self._write(writer, self._in_turn(answers, writer, limit), plan.target)
        return self._ended(writer.position, files)

    def _write(self, writer: Writer, answers: Iterator[Answered], schema: pa.Schema) -> None:
        sink = cast("Transactional", NamedSink(self._sink, self._ends))
        if not self._transactional:
            writer.in_one(sink, self._target, answers, schema)
            return
        for answered in answers:
            writer.by_batch(sink, self._target, self._checkpoint, answered)
        if self._request.mode is WriteMode.REPLACE and not writer.position.written and not self._work.cancelled:
            sink.write(self._target, pa.RecordBatchReader.from_batches(schema, []))  # nothing takes the place of all

    def _in_turn(self, answers: Iterator[Answered], writer: Writer, limit: Limit) -> Iterator[Answered]:
        """Pieces to write, until the job is cancelled. The target takes the end of them only when it is a good one.

        Raises:
            BadInput: more rows were rejected than may be, or all.
        """
        while not self._work.cancelled and (answered := next(answers, None)) is not None:
            if answered.whole:
                yield answered
                continue
            if self._work.cancelled:  # of this piece nothing is kept: the next attempt begins with it
                return
            writer.given_up(answered)
            with suppress(BettongError):  # of the pieces that were under way there is nothing more to tell
                for left in answers:
                    writer.given_up(left)
        if not self._work.cancelled:
            limit.check(writer.position)

    def _position(self) -> Position:
        """Where this attempt begins. What the target keeps beside the rows counts more than what was last told."""
        if not self._guarantee.goes_on:
            return Position()
        if self._transactional:
            with self._ends.at(SINK):
                kept = cast("Transactional", self._sink).position(self._checkpoint)
        else:
            kept = self._work.position
        return Position.decode(kept) if kept else Position()

    @contextmanager
    def _rows(self, first: Position) -> Iterator[pa.RecordBatchReader]:
        """The rows of the source, those that are done with left out where it can do that."""
        request = self._request
        asked = ReadRequest(request.query, request.parameters)
        if self._ordered:
            asked = ReadRequest(request.query, request.parameters, order_by=request.keys, after=first.keys)
        with self._ends.at(SOURCE):
            rows = plain_reader(self._source.read(asked))
        file = getattr(self._source, "path", None)
        if file is None or file != getattr(self._sink, "path", None):
            yield rows
            return
        # One file that is read and written: it cannot be both at once.
        self._work.say("Source and target are one file: the rows are copied before they are asked about.")
        with space():
            spool = self._work.folder / _SPOOL
            copy, copied = pa.OSFile(str(spool), "wb"), pa.OSFile(str(spool), "rb")
            spool.unlink()  # both ends are open: it goes with this process, however that ends
        with copied:
            with space(), copy, pa.ipc.new_stream(copy, rows.schema) as writer:
                for batch in self._ends.read(rows):
                    writer.write_batch(batch)
            del rows
            with pa.ipc.open_stream(copied) as read:
                yield read

    def _counted(self) -> int | None:
        """How many rows there are, where that is asked in a word: of a table in a database."""
        named = sql.table_named(self._request.query)
        if named is None or self._order is not ReadOrder.KEYS or self._request.parameters:
            return None
        try:
            rows = self._source.read(ReadRequest(f"SELECT count(*) AS n FROM {self._request.query}"))
            return int(rows.read_all().column(0)[0].as_py())
        except BettongError:  # reading the table itself will tell
            return None

    def _report(self, position: Position, told: str) -> None:
        """Tell how far it is; where to go on from only now and then, since it is written down elsewhere, too."""
        now = time.monotonic()
        late = now - self._reported >= POSITION_EVERY_S
        if late:
            self._reported = now
        keeps = late and self._guarantee.goes_on and bool(told)
        self._work.report(self._progress(position), told if keeps else None)

    def _progress(self, position: Position) -> dict[str, Any]:
        took = max(1e-3, time.monotonic() - self._began)
        return {
            "rows_read": position.rows,
            "rows_written": position.written,
            "rows_rejected": position.rejected,
            "rows_total": self._total,
            "rows_per_s": round((position.rows - self._first.rows) / took),
        }

    def _ended(self, position: Position, files: RejectFiles) -> dict[str, Any]:
        progress = self._progress(position)
        self._work.report(progress)
        seconds = round(time.monotonic() - self._began, 3)
        stopped = self._work.cancelled
        told = outcome(position)
        self._work.say(f"{'Stopped' if stopped else 'Done'}: {told}")
        counts = {name: value for name, value in progress.items() if name != "rows_total"}
        return {
            "outcome": told,
            **counts,
            "reasons": files.reasons(),
            "seconds": seconds,
            "guarantee": self._guarantee.words,
            "attempts": self._work.attempt,
        }
