"""Messages that cannot be answered: to a dead-letter topic, or kept with the job for people to look at."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, Self, cast

import pyarrow as pa

from bettong.domain.drivers import Capability, Message
from bettong.errors import BadInput, TooLarge
from bettong.jobs.space import Share, space, taken_by
from bettong.jobs.stream.answers import ERROR, OF_JOB, OF_SOURCE, OF_VERSION
from bettong.jobs.stream.sinks import tell_of_missing
from bettong.jobs.work import REJECTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import ExitStack

    from bettong.domain.drivers import Producible
    from bettong.domain.stream_requests import StreamRequest
    from bettong.jobs.stream.rows import Refused
    from bettong.jobs.work import Work

_MAX_HEADER_CHARS = 1_000
_COLUMNS: dict[str, pa.DataType] = {
    "source": pa.string(),
    "key": pa.binary(),
    "headers": pa.map_(pa.string(), pa.string()),
    "value": pa.binary(),
    "error": pa.string(),
}
_SCHEMA = pa.schema(_COLUMNS)


class Rejects(Protocol):
    def put(self, refused: Sequence[Refused]) -> None:
        """They are kept when this returns.

        Raises:
            BadInput: no more are kept. TooLarge, when they take too many bytes.
            Unavailable: the broker is not there.
        """


def open_rejects(work: Work, request: StreamRequest, kept: int, stack: ExitStack) -> Rejects:
    """Where messages go that cannot be answered, open as long as `stack`; the job has kept `kept` of them already."""
    if request.dead_letter is None:
        return stack.enter_context(KeptRejects(work, request.max_rejects, kept))
    broker = stack.enter_context(work.source("dead_letter", Capability.PRODUCE))
    tell_of_missing(work, broker, request.dead_letter.topic, "dead letters'")
    return DeadLetters(cast("Producible", broker), request.dead_letter.topic, work.lineage)


class DeadLetters:
    """Messages go on as they came, with the reason and where they come from in headers."""

    def __init__(self, broker: Producible, topic: str, lineage: Mapping[str, str]) -> None:
        self._broker, self._topic, self._lineage = broker, topic, lineage

    def put(self, refused: Sequence[Refused]) -> None:
        try:
            self._broker.produce(self._topic, [self._letter(each, each.message.headers) for each in refused])
        except BadInput:  # not every broker takes every header of another one
            self._broker.produce(self._topic, [self._letter(each, {}) for each in refused])

    def _letter(self, refused: Refused, headers: Mapping[str, str]) -> Message:
        message = refused.message
        headers = {
            **headers,
            OF_JOB: self._lineage["job_id"],
            OF_SOURCE: message.position,
            OF_VERSION: self._lineage["pipeline_version"],
            # a line: not every broker takes more in a header
            ERROR: " ".join(refused.reason.split())[:_MAX_HEADER_CHARS],
        }
        return Message(message.value, message.key, "", headers)


class KeptRejects:
    """An Arrow stream in the job's folder, one for each time that something is kept after a start."""

    def __init__(self, work: Work, limit: int, kept: int) -> None:
        self._work, self._limit, self._kept = work, limit, kept
        self._share = Share(work.most_bytes, taken_by(work.folder.glob(f"{REJECTS}-*.arrow")))
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._file: pa.NativeFile | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None and self._file is not None:
            with suppress(OSError):
                self._writer.close()
            self._file.close()

    def put(self, refused: Sequence[Refused]) -> None:
        room = self._limit - self._kept
        if len(refused) > room:
            reason = refused[max(room, 0)].reason
            raise BadInput(
                f"More than {self._limit} messages could not be answered, the last for this reason: {reason}",
                "Look at the job's rejects. Name a dead-letter topic for them, or raise max_rejects.",
            )
        rows = _rows(refused)
        if not self._share.has(rows.nbytes):  # unlike rows of a table, they may be gone from the topic tomorrow
            raise TooLarge(
                f"Messages that could not be answered take {self._share}, and a stream may leave no more on this "
                f"platform. The last one, for this reason: {refused[-1].reason}",
                "Look at the job's rejects. Name a dead-letter topic for them, or have BETTONG_JOB_BYTES raised.",
            )
        with space():
            if self._writer is None:
                self._file, self._writer = self._open()
            self._writer.write_batch(rows)
        self._share.taken += rows.nbytes
        self._kept += len(refused)

    def _open(self) -> tuple[pa.NativeFile, pa.ipc.RecordBatchStreamWriter]:
        self._work.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        number = len(list(self._work.folder.glob(f"{REJECTS}-*.arrow")))
        file = pa.OSFile(str(self._work.folder / f"{REJECTS}-{number:06d}.arrow"), "wb")
        return file, pa.ipc.new_stream(file, _SCHEMA)


def _rows(refused: Sequence[Refused]) -> pa.RecordBatch:
    messages = [each.message for each in refused]
    columns = [
        pa.array([message.position for message in messages], pa.string()),
        pa.array([message.key for message in messages], pa.binary()),
        pa.array([list(message.headers.items()) for message in messages], _SCHEMA.field("headers").type),
        pa.array([message.value for message in messages], pa.binary()),
        pa.array([each.reason for each in refused], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
