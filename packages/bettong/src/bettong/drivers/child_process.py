"""The server's end of a driver's process: started, told one call, heard to its end, and ended for certain."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong import errors
from bettong.domain.drivers import Stage, StageResult
from bettong.drivers import frames
from bettong.drivers.arrow_forms import bounded
from bettong.drivers.layers import after
from bettong.errors import BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

log = logging.getLogger("bettong.drivers")

HANDED_ON_ROWS = 65_536


class ChildProcess:
    """One running process and the pipes to it. It waits until `begin` tells it what its one call is."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it. Raises Unavailable when the system does not let us."""
        self._kind, self._timeout_s = "", 0.0
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        child_life, self._life = os.pipe()
        theirs = (child_in, child_out, child_life)
        try:
            for descriptor in (self._out, self._in):
                frames.widen(descriptor)
            os.set_blocking(self._out, False)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", "bettong.drivers._child", *map(str, theirs)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=dict(environment),
                pass_fds=theirs,
                start_new_session=True,
            )
        except OSError as failed:
            self._close()
            raise Unavailable("No process could be started for the driver.", "Try again in a moment.") from failed
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self._line = frames.Line(self._in, self._out)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def begin(self, kind: str, words: dict[str, Any], timeout_s: float) -> None:
        """Tell it its call. Each further step may take `timeout_s`."""
        self._kind, self._timeout_s = kind, timeout_s
        with self._patience():
            self._line.say(words, time.monotonic() + timeout_s)

    def stages(self) -> Iterator[StageResult]:
        """The layers as they come. The one that takes longer than there is time fails."""
        until = time.monotonic() + self._timeout_s
        seen: list[StageResult] = []
        while True:
            try:
                said = self.answer(until)
            except DeadlineExceeded as late:
                yield StageResult(
                    after(seen) or Stage.SAMPLE, False, self._timeout_s * 1000, late.problem, late.next_step
                )
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
        self._send(lambda until: self._line.send_schema(rows.schema, until))
        for batch in bounded(rows, HANDED_ON_ROWS):
            if not self._send(lambda until, batch=batch: self._line.send_batch(batch, until, listen=True)):
                return
        self._send(lambda until: self._line.send(frames.END, b"", until, listen=True))

    def end(self) -> None:
        """Nothing of the process is left when this returns. The last call."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

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
            return self._line.receive(time.monotonic() + self._timeout_s if until is None else until)

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
            raise _by_code(code)(problem, next_step)
        return said

    def _died(self) -> Unavailable:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        how = f"by signal {-code}" if code < 0 else f"with status {code}"
        log.warning("driver process died kind=%s %s", self._kind, how)
        return Unavailable(f"The process that used the {self._kind} connection ended {how}.", "Try again.")

    def _close(self) -> None:
        for descriptor in (self._out, self._in, self._life):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _by_code(code: str) -> type[BettongError]:
    known = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BettongError)]
    return next((kind for kind in known if kind.code == code), Unavailable)
