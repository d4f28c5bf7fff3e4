"""SQL over logs: the rows are laid out as Parquet files for a sandboxed process that runs the query with DuckDB.

A part's files are linked into the query's own folder, so that they stay while it runs, whatever becomes of the part;
rows that are still in segments are written there. The process reads that folder and nothing else of the platform.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from bettong.errors import BadInput, TooLarge, Unavailable
from bettong.logstore import _sql_child
from bettong.logstore.compaction import write_part
from bettong.logstore.foot import PARQUET, check_foot
from bettong.logstore.index import SegmentIndex
from bettong.logstore.layout import PartEntry, SegmentEntry, current, list_topic

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from bettong.logstore.layout import Entry

ONLY_SELECT, EXAMPLE = _sql_child.ONLY_SELECT, _sql_child.EXAMPLE
FOLDER = ".queries"  # in the log folder, for links do not reach over file systems; no topic is called so
MAX_QUERY_CHARS = 100_000
MAX_LOGS = 10
AT_ONCE = 2
WAIT_S = 5.0  # for a query before it to end
MAX_ANSWER_BYTES = 2**16
SPILL_BYTES = 2 * 2**30
ADDRESS_BYTES = 4 * 2**30  # what the interpreter, DuckDB and Arrow reserve beside the query's memory
_ATTEMPTS = 10
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|(?P<text>'(?:[^']|'')*')|"(?:[^"]|"")*"|(?P<word>[A-Za-z_]\w*)|(?P<sign>\S)""", re.DOTALL
)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SqlLimits:
    """What one query may take. `open_bytes` of its logs may lie in segments, which are rewritten for it."""

    timeout_s: int = 30
    memory_bytes: int = 2**30
    rows: int = 1_000_000
    bytes: int = 256 * 2**20
    open_bytes: int = 2**30


@dataclass(frozen=True, slots=True)
class NamedLog:
    """A log as a query names it, and its topic."""

    name: str
    valid: bool
    topic: str


def logs_named(query: str) -> list[tuple[str, bool]]:
    """(name, valid) of each `logs('name')` in a query, both kinds where it says `valid`; comments and texts aside.

    It may find more than the query means, never less than it could run: the process that runs it looks once more.
    """
    found: dict[tuple[str, bool], None] = {}
    tokens = [m for m in _TOKEN.finditer(query) if m.lastgroup]
    for at, token in enumerate(tokens[:-2]):
        opening, name = tokens[at + 1], tokens[at + 2]
        if token["word"] and token["word"].lower() == "logs" and opening["sign"] == "(" and name["text"]:
            text = name["text"][1:-1].replace("''", "'")
            found[text, True] = None
            if at + 3 < len(tokens) and tokens[at + 3]["sign"] == ",":
                found[text, False] = None
    return list(found)


