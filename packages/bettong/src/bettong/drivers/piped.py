"""A process of ours with a pipe to it, one from it, and one by which it notices that the server is gone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from bettong import errors
from bettong.drivers import frames
from bettong.errors import BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping


class PipedProcess:
    """`python -I -m MODULE IN OUT LIFE`, in a session of its own, with nothing open but these pipes."""

    def __init__(self, module: str, environment: Mapping[str, str]) -> None:
        """Start it. Raises Unavailable when the system does not let us."""
        child_in, self._out = os.pipe()
        self._in, child_out = os.pipe()
        child_life, self._life = os.pipe()
        theirs = (child_in, child_out, child_life)
        try:
            for descriptor in (self._out, self._in):
                frames.widen(descriptor)
            os.set_blocking(self._out, False)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-m", module, *map(str, theirs)],
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
            raise Unavailable("The system starts no process for this work.", "Try again in a moment.") from failed
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        self.line = frames.Line(self._in, self._out)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        """Nothing of the process is left when this returns. The last call."""
        self.kill()
        self._close()

    def kill(self) -> str:
        """End it if it lives; how it ended, in words."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        return f"by signal {-code}" if code < 0 else f"with status {code}"

    def _close(self) -> None:
        for descriptor in (self._out, self._in, self._life):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def error_of(code: str) -> type[BettongError]:
    """The error that a process told of by its code."""
    known = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BettongError)]
    return next((kind for kind in known if kind.code == code), Unavailable)
