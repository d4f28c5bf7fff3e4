"""What a kind of job gets in its process: connections to open, a deployment to ask, and a line to the server."""

from __future__ import annotations

import math
import select
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong.drivers import frames
from bettong.drivers.handing_over import opening_of
from bettong.errors import BadInput
from bettong.jobs.private_host import Address, PrivateHost

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pyarrow as pa

    from bettong.domain.drivers import Capability, Source
    from bettong.domain.ports import LogReader
    from bettong.drivers.frames import Line
    from bettong.drivers.opening import Opening

REPORT_EVERY_S = 0.5
RENEW_TIMEOUT_S = 30.0


class ChildWork:
    """Implements `Work`. `told` is what the server said of the job."""

    def __init__(self, line: Line, told: Mapping[str, Any]) -> None:
        self.job_id: str = told["job_id"]
        self.request: Mapping[str, Any] = told["request"]
        self.position: str | None = told["position"]
        self.attempt: int = told["attempt"]
        self.folder = Path(told["folder"])
        self.most_bytes: int = told["most_bytes"]
        self.lineage: Mapping[str, str] = told["lineage"]
        self.lanes: int = told["lanes"]
        self.stopped = False  # whether the kind was told that it is to stop
        self.titles: Mapping[str, str] = told["titles"]
        self._ends: Mapping[str, Any] = told["connections"]
        self._openings = {role: opening_of(end) for role, end in self._ends.items()}
        self._former: list[Opening] = []  # whose secrets may still stand in a text
        self._renewed = threading.Event()
        self._host = PrivateHost(Address(**told["host"]), self._pause)
        self._log_folder = Path(told["log_folder"])
        self._line, self._turn = line, threading.Lock()
        self._cancel = threading.Event()
        self._progress: dict[str, Any] | None = None  # what the server has not heard yet
        self._next_s = 0.0
        self._beat_every_s: float = told["beat_every_s"]

    @property
    def cancelled(self) -> bool:
        if self._cancel.is_set():
            self.stopped = True
        return self.stopped

    @contextmanager
    def source(self, role: str, needed: Capability) -> Iterator[Source]:
        if role not in self._openings:
            raise BadInput(f"The job's request names no {role}.", "Make the job anew with one.")
        with self._openings[role].source(needed) as source:
            yield source

    def renew(self) -> None:
        self._renewed.clear()
        with self._turn:
            self._line.say({"renew": True})
        until = time.monotonic() + RENEW_TIMEOUT_S
        while not self._renewed.wait(REPORT_EVERY_S) and not self.cancelled and time.monotonic() < until:
            pass

    def infer(self, rows: pa.Table) -> pa.Table:
        return self._host.infer(rows)

    def logs(self) -> LogReader:
        from bettong.logstore.reader import SegmentLogReader

        return SegmentLogReader(self._log_folder)

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        with self._turn:
            self._progress = plain(progress)
            if position is not None or time.monotonic() >= self._next_s:
                self._send_progress(position)

    def say(self, line: str) -> None:
        with self._turn:
            self._line.say({"line": self.clean(line)})

    # --- for the process ---

    def listen(self) -> None:
        """Hear the server until it is gone; meanwhile, hand on progress that was held back, and say now and then that
        this process lives, whatever its work is busy with. For a thread of its own."""
        poll = select.poll()
        poll.register(self._line.incoming, select.POLLIN)
        beat_s = 0.0
        try:
            while True:
                if time.monotonic() >= beat_s:
                    beat_s = time.monotonic() + self._beat_every_s
                    self._beat()
                if poll.poll(min(REPORT_EVERY_S, self._beat_every_s) * 1000):
                    _, body = self._line.receive()
                    self._hear(frames.words(body))
                self._flush()
        except frames.Ended:
            self._cancel.set()  # the server is gone: so is this process, in a moment

    def end(self, words: dict[str, Any]) -> None:
        """The last words, after all progress."""
        self._host.close()
        with self._turn:
            if self._progress is not None:
                self._send_progress(None)
            self._line.say(words)

    def clean(self, text: str) -> str:
        """The text without a secret of any of the connections."""
        for opening in (*self._openings.values(), *self._former):
            text = opening.clean(text)
        return text

    def _hear(self, words: dict[str, Any]) -> None:
        if "host" in words:
            self._host.moved(Address(**words["host"]))
        if "connections" in words:
            self._have(words["connections"])
        if "cancel" in words:
            self._cancel.set()

    def _have(self, ends: Mapping[str, Any]) -> None:
        if ends != self._ends:
            self._former += self._openings.values()
            self._ends, self._openings = ends, {role: opening_of(end) for role, end in ends.items()}
        self._renewed.set()

    def _pause(self, seconds: float) -> bool:
        if self._cancel.wait(seconds):
            self.stopped = True
        return self.stopped

    def _beat(self) -> None:
        with self._turn:
            self._line.say({"beat": True})

    def _flush(self) -> None:
        with self._turn:
            if self._progress is not None and time.monotonic() >= self._next_s:
                self._send_progress(None)

    def _send_progress(self, position: str | None) -> None:
        told = self._progress or {}
        words = {"progress": {k: self.clean(v) if isinstance(v, str) else v for k, v in told.items()}}
        self._progress, self._next_s = None, time.monotonic() + REPORT_EVERY_S
        self._line.say(words if position is None else {**words, "position": position})


def plain(value: Any) -> Any:
    """As JSON keeps it: numbers of numpy as numbers, what is no finite number as null, all else as its text."""
    if hasattr(value, "items"):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
