"""onnxruntime sessions of one replica: made after the fork, one per model file, shared by the steps that use it.

Importing onnxruntime starts no thread and opens no file only with `forking.SINGLE_THREADED` in the environment: its
builds phone home otherwise.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.domain.tensors import MODEL_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnxruntime

    from bettong.domain.deployments import ModelSpec

CPU = "CPUExecutionProvider"
PREFERRED = ("CUDAExecutionProvider", CPU)  # of what is there, in this order
SILENT = 4  # only what ends the process: errors come as exceptions, with the same words


class Sessions:
    """All sessions of one replica, and the threads beside its event loop that run what takes long."""

    def __init__(self, threads: int = 1) -> None:
        """`threads` per session; so many calls also run beside the loop at once, at least two."""
        self._threads = threads
        self._pool = ThreadPoolExecutor(max(2, threads), thread_name_prefix="onnx")
        self._made: dict[str, asyncio.Future[onnxruntime.InferenceSession]] = {}

    @property
    def pool(self) -> ThreadPoolExecutor:
        return self._pool

    async def of(self, model: ModelSpec) -> onnxruntime.InferenceSession:
        """The session of a model's file. Raises what onnxruntime does when it does not load."""
        loop = asyncio.get_running_loop()
        if (making := self._made.get(model.sha)) is None:
            file = Path(model.folder) / MODEL_FILE
            making = loop.run_in_executor(self._pool, open_session, file, self._threads)
            self._made[model.sha] = making
        return await asyncio.shield(making)  # another step may wait for it too

    def close(self) -> None:
        """Let threads end after what they are running. Twice is no error."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._made.clear()


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime  # 36 MB that a platform without native models spares; the nursery has it when there are any

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # with 1 no thread is started: the caller's computes
    options.inter_op_num_threads = 1
    options.log_severity_level = SILENT
    for setting in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        options.add_session_config_entry(setting, "0")  # waiting threads sleep: an idle model costs no CPU
    return onnxruntime.InferenceSession(str(file), options, providers=providers(onnxruntime.get_available_providers()))


def providers(available: Iterable[str]) -> list[str]:
    """Those of `available` that are wanted, the preferred first."""
    there = set(available)
    return [name for name in PREFERRED if name in there]
