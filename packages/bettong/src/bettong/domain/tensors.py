"""What a native model's graph takes and gives, and how that is written as Arrow schemas.

The first dimension of every tensor counts rows. What is left of an input's shape becomes nested lists, of fixed size
where the graph fixes it: `[N]` is a plain column, `[N, 18]` a list of 18, `[N, 3, 224, 224]` three levels. Outputs are
lists even when they hold one number per row (spec 7.3): `[N]` and `[N, 1]` both give `list<inner: float not null>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL_FILE = "model.onnx"  # how a native model's file is called in its unpacked folder
GRAPH_FILE = "graph.json"  # what is known of it, beside it

# By the names that onnxruntime gives element types
ELEMENTS: dict[str, Any] = {
    "float": pa.float32(),
    "double": pa.float64(),
    "float16": pa.float16(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "uint8": pa.uint8(),
    "uint16": pa.uint16(),
    "uint32": pa.uint32(),
    "uint64": pa.uint64(),
    "bool": pa.bool_(),
    "string": pa.string(),
}
Kind: TypeAlias = Any  # a pa.DataType that is known at run time only


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output. `dims` is its shape without the rows; None is a dimension that may differ by request."""

    name: str
    element: str
    dims: tuple[int | None, ...]

    @property
    def leaf(self) -> Kind:
        return ELEMENTS[self.element]


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph whose inputs and outputs are tensors. `batch` is the one number of rows that it takes, None for any."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batch: int | None = None

    @property
    def input_schema(self) -> pa.Schema:
        return pa.schema([pa.field(t.name, _input_type(t)) for t in self.inputs])

    @property
    def output_schema(self) -> pa.Schema:
        return pa.schema([pa.field(t.name, _output_type(t), nullable=False) for t in self.outputs])

    def taking(self, inputs: pa.Schema, tensor_fields: Sequence[str] | None) -> pa.Schema:
        """`inputs`, one field per input of the graph in its order, under new names.

        Raises:
            BadInput: there is not one name per input, or one comes twice.
        """
        if tensor_fields is None:
            return inputs
        if len(tensor_fields) != len(self.inputs):
            raise BadInput(
                f"tensor_fields has {len(tensor_fields)} names, the model has {len(self.inputs)} inputs.",
                f"Give one name for each, in this order: {', '.join(t.name for t in self.inputs)}.",
            )
        if "" in tensor_fields or len(set(tensor_fields)) != len(tensor_fields):
            raise BadInput("tensor_fields has an empty name, or one twice.", "Give each input a name of its own.")
        return pa.schema([f.with_name(name) for f, name in zip(inputs, tensor_fields, strict=True)])

    def checked_inputs(self, given: pa.Schema, names: Sequence[str]) -> pa.Schema:
        """A schema that somebody wants for the inputs, called `names`, in the graph's order. Raises BadInput."""
        return _checked("input", given, self.inputs, names)

    def checked_outputs(self, given: pa.Schema) -> pa.Schema:
        """The same for the outputs, which keep their names."""
        return _checked("output", given, self.outputs, [t.name for t in self.outputs])


def list_levels(kind: Kind) -> tuple[list[int | None], Kind]:
    """The sizes of the lists of a type from the outside in, None where they may differ, and the type of the leaves."""
    sizes: list[int | None] = []
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        sizes.append(kind.list_size if pa.types.is_fixed_size_list(kind) else None)
        kind = kind.value_type
    return sizes, kind


def casts(source: Kind, target: Kind) -> bool:
    """Whether values go from one leaf type to the other (spec 4.12): widths change, and floats take integers."""
    if source == target:
        return True
    if pa.types.is_floating(target):
        return bool(pa.types.is_floating(source) or pa.types.is_integer(source))
    if pa.types.is_integer(target):
        return bool(pa.types.is_integer(source))
    return _is_text(source) and _is_text(target)


def _is_text(kind: Kind) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _input_type(tensor: Tensor) -> Kind:
    kind = tensor.leaf
    for size in reversed(tensor.dims):
        kind = pa.list_(kind) if size is None else pa.list_(kind, size)
    return kind


def _output_type(tensor: Tensor) -> Kind:
    kind = tensor.leaf
    for _ in tensor.dims or (1,):
        kind = pa.list_(pa.field("inner", kind, nullable=False))
    return kind


