"""What an uploaded ONNX file holds, found out by a process of its own; nothing of the file is read in this one."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong.domain.tensors import read_graph
from bettong.errors import BadInput
from bettong.packaging import _graph_child
from bettong.packaging.wheels import package_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.tensors import Graph

TIMEOUT_S = 300.0
MAX_ANSWER_BYTES = 4 * 2**20
MOST_BYTES, MOST_BYTES_PER_BYTE = 4 * 2**30, 6  # of address space: what loading takes, and more with a larger file
LOG_LINES = 50


def look_into(model: Path, scratch: Path, report: Callable[[str], None], timeout_s: float = TIMEOUT_S) -> bytes:
    """Load the file once, sandboxed, and try made-up rows; the description of its graph, as JSON that holds.

    Blocks; nothing runs any more when it returns.

    Args:
        model: an absolute path; the child reads its folder.
        scratch: where a temporary folder is made while it runs.

    Raises:
        BadInput: it is no ONNX model, or one that cannot be run here or be fed with rows; with what to do about it.
    """
    with tempfile.TemporaryDirectory(prefix=".look-", dir=scratch) as temporary:
        said = Path(temporary) / "said"
        work = Path(temporary) / "work"
        work.mkdir()
        answer, code = _run(model, work, said, timeout_s)
        for line in said.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]:
            report(line)
    if code != 0:
        raise BadInput(_death(code, timeout_s), "Check that onnxruntime loads and runs the file, then upload again.")
    document = _document(answer)
    report(f"Looked at in a process of its own, held by: {document.get('holds')}.")
    if "problem" in document:
        raise BadInput(str(document["problem"]), str(document.get("next_step", "")))
    for line in findings(document):
        report(line)
    return answer


def read_description(data: bytes) -> Graph:
    """The graph that `look_into` described. Raises BadInput and ValueError as `read_graph`."""
    return read_graph(json.loads(data))


def findings(document: dict[str, Any]) -> tuple[str, str]:
    """What a description says, in two lines for an upload log: what the model takes and gives, and how a trial went."""
    return _summary(document, read_graph(document)), str(document.get("tried"))


def _run(model: Path, work: Path, said: Path, timeout_s: float) -> tuple[bytes, int]:
    """The child's answer, cut where it gets too long, and its exit code."""
    order = {
        "launcher": str(package_folder("bettong-mac") / "_launch.py"),
        "plan": {"environment": sys.prefix, "artifact": str(model.parent), "temporary": str(work)},
        "readable": _package_folders("onnxruntime", "numpy"),
        "model": str(model),
        "most_bytes": MOST_BYTES + MOST_BYTES_PER_BYTE * model.stat().st_size,
        "most_cpu_s": int(timeout_s) + 1,
    }
    with (
        said.open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(_graph_child.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"PATH": os.defpath, "HOME": str(work), "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"},
            start_new_session=True,
        ) as child,
    ):
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


def _package_folders(*names: str) -> list[str]:
    """The folders that these packages are imported from. They are found, not imported."""
    specs = [importlib.util.find_spec(name) for name in names]
    return sorted({str(Path(spec.origin).parents[1]) for spec in specs if spec is not None and spec.origin})


def _death(code: int, timeout_s: float) -> str:
    if -code in (signal.SIGKILL, signal.SIGXCPU):
        return f"Looking into the model took more than {timeout_s:g} s, or more memory than it may take."
    how = f"with signal {-code}" if code < 0 else f"with exit code {code}"
    return f"Loading the model ended the process that tried it ({how})."


def _document(answer: bytes) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadInput("Looking into the model gave no answer.", "Check that onnxruntime loads the file.")
    return document


def _summary(document: dict[str, Any], graph: Graph) -> str:
    opsets = ", ".join(f"{k} {v}" for k, v in document.get("opsets", {}).items())
    batch = "any number of rows" if graph.batch is None else f"{graph.batch} rows at a time"
    return (
        f"onnxruntime {document.get('onnxruntime')} loaded it in {float(document.get('loaded_s', 0)):.2f} s: "
        f"{opsets}; takes {batch}. Inputs: {_shown(graph.input_schema)}. Outputs: {_shown(graph.output_schema)}."
    )


def _shown(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)