class LogSql:
    """Runs queries over the logs in a folder. Safe to use from several threads.

    Args:
        folder: the log folder.
        launcher: the file of bettong-mac that knows how to enter the sandbox.
    """

    def __init__(self, folder: Path, launcher: Path, limits: SqlLimits | None = None) -> None:
        self._folder, self._launcher = folder, launcher
        self._limits = limits or SqlLimits()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._sound: set[Path] = set()  # Parquet files whose feet were looked at
        shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of a server that was killed

    def run(self, query: str, logs: Sequence[NamedLog]) -> BinaryIO:
        """The result as an Arrow stream, in an open file that has no name any more: close it.

        Blocks; nothing of the query runs when it returns.

        Raises:
            BadInput: DuckDB is not installed, or it does not run the query; in words.
            TooLarge: the result, or the memory or time that it takes, is beyond a limit; which one.
            Unavailable: other queries are running, or too many rows wait for their compaction.
        """
        check_installed()
        if not self._room.acquire(timeout=WAIT_S):
            raise Unavailable(f"{AT_ONCE} other queries over logs are running.", "Send it again in a moment.")
        try:
            (self._folder / FOLDER).mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._folder / FOLDER) as temporary:
                folder = Path(temporary)
                files, work = folder / _sql_child.FILES, folder / _sql_child.WORK
                work.mkdir(mode=0o700)
                for passable in (folder, files):
                    _make_passable(passable)
                listed = [{"name": log.name, "valid": log.valid, "files": self._laid_out(log, files)} for log in logs]
                self._run(query, listed, folder)
                return (work / "result").open("rb")
        finally:
            self._room.release()

    # --- the rows

    def _laid_out(self, log: NamedLog, files: Path) -> list[str]:
        """Names, from `files` on, of Parquet files that hold the rows of a log as it is now."""
        for attempt in range(_ATTEMPTS):
            base = files / f"{log.topic}-{attempt}"
            _make_passable(base)
            try:
                self._lay_out(current(list_topic(self._folder / log.topic)), base)
            except FileNotFoundError:  # compacted or dropped by retention since it was listed
                shutil.rmtree(base)
                continue
            return sorted(str(file.relative_to(files)) for file in base.rglob("*.parquet"))
        raise Unavailable(f"The files of log topic '{log.topic}' keep changing.", "Try again in a moment.")

    def _lay_out(self, entries: Sequence[Entry], base: Path) -> None:
        segments = [entry for entry in entries if isinstance(entry, SegmentEntry)]
        if sum(entry.path.stat().st_size for entry in segments) > self._limits.open_bytes:
            raise Unavailable(
                f"More than {self._limits.open_bytes >> 20} MiB of the log are not compacted yet.",
                "Send the query again in a minute.",
            )
        for entry in entries:
            into = base / f"{entry.number:016d}"
            _make_passable(into)
            if isinstance(entry, PartEntry):
                for name in os.listdir(entry.path):
                    if name.endswith(PARQUET) and self._is_sound(entry.path / name):
                        os.link(entry.path / name, into / name)
            elif (snapshot := SegmentIndex(entry.path).snapshot()).rows:
                write_part(into, entry, snapshot, {})

    def _is_sound(self, file: Path) -> bool:
        """Whether a Parquet file can be opened; a damaged one would keep the query from all others."""
        if file in self._sound:
            return True
        try:
            check_foot(file)
            with pq.ParquetFile(file):
                pass
        except FileNotFoundError:
            raise
        except (OSError, ValueError, pa.ArrowException) as broken:
            _log.warning("inference log damaged: file=%s left out of a query (%s)", file, type(broken).__name__)
            return False
        self._sound.add(file)
        return True

    # --- the process

    def _run(self, query: str, logs: list[dict[str, Any]], folder: Path) -> None:
        limits = self._limits
        threads = min(2, os.cpu_count() or 1)
        order = {
            "launcher": str(self._launcher),
            "plan": {
                "environment": sys.prefix,
                "artifact": str(folder / _sql_child.FILES),
                "temporary": str(folder / _sql_child.WORK),
            },
            "folder": str(folder),
            "readable": _package_folders("duckdb", "pyarrow", "numpy"),
            "query": query,
            "logs": logs,
            "threads": threads,
            "memory_bytes": limits.memory_bytes,
            "spill_bytes": SPILL_BYTES,
            "most_rows": limits.rows,
            "most_bytes": limits.bytes,
            "most_cpu_s": (limits.timeout_s + 1) * threads,
            "most_file_bytes": SPILL_BYTES,
            "most_address_bytes": ADDRESS_BYTES + 2 * limits.memory_bytes,
        }
        answer, code = _in_child(order, limits.timeout_s)
        if code != 0:
            raise _death(code, limits)
        try:
            document = json.loads(answer)
        except ValueError:
            raise BadInput("The query ended without an answer.", "Simplify it, and send it again.") from None
        if "problem" in document:
            kind = TooLarge if document.get("kind") == "too_large" else BadInput
            raise kind(str(document["problem"]), str(document.get("next_step", "")))


def check_installed() -> None:
    """Raises BadInput when DuckDB is not there."""
    if importlib.util.find_spec("duckdb") is None:
        raise BadInput(
            "SQL over logs needs DuckDB, which is not installed beside the platform.",
            "Run in its environment: pip install 'bettong[sql]'",
        )


def _make_passable(folder: Path) -> None:
    """Make a folder, if need be, that the process may pass through as another user. The one around all of them is its
    owner's alone."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)


def _in_child(order: dict[str, Any], timeout_s: float) -> tuple[bytes, int]:
    """The child's answer, cut where it gets too long, and its exit code."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(_sql_child.__file__))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            "PATH": os.defpath,
            "HOME": order["plan"]["temporary"],
            "OMP_NUM_THREADS": "1",
            "ARROW_DEFAULT_MEMORY_POOL": "system",
        },
        start_new_session=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        timer = threading.Timer(timeout_s, _end, [child])
        timer.start()
        try:
            try:
                with child.stdin as pipe:
                    pipe.write(json.dumps(order).encode())
            except BrokenPipeError:
                pass  # it died before it read its order; its exit code says so
            answer = child.stdout.read(MAX_ANSWER_BYTES)
            if len(answer) == MAX_ANSWER_BYTES:
                _end(child)
            return answer, child.wait()
        finally:
            timer.cancel()
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is None:  # not reaped yet, so the number is still the child's
        os.killpg(child.pid, signal.SIGKILL)


def _death(code: int, limits: SqlLimits) -> BadInput:
    if -code in (signal.SIGKILL, signal.SIGXCPU):
        return TooLarge(
            f"The query took more than the {limits.timeout_s} s that it may run.",
            "Ask for a shorter time or fewer rows, or raise BETTONG_SQL_TIMEOUT_S.",
        )
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return BadInput(f"The query ended the process that ran it ({how}).", "Simplify it, and send it again.")


def _package_folders(*names: str) -> list[str]:
    """The folders that these packages are imported from. They are found, not imported."""
    specs = [importlib.util.find_spec(name) for name in names]
    return sorted({str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin})
