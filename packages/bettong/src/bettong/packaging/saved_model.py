"""What a SavedModel says about itself, read from its saved_model.pb without TensorFlow.

The file is a protocol buffer (tensorflow/core/protobuf/saved_model.proto); of it only the signatures and the version
that wrote it are read. Nothing in it is run.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.domain.tensors import Graph, Tensor
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "saved_model.pb"
SERVING = "serving_default"
INIT_OP = "__saved_model_init_op"  # stands among the signatures and is none

# tensorflow/core/framework/types.proto, by the names that `domain.tensors` has for them
ELEMENTS = {
    1: "float", 2: "double", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string", 9: "int64", 10: "bool",
    17: "uint16", 19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
Field = tuple[int, int | memoryview]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """`version` of TensorFlow that wrote it, "" when it does not say; `signatures` by name."""

    version: str
    signatures: Mapping[str, memoryview]

    def serving(self) -> str:
        """The signature that is served: `serving_default`, or the only one. Raises BadInput when neither is there."""
        if SERVING in self.signatures:
            return SERVING
        if len(self.signatures) == 1:
            return next(iter(self.signatures))
        raise BadInput(
            f"The SavedModel has no signature '{SERVING}'; it has: {', '.join(self.signatures) or 'none'}.",
            f"Save it with model.export(folder), or with signatures={{'{SERVING}': function}}.",
        )

    def graph(self) -> Graph:
        """What the served signature takes and gives, by name.

        Raises:
            BadInput: a tensor of it cannot be sent as rows.
        """
        tensors: dict[int, list[Tensor]] = {1: [], 2: []}  # inputs and outputs of a SignatureDef
        for number, value in _fields(self.signatures[self.serving()]):
            if number in tensors and isinstance(value, memoryview):
                name, info = _entry(value)
                tensors[number].append(_tensor(name, info))
        inputs, outputs = (tuple(sorted(found, key=lambda t: t.name)) for found in tensors.values())
        return Graph(inputs, outputs)


def read_saved_model(path: Path) -> SavedModel:
    """Raises BadInput when the file is no SavedModel."""
    try:
        with path.open("rb") as file:  # the mapping ends with the last view of it
            return _read(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except (ValueError, IndexError, UnicodeDecodeError):
        raise BadInput(
            f"{FILE} is no SavedModel, or a damaged one.", "Save the model again, zip and upload it."
        ) from None


def _read(content: memoryview) -> SavedModel:
    version = ""
    signatures: dict[str, memoryview] = {}
    for number, graph in _fields(content):
        if number != 2 or not isinstance(graph, memoryview):  # one MetaGraphDef, as a rule
            continue
        for part, value in _fields(graph):
            if part == 1 and isinstance(value, memoryview):
                version = version or _text_of(value, 5)
            elif part == 5 and isinstance(value, memoryview):
                name, definition = _entry(value)
                if name != INIT_OP:
                    signatures[name] = memoryview(bytes(definition))  # outlives the file
    return SavedModel(version, signatures)


def _tensor(name: str, info: memoryview) -> Tensor:
    element = 0
    shape: list[int | None] = [None, None]  # rows of any width where the file does not tell
    for number, value in _fields(info):
        if number == 2 and isinstance(value, int):
            element = value
        elif number == 3 and isinstance(value, memoryview):
            shape = shape if (found := _shape(value)) is None else found
    if element not in ELEMENTS:
        raise BadInput(
            f"The model's tensor '{name}' has a type that rows cannot carry.",
            f"Cast it inside the signature to one of: {', '.join(sorted(ELEMENTS.values()))}.",
        )
    if not shape:
        raise BadInput(
            f"The model's tensor '{name}' has no dimension that counts rows.",
            "Give it a first dimension that is open: tf.TensorSpec((None, …)).",
        )
    return Tensor(name, ELEMENTS[element], tuple(shape[1:]))


def _shape(info: memoryview) -> list[int | None] | None:
    """The dimensions, None where any size will do; None for a tensor of unknown rank."""
    shape: list[int | None] = []
    for number, value in _fields(info):
        if number == 3 and value:
            return None
        if number == 2 and isinstance(value, memoryview):
            size = next((v for n, v in _fields(value) if n == 1 and isinstance(v, int)), 0)
            shape.append(size if 0 < size < 2**31 else None)  # -1 is 2**64 - 1 on the wire
    return shape


def _entry(value: memoryview) -> tuple[str, memoryview]:
    """Key and value of a map's entry."""
    body = next((v for n, v in _fields(value) if n == 2 and isinstance(v, memoryview)), memoryview(b""))
    return _text_of(value, 1), body


def _text_of(value: memoryview, wanted: int) -> str:
    return next((str(v, "utf-8") for n, v in _fields(value) if n == wanted and isinstance(v, memoryview)), "")


def _fields(message: memoryview) -> Iterator[Field]:
    """(number, value) of each field: a whole number, or the bytes of a text or a message."""
    at, end = 0, len(message)
    while at < end:
        key, at = _varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError("a field of a kind that is not in use")
        if size > end - at:
            raise ValueError("a field that is longer than its message")
        yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that is too long")
