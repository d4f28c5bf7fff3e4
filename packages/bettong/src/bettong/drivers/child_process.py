"""The server's end of a driver's process: started, told one call, heard to its end, and ended for certain."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.drivers import Stage, StageResult
from bettong.drivers import frames
from bettong.drivers.arrow_forms import bounded
from bettong.drivers.layers import after, silent
from bettong.drivers.piped import PipedProcess, error_of
from bettong.errors import BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("bettong.drivers")

HANDED_ON_ROWS = 65_536


class ChildProcess(PipedProcess):
    """One running process and the pipes to it. It waits until `begin` tells it what its one call is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. Raises Unavailable when the system does not let us."""
        super().__init__("bettong.drivers._child", environment)
        self._kind, self._timeout_s = "", 0.0

    def expect(self, driver: str) -> None:
        """Have it import meanwhile what a call of the driver `module:Class` needs. At most once, before `begin`."""
        with suppress(frames.Ended):  # whoever takes it sees that it is dead
            self.line.say({"expect": driver})

    def begin(self, kind: str, words: dict[str, Any], timeout_s: float) -> None:
        """Tell it its call. Each further step may take `timeout_s`."""
        self._kind, self._timeout_s = kind, timeout_s
        with self._patience():
            self.line.say(words, time.monotonic() + timeout_s)

    def stages(self) -> Iterator[StageResult]:
        """The layers as they come. The one that takes longer than there is time fails."""
        until = time.monotonic() + self._timeout_s
        seen: list[StageResult] = []
        while True:
            try:
                said = self.answer(until)
            except DeadlineExceeded:
                yield silent(after(seen) or Stage.SAMPLE, self._kind, self._timeout_s)
                return
            if "stage" not in said:
                return
            stage, ok, took_ms, text, next_step = said["stage"]
            seen.append(StageResult(Stage(stage), ok, took_ms, text, next_step))
            yield seen[-1]

    def answer(self, until: float | None = None) -> dict[str, Any]:
        """The next words. Raises what they tell of, DeadlineExceeded, or Unavailable when the process died."""
        kind, body = self._receive(until)
        if kind != frames.WORDS:
            raise self._died()
        return self._heard(body)

    def schema(self) -> pa.Schema:
        kind, body = self._receive()
        if kind == frames.WORDS:
            self._heard(body)
        if kind != frames.SCHEMA:
            raise self._died()
        return pa.ipc.read_schema(body)

    def batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        while True:
            kind, body = self._receive()
            if kind == frames.ROWS:
                yield pa.ipc.read_record_batch(body, schema)
            elif kind == frames.WORDS:
                self._heard(body)
            elif kind == frames.END:
                return
            else:
                raise self._died()

    def hand_on(self, rows: pa.RecordBatchReader) -> None:
        """Send every batch. An error in `rows` leaves the process without the end of them, so nothing is kept."""
        self._send(lambda until: self.line.send_schema(rows.schema, until))
        for batch in bounded(rows, HANDED_ON_ROWS):
            if not self._send(lambda until, batch=batch: self.line.send_batch(batch, until, listen=True)):
                return
        self._send(lambda until: self.line.send(frames.END, b"", until, listen=True))

    def _send(self, send: Any) -> bool:
        """Whether it was taken. If not, the process has words to tell why."""
        with self._patience():
            try:
                send(time.monotonic() + self._timeout_s)
            except frames.Interrupted:
                return False
        return True

    def _receive(self, until: float | None = None) -> tuple[bytes, pa.Buffer]:
        with self._patience():
            return self.line.receive(time.monotonic() + self._timeout_s if until is None else until)

    @contextmanager
    def _patience(self) -> Iterator[None]:
        failed: BettongError
        try:
            yield
            return
        except TimeoutError:
            failed = DeadlineExceeded(
                f"The {self._kind} connection did not answer within {self._timeout_s:g} s.",
                "Test it to see which layer is slow, or allow more time.",
            )
        except frames.Ended:
            failed = self._died()
        raise failed

    def _heard(self, body: pa.Buffer) -> dict[str, Any]:
        said = frames.words(body)
        if "failed" in said:
            code, problem, next_step = said["failed"]
            raise error_of(code)(problem, next_step)
        return said

    def _died(self) -> Unavailable:
        how = self.kill()
        log.warning("driver process died kind=%s %s", self._kind, how)
        return Unavailable(f"The process that used the {self._kind} connection ended {how}.", "Try again.")
