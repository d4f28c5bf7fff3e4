"""Stream inference: messages of a topic are answered by a pipeline, and the answers go to a topic or a table.

A round takes what is there, asks the pipeline, hands the answers on, and only then commits. Nothing more is taken
meanwhile: a topic waits as long as its answers do.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from bettong.domain.drivers import Capability, Measurable
from bettong.domain.stream_requests import StreamRequest
from bettong.engine.made_up import made_up_row
from bettong.errors import BadInput, BettongError, DeadlineExceeded, LoginRefused, ModelFailed, NotFound, Unavailable
from bettong.jobs.stream.asking import Asking
from bettong.jobs.stream.blame import divided
from bettong.jobs.stream.ends import DEAD_LETTER, SINK, SOURCE, Away, Ends, Waited
from bettong.jobs.stream.journal import Journal, Rate
from bettong.jobs.stream.outage import Outage
from bettong.jobs.stream.rejects import open_rejects
from bettong.jobs.stream.rows import MessageReader, Refused
from bettong.jobs.stream.sinks import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa

    from bettong.domain.drivers import Consumable, Message
    from bettong.jobs.stream.rejects import Rejects
    from bettong.jobs.stream.rows import Batch
    from bettong.jobs.stream.sinks import Sink
    from bettong.jobs.work import Work

LOOK_EVERY_S = 0.25  # at whether the job is to end, while waiting
LAG_EVERY_S = 5.0
POSITION_EVERY_S = 5.0
FIRST_PORTION = 100  # messages, until it is known how large they are
PORTION_BYTES = 16 * 2**20  # of messages that are in memory at once, with their rows and answers
NOTHING_FITS_AFTER = 100  # messages, of which the pipeline takes none: it is the wrong topic then
MOST_REFUSED_BY_SINK = 10  # one after the other: it is not the messages then
MOST_REASON_CHARS = 500  # of what is told of the last message that had no answer
MOST_FIELDS = 20  # that are told of a message


def infer_stream(work: Work) -> Mapping[str, Any]:
    """Answer a topic until the job is cancelled, or was idle for as long as its request says.

    Returns:
        What `stream.journal.Totals` has.

    Raises:
        BadInput: the ends do not fit the pipeline, too many messages were refused, or the sink takes none.
        NotFound: the topic is not there.
        LoginRefused: a broker or a database does not take the login, at first or for longer than `outage` waits.
        Unavailable: one, or the pipeline, is away for longer than that.
    """
    return Stream(work).run()


class Stream:
    """One attempt. Brokers that go away are opened anew; what was not committed comes again then."""

    def __init__(
        self,
        work: Work,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._work, self._clock, self._sleep = work, clock, sleep
        self._request = StreamRequest.from_document(work.request)
        columns = self._request.columns
        self._alone = columns.by_request or bool(columns.keys)
        self._reader = MessageReader(columns.takes, self._request.keep, columns.keys)
        self._journal, self._rate = Journal(work.folder), Rate()
        self._outage = Outage(was_there=self._journal.worked)
        self._ends = Ends(work.titles)
        self._waited: Waited | None = None
        self._tried_out = False
        self._lag: int | None = None
        self._lag_at_s = self._position_at_s = 0.0
        self._idle_since_s = clock()
        self._told = self._journal.totals.messages_in
        self._refused_by_sink = 0
        self._portion = min(self._request.max_messages, FIRST_PORTION)

    def run(self) -> Mapping[str, Any]:
        request, work = self._request, self._work
        work.say(f"Answers topic '{request.source.topic}' as group '{request.group}', {request.guarantee}.")
        if unsure := self._journal.unsure:
            work.say(
                f"{unsure} answers were on their way when the last attempt ended; those that are sent again say so."
            )
        with closing(self._journal), Asking(work) as asking:
            while not work.cancelled:
                try:
                    if not self._tried_out:
                        self._try_out(asking)
                    with ExitStack() as stack:
                        self._serve(asking, stack)
                    break
                except Away as away:
                    if work.cancelled:
                        break
                    self._wait_for(away)
                except Unavailable as why:
                    if work.cancelled:
                        break
                    self._wait_for(Away.unnamed(why))
        self._report()
        totals = self._journal.totals
        work.say(f"{totals.messages_in} messages, {totals.predictions_out} answered.")
        return asdict(totals)

    # --- one opening of the brokers ---------------------------------------------------------------------------------

    def _serve(self, asking: Asking, stack: ExitStack) -> None:
        """Round after round, until the job is to end."""
        request, work = self._request, self._work
        with self._ends.at(SINK):
            sink = open_sink(work, request, stack)
        with self._at_rejects():
            rejects = open_rejects(work, request, self._journal.totals.rejected, stack)
        with self._ends.at(SOURCE):
            source = cast("Consumable", stack.enter_context(work.source("source", Capability.CONSUME)))
        while not work.cancelled:
            with self._ends.at(SOURCE):
                messages = source.consume(
                    request.source.topic, request.group, max_messages=self._portion, wait_s=request.wait_s
                )
            self._outage = self._outage.on_opening()
            self._journal.works()
            if messages:
                self._round(list(messages), source, sink, rejects, asking)
                self._portion = _portion(messages, request.max_messages)
                self._idle_since_s = self._clock()
            self._back()
            self._look_at_lag(source)
            self._report()
            if not messages and self._idle_for_long():
                work.say(f"No message came for {request.stop_when_idle_s:g} s, as long as was asked for.")
                return

    def _round(self, messages: list[Message], source: Consumable, sink: Sink, rejects: Rejects, asking: Asking) -> None:
        """Messages taken, answered, handed on and committed. None is committed before, whatever this raises."""
        recent = [message for message in messages if message.new]  # not every broker has positions that are used once
        sink.committed(recent)
        self._journal.committed(recent)
        new = [message for message in messages if not sink.has(message) and not self._journal.has(message)]
        batches, refused = self._read(new)
        self._tell_of_lacking(batches)
        repeated: set[str] | None = None
        out = rows = 0
        for part, answer in asking.about(batches):
            if isinstance(answer, str):
                refused.append(Refused(part.taken[0].message, answer))
                continue
            if repeated is None:
                repeated = set() if sink.certain else self._journal.begin(new)
            for put, fault in self._hand_on(sink, part, answer, repeated):
                if fault is not None:
                    refused.append(Refused(put.taken[0].message, fault))
                    continue
                self._journal.arrived(taken.message for taken in put.taken)
                out, rows = out + len(put.taken), rows + put.rows.num_rows
        if refused:
            with self._at_rejects():
                rejects.put(refused)
            self._journal.last_reason = refused[-1].reason[:MOST_REASON_CHARS]
            self._journal.arrived(each.message for each in refused)
        totals = self._journal.totals.plus(
            messages_in=len(messages),
            predictions_out=out,
            answered_before=len(messages) - len(new),
            rows=rows,
            repeated=sum(message.unsure for message in new) if sink.certain else 0,  # else `begin` counted them
            **{"rejected" if self._request.dead_letter is None else "dead_lettered": len(refused)},
        )
        self._journal.keep(totals)
        with self._ends.at(SOURCE):
            source.commit(messages)
        sink.committed(messages)
        self._journal.committed(messages)
        if refused and not totals.predictions_out and totals.messages_in >= NOTHING_FITS_AFTER:
            self._nothing_fits(refused[-1], totals.messages_in)

    def _read(self, messages: Sequence[Message]) -> tuple[list[Batch], list[Refused]]:
        """What can be asked, as it may be asked together, and what cannot."""
        if not self._alone:
            batch, refused = self._reader.read(messages)
            return [batch] if batch.taken else [], refused
        read = [self._reader.read([message]) for message in messages]
        return [batch for batch, _ in read if batch.taken], [each for _, refused in read for each in refused]

    def _hand_on(
        self, sink: Sink, part: Batch, answer: pa.Table, repeated: set[str]
    ) -> Iterator[tuple[Batch, str | None]]:
        """Give answers to the sink; for a message whose answer it does not take, alone, why."""

        def put(some: Batch) -> None:
            first = part.taken.index(some.taken[0])
            at = sum(taken.rows for taken in part.taken[:first])
            try:
                sink.put(some, answer.slice(at, some.rows.num_rows), repeated)
            except DeadlineExceeded:
                raise  # a message may be at fault, as it may with what is refused
            except (LoginRefused, Unavailable) as why:
                raise self._ends.away(SINK, why) from None
            except NotFound as fault:
                raise self._ends.told(SINK, fault) from None
            except BadInput:
                # Some brokers have taken a part of what they refuse as a whole.
                if not sink.certain and len(some.taken) > 1:
                    repeated.update(self._journal.begin([taken.message for taken in some.taken]))
                raise

        for some, fault in divided(part, put):
            if fault is None:
                self._refused_by_sink = 0
                yield some, None
            else:
                yield some, self._by_sink(fault)

    def _by_sink(self, fault: BettongError) -> str:
        self._refused_by_sink += 1
        if self._refused_by_sink > MOST_REFUSED_BY_SINK:
            raise BadInput(
                f"The sink refused {self._refused_by_sink} answers one after the other, the last for this reason: "
                f"{fault.problem}",
                fault.next_step,
            )
        return f"The sink does not take the answer. {fault}"

    def _at_rejects(self) -> AbstractContextManager[None]:
        return nullcontext() if self._request.dead_letter is None else self._ends.at(DEAD_LETTER)

    def _tell_of_lacking(self, batches: Sequence[Batch]) -> None:
        """Say once which fields are to be kept and are in no message: a typo, mostly."""
        if not batches or not self._reader.lacking:
            return
        lacking = ", ".join(f"'{name}'" for name in self._request.keep if name in self._reader.lacking)
        has = ", ".join(self._reader.fields[:MOST_FIELDS])
        self._work.say(f"keep names {lacking}, which no message so far has: null in the predictions. One has: {has}.")
        self._reader.lacking.clear()

    def _nothing_fits(self, last: Refused, count: int) -> None:
        raise BadInput(
            f"The pipeline could answer none of the first {count} messages of '{self._request.source.topic}', "
            f"the last for this reason: {last.reason}",
            f"It takes: {', '.join(f'{field.name} ({field.type})' for field in self._request.columns.takes)}. "
            "Name another topic, or deploy a pipeline that takes what is there.",
        )

    # --- around the rounds ------------------------------------------------------------------------------------------

    def _try_out(self, asking: Asking) -> None:
        """Ask about a row that nobody sent. A pipeline that answers it is well as long as it does so."""
        row = made_up_row(self._request.columns.takes)
        self._tried_out = True
        if self._answers(row):
            asking.healthy = lambda: self._answers(row)

    def _answers(self, row: pa.Table) -> bool:
        try:
            self._work.infer(row)
        except (BadInput, ModelFailed):
            return False
        return True

    def _wait_for(self, away: Away) -> None:
        """Wait before the next try, which is made with the details that the Connections have by then. Raises why it is
        away when there was enough of it: at once, where nobody has ever been let in."""
        if away.refused and not self._outage.was_there:
            raise away.why
        self._outage, pause_s = self._outage.on_failure(self._clock())
        if pause_s is None:
            raise _given_up(away, self._outage.longest_s)
        if self._waited is None or (self._waited.what, self._waited.refused) != (away.what, away.refused):
            since = self._waited.since if self._waited else datetime.now(UTC).isoformat(timespec="seconds")
            self._waited = Waited(away.what, away.refused, since)
            rotate = " Rotate the Connection if its password was changed: the stream goes on by itself."
            longest = f"{self._outage.longest_s / 60:g} min"
            self._work.say(f"Waiting, up to {longest}: {away.why.problem}{rotate if away.refused else ''}")
        self._lag, self._lag_at_s = None, self._clock()
        self._report()
        until = self._clock() + pause_s
        while not self._work.cancelled and (left := until - self._clock()) > 0:
            self._sleep(min(left, LOOK_EVERY_S))
        if away.of_end and not self._work.cancelled:
            self._work.renew()

    def _back(self) -> None:
        if self._outage.since_s is not None:
            self._work.say(f"Going on after {self._clock() - self._outage.since_s:.0f} s.")
        self._outage, self._waited = self._outage.on_success(), None

    def _idle_for_long(self) -> bool:
        longest = self._request.stop_when_idle_s
        return longest is not None and self._clock() - self._idle_since_s >= longest

    def _look_at_lag(self, source: Consumable) -> None:
        """Not every broker tells how much waits in a topic, nor does every login hear it: no job fails for that."""
        if not isinstance(source, Measurable) or self._clock() < self._lag_at_s:
            return
        self._lag = None
        with suppress(BettongError):  # whoever consumes next is told what is wrong
            self._lag = source.lag(self._request.source.topic, self._request.group)
        self._lag_at_s = self._clock() + LAG_EVERY_S

    def _report(self) -> None:
        """Say how far it is. Only what carries a position tells the server that this attempt got further."""
        totals, now_s, position = self._journal.totals, self._clock(), None
        if totals.messages_in > self._told and now_s >= self._position_at_s:
            position, self._told = f"{totals.messages_in} messages", totals.messages_in
            self._position_at_s = now_s + POSITION_EVERY_S
        rate = self._rate.at(now_s, totals.messages_in)
        told = {
            "rows_read": totals.messages_in,  # the names that all kinds of jobs have
            "rows_written": totals.predictions_out,
            "rows_rejected": totals.dead_lettered + totals.rejected,
            **asdict(totals),
            "messages_per_second": rate,
            "lag": self._lag,
            "dead_letter": self._request.dead_letter and self._request.dead_letter.topic,
            "last_reason": self._journal.last_reason or None,
            "waiting_for": self._waited and self._waited.document(),
        }
        self._work.report(told, position)


def _given_up(away: Away, after_s: float) -> BettongError:
    if not away.refused:
        return away.why
    return LoginRefused(
        f"{away.why.problem} It was waited for, for {after_s / 60:g} min.",
        "Rotate the Connection, then start the stream again: it goes on where it stopped.",
    )


def _portion(messages: Sequence[Message], most: int) -> int:
    """How many messages to take next when they are as large as these."""
    each = sum(len(message.value) for message in messages) / len(messages)
    return max(1, min(most, int(PORTION_BYTES / max(each, 1.0))))
