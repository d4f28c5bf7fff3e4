"""Where the predictions of a stream go: a topic, at least once, or a table together with what was answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol, cast

from bettong.domain.drivers import Browsable, Capability, ReadRequest, WriteMode, WriteRequest
from bettong.domain.stream_requests import KEY, SOURCE, TableEnd, table_columns
from bettong.errors import BadInput, NotFound
from bettong.jobs.stream.answers import predictions, table_rows, with_own_headers
from bettong.jobs.stream.journal import digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from contextlib import ExitStack

    import pyarrow as pa

    from bettong.domain.drivers import Message, Producible, Readable, Source, Transactional
    from bettong.domain.stream_requests import StreamRequest
    from bettong.jobs.stream.rows import Batch
    from bettong.jobs.work import Work

_MOST_REMEMBERED = 2_000


class Sink(Protocol):
    """`certain` says whether it knows itself what was answered, whatever happened meanwhile."""

    certain: bool

    def has(self, message: Message) -> bool:
        """Whether the answer to a message that came before is there for certain."""

    def put(self, batch: Batch, answer: pa.Table, repeated: Collection[str]) -> None:
        """The answers are there when this returns.

        Raises:
            BadInput: the sink does not take them.
            Unavailable: it is not there. Some of the answers may be.
        """

    def committed(self, messages: Iterable[Message]) -> None:
        """These will not come again."""


def open_sink(work: Work, request: StreamRequest, stack: ExitStack) -> Sink:
    """The sink of a request, open as long as `stack`.

    Raises:
        BadInput: the connection or the table cannot take what is going to come.
        Unavailable: the source does not answer.
    """
    if isinstance(request.sink, TableEnd):
        table = stack.enter_context(work.source("sink", Capability.TRANSACTION))
        return TableSink(cast("Transactional", table), work.job_id, request.sink, request)
    broker = stack.enter_context(work.source("sink", Capability.PRODUCE))
    tell_of_missing(work, broker, request.sink.topic, "sink's")
    return TopicSink(cast("Producible", broker), request.sink.topic, work.lineage)


def tell_of_missing(work: Work, broker: Source, topic: str, whose: str) -> None:
    """Say before the first message that a topic is not there. Some brokers make it then, and others refuse it."""
    if not isinstance(broker, Browsable):
        return
    try:
        broker.browse(topic)
    except NotFound:
        work.say(f"The {whose} topic '{topic}' is not there yet: not every broker makes it with the first message.")
    except BadInput:
        return  # this login may write there, and not look


class TopicSink:
    """Predictions as messages."""

    certain = False

    def __init__(self, broker: Producible, topic: str, lineage: Mapping[str, str]) -> None:
        self._broker, self._topic, self._lineage = broker, topic, lineage

    def has(self, message: Message) -> bool:
        return False

    def put(self, batch: Batch, answer: pa.Table, repeated: Collection[str]) -> None:
        made = predictions(batch, answer, self._lineage, repeated)
        try:
            self._broker.produce(self._topic, made)
        except BadInput:  # not every broker takes every header of another one
            if len(made) > 1 or not batch.taken[0].message.headers:
                raise
            self._broker.produce(self._topic, [with_own_headers(made[0])])

    def committed(self, messages: Iterable[Message]) -> None:
        """A topic remembers nothing."""


class TableSink:
    """Predictions as rows. The checkpoint beside them holds a digest of every message that was answered and may
    come again: none is answered twice, in whatever order the broker gives them anew."""

    certain = True

    def __init__(self, database: Transactional, job_id: str, end: TableEnd, request: StreamRequest) -> None:
        """Raises BadInput: the table lacks a column of what is going to come."""
        self._database, self._job_id, self._keep = database, job_id, request.keep
        upsert = end.mode is WriteMode.UPSERT
        self._request = WriteRequest(end.table, end.mode, (SOURCE,) if upsert else ())
        # A table that is made here has the pipeline's own types for columns of its own that are kept.
        self._of_pipeline = {field.name: field.type for field in request.columns.takes}
        self._kinds = self._look()
        if self._kinds:
            self._check(table_columns(request.columns.gives.names).values())
        kept = database.position(job_id)
        self._answered: dict[str, None] = dict.fromkeys(json.loads(kept) if kept else ())

    def has(self, message: Message) -> bool:
        return digest(message) in self._answered

    def put(self, batch: Batch, answer: pa.Table, repeated: Collection[str]) -> None:
        kinds = self._kinds or self._of_pipeline
        rows = table_rows(batch, answer, kinds, self._keep, with_key=not self._kinds or KEY in self._kinds)
        rows = rows.combine_chunks()
        new = {digest(taken.message): None for taken in batch.taken}
        remembered = [*self._answered, *new][-_MOST_REMEMBERED:]
        self._database.write_batch(self._request, rows.to_batches()[0], self._job_id, json.dumps(remembered))
        self._answered |= new
        if not self._kinds:
            self._kinds = self._look()

    def committed(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self._answered.pop(digest(message), None)

    def _look(self) -> dict[str, pa.DataType]:
        """The columns of the table with their types; none when it is not there yet."""
        try:
            with cast("Readable", self._database).read(ReadRequest(self._request.table, limit=0)) as nothing:
                return {field.name: field.type for field in nothing.schema}
        except NotFound:
            return {}

    def _check(self, outputs: Iterable[str]) -> None:
        lacking = [name for name in (*self._keep, *outputs, SOURCE) if name not in self._kinds]
        if lacking:
            raise BadInput(
                f"Table '{self._request.table}' has no column {', '.join(repr(name) for name in lacking)}.",
                f"Its columns are: {', '.join(self._kinds)}. Add those that are missing ({KEY} is up to you), "
                "or name a table that is not there yet.",
            )
