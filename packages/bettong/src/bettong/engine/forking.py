"""What has to hold before and after a fork: one thread, no stray descriptors, no way back into the parent's frames."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# In the environment before numpy, pyarrow and onnxruntime are imported, they start no thread. `compose` sets them.
SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # Arrow's jemalloc starts one at import, used or not
    "ORT_DISABLE_TELEMETRY": "1",  # else a thread, files below ~/.cache, and word to its makers, from the import on
}
_TASKS = Path("/proc/self/task")


def require_single_thread() -> None:
    """Raises RuntimeError naming the threads when this process has more than one."""
    names = thread_names()
    if len(names) > 1:
        raise RuntimeError(
            f"This process has {len(names)} threads ({', '.join(names)}); it can be forked only while it has one. "
            "Start the nursery first of all, with forking.SINGLE_THREADED in the environment before numpy and pyarrow."
        )


def thread_names() -> list[str]:
    """Of this process: the kernel's view where there is one, else Python's."""
    if not _TASKS.is_dir():
        return [t.name for t in threading.enumerate()]
    known = {str(t.native_id): t.name for t in threading.enumerate()}
    return [f"{t.name} {known.get(t.name) or (t / 'comm').read_text().strip()}" for t in sorted(_TASKS.iterdir())]


def open_descriptors() -> set[int]:
    """The descriptors of this process that are open."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the one that listed the folder is closed again
            os.fstat(int(name))
            found.add(int(name))
    return found


def keep_pandas_out() -> None:
    """Let this process, and what is forked from it, see no pandas: pyarrow would import it at its first `pa.array`, for
    45 MB, a quarter of a second and no use."""
    sys.meta_path.insert(0, _WithoutPandas())


class _WithoutPandas(MetaPathFinder):
    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("The platform works without pandas.", name="pandas")


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor but standard input, output, error and those in `keep`."""
    for fd in open_descriptors() - {0, 1, 2, *keep}:
        os.close(fd)


def become(life: Callable[[], int | None]) -> NoReturn:
    """Run a forked child's life and exit with the code it returns. It never returns into the frames of its parent."""
    code = 1
    try:
        code = life() or 0
    except BaseException:  # also SystemExit: nothing of the parent's may run in the child
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
