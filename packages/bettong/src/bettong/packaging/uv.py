"""Runs uv and says in our words what went wrong."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from bettong.errors import BadInput, BettongError, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from bettong.packaging.interpreters import Interpreter

_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
_QUERY = re.compile(r"(?<=\?)[^\s`'\"<>)]*(?:token|key|password|signature|sig)[^\s`'\"<>)]*", re.IGNORECASE)
_NOT_FOUND = re.compile(
    r"(?:Because )?(?:there are no versions of )?(\S+) (?:was not found in the|which was not found)"
)
_MAX_SHOWN = 700
QUIET_S = 0.2  # how often a silent child is looked at

_KEPT = frozenset({"PATH", "HOME", "TMPDIR", "LANG", "NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR"})
_KEPT_LOWERED = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})
_KEPT_STARTS = ("LC_", "UV_INDEX", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX", "UV_FIND_LINKS", "UV_HTTP_", "UV_SYSTEM_CERTS")


class Failure(Enum):
    """Why uv did not install, as far as it decides what to try next."""

    UNKNOWN_PACKAGE = "unknown package"
    NO_SOLUTION = "no solution"
    NO_WHEEL = "no wheel for this Python"  # another interpreter, or building from source, may help
    NETWORK = "network"
    BUILD = "build"
    DISK = "disk"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run of uv came to; `lines` are its output, scrubbed."""

    code: int
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def failure(self) -> Failure:
        """Only for an outcome that is not ok."""
        text = "\n".join(self.lines)
        for failure, signs in _SIGNS:
            if any(sign in text for sign in signs):
                return failure
        return Failure.OTHER

    def error(self, interpreter: Interpreter) -> BettongError:
        """The error to tell: what was asked for, what uv found, what to do."""
        said = self._said()
        text = " ".join(self.lines)
        match self.failure:
            case Failure.UNKNOWN_PACKAGE:
                match = _NOT_FOUND.search(text)
                name = f"'{match[1]}'" if match else "one of the requirements"
                return BadInput(
                    f"The package index has no distribution {name}. {said}",
                    "Check its spelling in requirements.txt, or name the index that has it (--extra-index-url).",
                )
            case Failure.NO_SOLUTION:
                return BadInput(
                    f"The requirements cannot be installed together on Python {interpreter.version}. {said}",
                    "Loosen or correct one of the pins that it names.",
                )
            case Failure.NO_WHEEL:
                return BadInput(
                    f"A requirement has no wheel for any Python installed here (tried first: {interpreter.version}). "
                    f"{said}",
                    "Pin a version that has one, or say in .python-version which Python it needs.",
                )
            case Failure.NETWORK:
                return Unavailable(
                    f"The package index could not be reached. {said}",
                    "Check the network, the proxy and pip's index settings of the platform's machine; upload again.",
                )
            case Failure.BUILD:
                return BadInput(
                    f"A requirement has no wheel, and building it from source failed. {said}",
                    "Pin a version that has a wheel; the upload log has the whole build output.",
                )
            case Failure.DISK:
                return StorageFull(
                    "The disk is full while installing the requirements.", "Free space, then upload again."
                )
            case Failure.OTHER:
                return BadInput(
                    f"The requirements could not be installed. {said}", "The upload log has the whole output."
                )

    def _said(self) -> str:
        """uv's own sentence: the causes, without hints and progress."""
        causes: list[str] = []
        for line in self.lines:
            text = line.strip()
            if text.startswith(("error:", "cause:", "×", "╰─▶", "├─▶")):
                causes.append(text.split(" ", 1)[-1].strip())
            elif text.startswith("hint:") or not text:
                if len(causes) > 1:
                    break
            elif causes and line.startswith(" "):
                causes[-1] += f" {text}"
        said = " ".join(c if c.endswith(".") else f"{c}." for c in causes[1:] or causes)
        return said if len(said) <= _MAX_SHOWN else said[: _MAX_SHOWN - 3] + "..."


_SIGNS: tuple[tuple[Failure, tuple[str, ...]], ...] = (
    (Failure.DISK, ("No space left on device", "os error 28")),
    (Failure.BUILD, ("Failed to build", "The build backend returned an error", "failed to build")),
    (
        Failure.NETWORK,
        ("Request failed", "Failed to fetch", "client error (Connect)", "dns error", "network was disabled"),
    ),
    (Failure.UNKNOWN_PACKAGE, ("was not found in the package registry", "was not found in the provided package")),
    (
        Failure.NO_WHEEL,
        (
            "no usable wheels",
            "no wheels with a matching",
            "building from source is disabled",
            "Building source distributions",
            "current Python version",
        ),
    ),
    (Failure.NO_SOLUTION, ("No solution found",)),
)


class Uv:
    """The uv of the platform's own environment. `environment` are the variables of the server that may be handed on."""

    def __init__(self, program: Path, environment: Mapping[str, str], certificates: str = "") -> None:
        self.program = program
        self.variables = {
            k: v
            for k, v in environment.items()
            if k in _KEPT or k.lower() in _KEPT_LOWERED or k.startswith(_KEPT_STARTS)
        }
        if certificates:
            self.variables.setdefault("SSL_CERT_FILE", certificates)
        self.variables |= {"UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}

    def run(
        self, arguments: Sequence[str], *, cwd: Path, report: Callable[[str], None], keep_open: int, timeout_s: float
    ) -> Outcome:
        """Run `uv arguments`, its output reported line by line. The child holds the descriptor `keep_open` too."""
        command = [str(self.program), *arguments]
        return run_reported(command, self.variables, cwd=cwd, report=report, keep_open=keep_open, timeout_s=timeout_s)


def run_reported(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    cwd: Path,
    report: Callable[[str], None],
    timeout_s: float,
    keep_open: int | None = None,
    stdin: bytes = b"",
) -> Outcome:
    """Run a command in a process group of its own, its output reported line by line as it comes.

    Returns when the command has ended, also when something it started lives on and holds the output open.

    Raises:
        Unavailable: it took longer than `timeout_s`; its group is dead then.
    """
    lines: list[str] = []
    ends_at = time.monotonic() + timeout_s
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(variables),
        pass_fds=() if keep_open is None else (keep_open,),
        start_new_session=True,
    ) as child:
        assert child.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
                pipe.write(stdin)
            for raw in _output(child, ends_at):
                line = scrub(raw.decode("utf-8", "replace").rstrip())
                lines.append(line)
                if line and not line.startswith("Using Python "):  # names a folder of this machine, nothing more
                    report(line)
        except BaseException:
            if child.returncode is None:  # not reaped yet, so the number is still the child's
                os.killpg(child.pid, signal.SIGKILL)
            raise
    return Outcome(child.returncode, tuple(lines))


def _output(child: subprocess.Popen[bytes], ends_at: float) -> Iterator[bytes]:
    """The lines of a child's output until it closes it or has ended."""
    assert child.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if time.monotonic() > ends_at:
                raise Unavailable(
                    "Installing the requirements took too long and was stopped.",
                    "Upload again; if it stays slow, pin versions that have wheels.",
                )
            if selector.select(QUIET_S):
                if not (chunk := os.read(child.stdout.fileno(), 65536)):
                    break
                *whole, rest = (rest + chunk).split(b"\n")
                yield from whole
            elif child.poll() is not None:
                break
    if rest:
        yield rest


def scrub(line: str) -> str:
    """`line` without user names, passwords and tokens in its URLs."""
    return _QUERY.sub("****", _CREDENTIALS.sub("****@", line))
