"""How a process begins that works with secrets: it says nothing, leaves no dump, and ends when the server does."""

from __future__ import annotations

import os
import resource
import sys
import threading
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

_PR_SET_DUMPABLE = 4


def begin(life: int) -> None:
    """Call it first of all. `life` is the pipe whose other end the server holds.

    Afterwards nothing that is printed is seen by anyone, and pyarrow is imported, without pandas.
    """
    _say_nothing()
    _leave_no_dump()
    threading.Thread(target=_end_with_the_server, args=(life,), daemon=True).start()
    _keep_pandas_out()


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """While this lasts, what is imported finds these packages not installed. Clients of services take them where they
    are, for uses that are not ours, and a quarter of a second each."""
    hidden = [name for name in packages if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden, cast("Any", None)))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


def place_of(unexpected: Exception, file: str | None) -> str:
    """Type and place of an error of nobody's making: the last line in `file`, else the last one. Its text, which may
    hold anything, stays here."""
    frames = list(traceback.extract_tb(unexpected.__traceback__))
    frame = next((frame for frame in reversed(frames) if frame.filename == file), frames[-1])
    return f"{type(unexpected).__name__} in {os.path.basename(frame.filename)}, line {frame.lineno}"


def _end_with_the_server(life: int) -> None:
    """Nothing is ever written to this pipe: it can be read when the server is gone."""
    os.read(life, 1)
    os._exit(1)


class _NoPandas:
    """A finder that answers for pandas alone: there is none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def _keep_pandas_out() -> None:
    """pyarrow imports pandas, when it is installed, to look at the first list it is given: a quarter of a second that
    no driver has use for. It asks once; drivers of others may import pandas for themselves afterwards."""
    finder: Any = _NoPandas()
    sys.meta_path.insert(0, finder)
    import pyarrow as pa

    pa.array([0])
    sys.meta_path.remove(finder)


def _say_nothing() -> None:
    """What libraries print may hold anything: nobody gets to see it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _leave_no_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # the limit does not hold where dumps are piped to a program
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