def _checked(which: str, given: pa.Schema, tensors: Sequence[Tensor], names: Sequence[str]) -> pa.Schema:
    if sorted(given.names) != sorted(names):
        raise BadInput(
            f"The {which} schema has the fields {', '.join(given.names)}; the model's {which}s are {', '.join(names)}.",
            "Name them as the model does" + (", or rename them with tensor_fields." if which == "input" else "."),
        )
    fields = []
    for tensor, name in zip(tensors, names, strict=True):
        field = given.field(name)
        sizes, leaf = list_levels(field.type)
        fits = casts(leaf, tensor.leaf) if which == "input" else casts(tensor.leaf, leaf)
        if not fits or not _has_shape(sizes, tensor.dims):
            wanted = _input_type(tensor) if which == "input" else _output_type(tensor)
            raise BadInput(
                f"The {which} schema field '{name}' is {field.type}; the model has {wanted} there.",
                "Give it that type, another width of it, or one list of all values of a row.",
            )
        fields.append(field)
    return pa.schema(fields)


def _has_shape(sizes: Sequence[int | None], dims: Sequence[int | None]) -> bool:
    """Whether lists of these sizes hold a row: level by level, or all its values in one list, or in none for one."""
    if len(sizes) == len(dims):
        return all(size is None or dim is None or size == dim for size, dim in zip(sizes, dims, strict=True))
    if None in dims:
        return False
    values = 1
    for dim in dims:
        values *= dim or 0
    return (not sizes and values == 1) or (len(sizes) == 1 and sizes[0] in (None, values))


# --- what a graph's description may say -----------------------------------------------------------------------------


def read_graph(document: Any) -> Graph:
    """A graph from what is known of a model file: `inputs` and `outputs` of name, type and shape, and `rows`.

    A shape's first item is the number of rows, None for any. An output's shape may be null where the file has none.

    Raises:
        BadInput: it is one that cannot be fed with rows; the text names the tensor and says what to do.
        ValueError: this is no such description.
    """
    try:
        inputs = [(_text(i["name"]), _text(i["type"]), _shape(i["shape"])) for i in document["inputs"]]
        outputs = [(_text(o["name"]), _text(o["type"]), _shape(o["shape"])) for o in document["outputs"]]
    except (KeyError, TypeError) as wrong:
        raise ValueError("This is not the description of a graph.") from wrong
    if not inputs or not outputs:
        raise BadInput("The model has no input or no output.", "Save a graph that takes rows and gives some.")
    for which, tensors in (("input", inputs), ("output", outputs)):
        names = [name for name, _, _ in tensors]
        if "" in names or len(set(names)) != len(names):
            raise ValueError(f"Two {which}s have one name.")
    fixed = {shape[0] for _, _, shape in inputs if shape and shape[0] is not None}
    if len(fixed) > 1:
        raise BadInput(
            f"The model's inputs fix different numbers of rows: {', '.join(map(str, sorted(fixed)))}.",
            "Give every input the same first dimension, best a dynamic one.",
        )
    return Graph(
        tuple(_tensor("input", *given) for given in inputs),
        tuple(_tensor("output", *given) for given in outputs),
        fixed.pop() if fixed else None,
    )


def _tensor(which: str, name: str, kind: str, shape: tuple[int | None, ...]) -> Tensor:
    element = kind.removeprefix("tensor(").removesuffix(")")
    if not kind.startswith("tensor("):
        hint = " (skl2onnx: options={'zipmap': False})" if kind.startswith("seq(map(") else ""
        raise BadInput(
            f"The model's {which} '{name}' is {kind}, not a tensor.",
            f"Save it with tensors only{hint}, then upload it.",
        )
    if element not in ELEMENTS:
        raise BadInput(
            f"The model's {which} '{name}' holds {element}, which rows cannot carry.",
            f"Cast it inside the graph to one of: {', '.join(ELEMENTS)}.",
        )
    if not shape:
        raise BadInput(
            f"The model's {which} '{name}' has no dimension that counts rows.",
            "Give it a dynamic first dimension (torch.onnx.export: dynamic_axes or dynamic_shapes).",
        )
    if 0 in shape:
        raise BadInput(f"The model's {which} '{name}' has a dimension of size 0.", "Save it with sizes above 0.")
    return Tensor(name, element, shape[1:])


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _shape(value: object) -> tuple[int | None, ...]:
    if not isinstance(value, list) or any(not (v is None or (type(v) is int and 0 <= v < 2**31)) for v in value):
        raise TypeError("no shape")
    return tuple(value)
