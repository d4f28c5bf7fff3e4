"""Looks into an ONNX file: loads it as a replica would, tries made-up rows, and says what the graph takes and gives.

Run as `python -I -S`, its order on stdin, inside the sandbox of bettong-mac's launcher and under limits of memory and
time: the file comes from anyone, and what reads it is not written in a memory-safe language. The answer is one JSON
document on stdout; nothing else is ever written there.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import mmap
import os
import re
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_WORDS = 400
FREE_SIZES = (32, 1)  # what dynamic dimensions of a made-up row are tried with
# What numpy calls onnxruntime's element types, those that rows can carry
NUMPY = {"float": "float32", "double": "float64", "float16": "float16", "bool": "bool", "string": "object"} | {
    f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : (?:Load model from .*? failed: ?)?")
_SOURCE = re.compile(
    r"\S+\.(?:cc|h):\d+ (?:.*?\) )?"
)  # where in its sources an error was raised, and in which function


class Refused(Exception):
    """Why the file cannot be taken: what was found, and what to do."""

    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem, next_step)
        self.problem, self.next_step = problem, next_step


def main() -> None:
    order = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    holds = _launcher(order["launcher"], order["readable"]).enter_sandbox(order["plan"], sys.executable)
    limits = {resource.RLIMIT_CPU: order["most_cpu_s"], resource.RLIMIT_FSIZE: 2**20}
    if sys.platform.startswith("linux"):  # elsewhere address space has no limit that holds
        limits[resource.RLIMIT_AS] = order["most_bytes"]
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    sys.path.extend(order["readable"])
    os.chdir(order["plan"]["temporary"])
    document: dict[str, Any]
    try:
        document = describe(order["model"])
    except Refused as refused:
        document = {"problem": refused.problem, "next_step": refused.next_step}
    except UnicodeDecodeError:
        document = {"problem": "A name in the model is not UTF-8 text.", "next_step": "Save it with other names."}
    except MemoryError:
        document = {"problem": "The model does not fit the memory that looking at it may take.", "next_step": ""}
    json.dump({**document, "holds": holds}, answer)
    answer.close()


def _launcher(path: str, readable: list[str]) -> Any:
    spec = importlib.util.spec_from_file_location("launcher", path)
    assert spec is not None
    assert spec.loader is not None
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    vars(launcher)["SYSTEM_FOLDERS"] += tuple(readable)
    return launcher


def describe(path: str) -> dict[str, Any]:
    """What `bettong.domain.tensors.read_graph` reads, and what else is worth a line in the upload log."""
    opsets = read_head(path)
    with _silence():  # of a warning at import that a sandbox shows no devices
        import numpy
        import onnxruntime

    began = time.perf_counter()
    session = _loaded(onnxruntime, path, opsets)
    loaded_s = time.perf_counter() - began
    inputs = [{"name": i.name, "type": i.type, "shape": _shape(i.shape)} for i in session.get_inputs()]
    outputs = [{"name": o.name, "type": o.type, "shape": _shape(o.shape)} for o in session.get_outputs()]
    tried = "Its inputs are not all tensors with rows: no row was made up."
    if inputs and all(_can_be_made_up(i) for i in inputs):
        tried = _try(numpy, session, inputs, outputs)
    return {
        "inputs": inputs,
        "outputs": outputs,
        "opsets": opsets,
        "onnxruntime": onnxruntime.__version__,
        "loaded_s": loaded_s,
        "tried": tried,
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    said, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(said, 2)
        os.close(said)


# --- the file -------------------------------------------------------------------------------------------------------


def read_head(path: str) -> dict[str, int]:
    """The operator sets that the file imports, by domain. Raises Refused when it is no ONNX model."""
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] == b"PK\x03\x04":
                raise Refused("The file is a zip, not an ONNX model.", "Upload the .onnx file itself.")
            opsets = _opsets(data)
    except ValueError:  # an empty file, too
        opsets = {}
    if not opsets:
        raise Refused(
            "The file is not an ONNX model, or is cut off.",
            "Save it with torch.onnx.export, skl2onnx, tf2onnx or onnx.save, and upload that file.",
        )
    return opsets


def _opsets(data: mmap.mmap) -> dict[str, int]:
    """Empty for a message without a graph. Raises ValueError when the bytes are no message."""
    opsets: dict[str, int] = {}
    has_graph = False
    for number, value in _fields(data, 0, len(data)):
        if number == 7 and isinstance(value, tuple):  # ModelProto.graph
            has_graph = True
        elif number == 8 and isinstance(value, tuple):  # ModelProto.opset_import
            parts = dict(_fields(data, *value))
            domain, version = parts.get(1, (0, 0)), parts.get(2, 0)
            if not isinstance(domain, tuple) or not isinstance(version, int):
                raise ValueError("an operator set of other types")
            opsets[data[slice(*domain)].decode() or "ai.onnx"] = version
    return opsets if has_graph else {}


def _fields(data: mmap.mmap, at: int, end: int) -> Any:
    """(number, value) of each field of a Protocol Buffers message; of texts and messages where they begin and end.

    Raises ValueError when the bytes are none.
    """
    while at < end:
        key, at = _varint(data, at, end)
        kind = key & 7
        value: int | tuple[int, int]
        if kind == 0:
            value, at = _varint(data, at, end)
        elif kind == 2:
            length, at = _varint(data, at, end)
            value = (at, at + length)
            at += length
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value = (at, at + size)
            at += size
        else:
            raise ValueError("a field of a kind that is not used")
        if at > end or not key >> 3:
            raise ValueError("a field that does not fit")
        yield key >> 3, value


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("a number that does not end")


# --- the model ------------------------------------------------------------------------------------------------------


def _loaded(onnxruntime: Any, path: str, opsets: dict[str, int]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (MemoryError, UnicodeDecodeError):
        raise
    except Exception as failed:
        raise _refusal(str(failed), path, onnxruntime.__version__, opsets) from None


def _refusal(text: str, path: str, version: str, opsets: dict[str, int]) -> Refused:
    named = ", ".join(f"{domain} {number}" for domain, number in sorted(opsets.items()))
    if "opset" in text.lower() and "under development" in text:
        return Refused(
            f"The model's operator sets ({named[:MAX_WORDS]}) are newer than what onnxruntime {version} runs.",
            "Export it with an older one, such as opset_version=17.",
        )
    if "IR version" in text:
        return Refused(
            f"The model's file format is newer than what onnxruntime {version} reads: {words(text, path)}",
            "Set model.ir_version to a lower one when saving, such as 8.",
        )
    if "xternal data" in text:
        return Refused(
            "The model keeps its weights in another file, which was not uploaded.",
            "Save it as one file: onnx.save(onnx.load(path), path, save_as_external_data=False).",
        )
    return Refused(f"onnxruntime {version} does not load the model: {words(text, path)}", "Mend the graph it names.")


def words(text: str, path: str) -> str:
    """What onnxruntime said, without its sources and our folders."""
    text = _SOURCE.sub("", _PREFIX.sub("", text)).replace(path, "the model").replace(os.path.dirname(path), "")
    line = " ".join(text.split())
    line = line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"
    return line if line.endswith((".", "…")) else line + "."


def _shape(shape: list[Any]) -> list[int | None]:
    return [d if isinstance(d, int) and d >= 0 else None for d in shape]


def _can_be_made_up(tensor: dict[str, Any]) -> bool:
    return tensor["type"][len("tensor(") : -1] in NUMPY and bool(tensor["shape"])


def _try(numpy: Any, session: Any, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> str:
    """Run made-up rows: their outputs' ranks are taken where the file tells none. One sentence for the log.

    Raises Refused when the outputs do not have as many rows as the inputs.
    """
    fixed = next((i["shape"][0] for i in inputs if i["shape"][0] is not None), None)
    failure = ""
    for size in FREE_SIZES:
        for rows in (1, 2) if fixed is None else (fixed,):
            feeds = {i["name"]: _made_up(numpy, i, rows, size) for i in inputs}
            began = time.perf_counter()
            try:
                results = session.run(None, feeds)
            except Exception as failed:
                failure = words(str(failed), "\0")
                break
            took_ms = (time.perf_counter() - began) * 1000
            for output, result in zip(outputs, results, strict=True):
                _take_rank(output, numpy.shape(result), rows)
        else:
            return f"Made-up rows were answered, the last {rows} in {took_ms:.1f} ms."
    return f"Made-up rows failed; they may not suit the model. {failure}"


def _made_up(numpy: Any, tensor: dict[str, Any], rows: int, size: int) -> Any:
    element = tensor["type"][len("tensor(") : -1]
    shape = (rows, *(size if d is None else d for d in tensor["shape"][1:]))
    return numpy.full(shape, "text" if element == "string" else 0, dtype=NUMPY[element])


def _take_rank(output: dict[str, Any], shape: tuple[int, ...], rows: int) -> None:
    if not output["type"].startswith("tensor("):
        return
    if not shape or shape[0] != rows:
        raise Refused(
            f"The model's output '{output['name']}' has the shape {list(shape)} for {rows} rows.",
            "Export it so that the first dimension of every output counts the rows.",
        )
    if not output["shape"]:
        output["shape"] = [None] * len(shape)


if __name__ == "__main__":
    main()
