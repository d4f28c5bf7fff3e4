"""ONNX models for tests, made here with fixed seeds: small, and of every shape that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

OPSET, IR = 17, 8
Shape: TypeAlias = "Sequence[int | str | None]"


def model(
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Sequence[Any] = (),
    *,
    opset: int = OPSET,
) -> bytes:
    graph = helper.make_graph(list(nodes), "tested", list(inputs), list(outputs), list(weights))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR)
    return bytes(made.SerializeToString())


def tensor(name: str, kind: int, shape: Shape | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


def mlp(
    *, features: int = 18, hidden: int = 64, seed: int = 1, batch: int | str = "batch", opset: int = OPSET
) -> bytes:
    """`tensor` float [batch, features] → `variable` float [batch, 1]: the shape of the house price models."""
    rng = np.random.default_rng(seed)
    weights = [
        weight("w1", rng.normal(size=(features, hidden)).astype(np.float32)),
        weight("b1", rng.normal(size=hidden).astype(np.float32)),
        weight("w2", rng.normal(size=(hidden, 1)).astype(np.float32)),
        weight("b2", rng.normal(size=1).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("Gemm", ["tensor", "w1", "b1"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gemm", ["b", "w2", "b2"], ["variable"]),
    ]
    inputs = [tensor("tensor", TensorProto.FLOAT, [batch, features])]
    outputs = [tensor("variable", TensorProto.FLOAT, [batch, 1])]
    return model(nodes, inputs, outputs, weights, opset=opset)


def conv(*, size: int | str = 8, seed: int = 2) -> bytes:
    """`image` float [N, 3, size, size] → `features` float [N, 4, size, size] and `logits` float [N, 4]."""
    kernel = np.random.default_rng(seed).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["features"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["logits"]),
    ]
    inputs = [tensor("image", TensorProto.FLOAT, ["N", 3, size, size])]
    outputs = [
        tensor("features", TensorProto.FLOAT, ["N", 4, size, size]),
        tensor("logits", TensorProto.FLOAT, ["N", 4]),
    ]
    return model(nodes, inputs, outputs, [weight("kernel", kernel)])


def several() -> bytes:
    """`number` double [N], `label` string [N], `ids` int64 [N, 2] and `on` bool [N, 1] → `half` double [N], `same`
    string [N], `sums` int64 [N, 1] and `off` bool [N, 1]."""
    nodes = [
        helper.make_node("Div", ["number", "two"], ["half"]),
        helper.make_node("Identity", ["label"], ["same"]),
        helper.make_node("ReduceSum", ["ids", "axes"], ["sums"], keepdims=1),
        helper.make_node("Not", ["on"], ["off"]),
    ]
    inputs = [
        tensor("number", TensorProto.DOUBLE, ["N"]),
        tensor("label", TensorProto.STRING, ["N"]),
        tensor("ids", TensorProto.INT64, ["N", 2]),
        tensor("on", TensorProto.BOOL, ["N", 1]),
    ]
    outputs = [
        tensor("half", TensorProto.DOUBLE, ["N"]),
        tensor("same", TensorProto.STRING, ["N"]),
        tensor("sums", TensorProto.INT64, ["N", 1]),
        tensor("off", TensorProto.BOOL, ["N", 1]),
    ]
    return model(nodes, inputs, outputs, [weight("two", 2.0), weight("axes", np.array([1]))])


def identity(kind: int, shape: Shape | None, *, out_shape: Shape | None = None, name: str = "x") -> bytes:
    """One input, given back as `y`."""
    out = tensor("y", kind, shape if out_shape is None else out_shape)
    return model([helper.make_node("Identity", [name], ["y"])], [tensor(name, kind, shape)], [out])


def picky() -> bytes:
    """`numbers` int32 [N, 2] and `name` string [N] → `total` int64 [N] and `name_out` string [N]; fails on a row whose
    name is "trouble"."""
    nodes = [
        helper.make_node("Equal", ["name", "bad"], ["is_bad"]),
        helper.make_node("Cast", ["is_bad"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["only", "index"], ["zeros"]),  # there is no item 1
        helper.make_node("Cast", ["numbers"], ["wide"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["wide", "axes"], ["sums"], keepdims=0),
        helper.make_node("Add", ["sums", "zeros"], ["total"]),
        helper.make_node("Identity", ["name"], ["name_out"]),
    ]
    inputs = [tensor("numbers", TensorProto.INT32, ["N", 2]), tensor("name", TensorProto.STRING, ["N"])]
    outputs = [tensor("total", TensorProto.INT64, ["N"]), tensor("name_out", TensorProto.STRING, ["N"])]
    weights = [
        weight("bad", np.array(["trouble"], dtype=object)),
        weight("only", np.zeros(1, np.int64)),
        weight("axes", np.array([1])),
    ]
    return model(nodes, inputs, outputs, weights, opset=19)


def external_data() -> bytes:
    """A model whose weights lie in a file that is not there."""
    proto = ModelProto.FromString(mlp())
    first = proto.graph.initializer[0]
    first.ClearField("raw_data")
    first.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "weights.bin"), ("offset", "0"), ("length", str(18 * 64 * 4))):
        entry = first.external_data.add()
        entry.key, entry.value = key, value
    return bytes(proto.SerializeToString())


def of_sequences() -> bytes:
    """Its input is a sequence of tensors, which rows cannot be."""
    infos = [helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    return model([helper.make_node("Identity", ["x"], ["y"])], infos[:1], infos[1:])


def without_rows() -> bytes:
    """Its output is one number, however many rows come in."""
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    inputs, outputs = [tensor("x", TensorProto.FLOAT, ["N", 2])], [tensor("y", TensorProto.FLOAT, None)]
    return model(nodes, inputs, outputs)


def changed(data: bytes, **fields: Any) -> bytes:
    """The same model with other top-level fields, such as `ir_version`."""
    proto = ModelProto.FromString(data)
    for name, value in fields.items():
        setattr(proto, name, value)
    return bytes(proto.SerializeToString())


def with_bytes(data: bytes, old: bytes, new: bytes) -> bytes:
    """The same file with other bytes in it, as many."""
    assert old in data
    assert len(old) == len(new)
    return data.replace(old, new)


def with_operator(data: bytes, kind: str) -> bytes:
    """The same model with its second node of another kind."""
    proto = ModelProto.FromString(data)
    proto.graph.node[1].op_type = kind
    return bytes(proto.SerializeToString())


def plus(addend: int) -> bytes:
    """`x` int64 [N] → `y` int64 [N], `addend` more."""
    nodes = [helper.make_node("Add", ["x", "addend"], ["y"])]
    inputs, outputs = (tensor(name, TensorProto.INT64, ["N"]) for name in ("x", "y"))
    return model(nodes, [inputs], [outputs], [weight("addend", np.int64(addend))])


def mixed() -> bytes:
    """`a` double [N], `b` int32 [N, 2], `c` bool [N, 1], `d` uint8 [N, 2, 2] → `half` double [N], `sums` int32 [N, 1],
    `off` bool [N, 1], `same` uint8 [N, 2, 2] and `again` double [N, 1]."""
    nodes = [
        helper.make_node("Div", ["a", "two"], ["half"]),
        helper.make_node("ReduceSum", ["b", "axes"], ["sums"], keepdims=1),
        helper.make_node("Not", ["c"], ["off"]),
        helper.make_node("Identity", ["d"], ["same"]),
        helper.make_node("Reshape", ["half", "tall"], ["again"]),
    ]
    inputs = [
        tensor("a", TensorProto.DOUBLE, ["N"]),
        tensor("b", TensorProto.INT32, ["N", 2]),
        tensor("c", TensorProto.BOOL, ["N", 1]),
        tensor("d", TensorProto.UINT8, ["N", 2, 2]),
    ]
    outputs = [
        tensor("half", TensorProto.DOUBLE, ["N"]),
        tensor("sums", TensorProto.INT32, ["N", 1]),
        tensor("off", TensorProto.BOOL, ["N", 1]),
        tensor("same", TensorProto.UINT8, ["N", 2, 2]),
        tensor("again", TensorProto.DOUBLE, ["N", 1]),
    ]
    weights = [
        weight("two", 2.0),
        weight("axes", np.array([1])),
        weight("tall", np.array([-1, 1])),
    ]
    return model(nodes, inputs, outputs, weights)


def branching(positive: str) -> bytes:
    """`x` float [N, 2] → `y`, which is `positive` of x (Concat: twice x, which the graph denies) where the values of x
    sum up to more than 0, and x else."""
    more = {"axis": 1} if positive == "Concat" else {}
    given = ["x", "x"] if positive == "Concat" else ["x"]
    branches = [
        helper.make_graph([node], node.output[0], [], [tensor(node.output[0], TensorProto.FLOAT, None)])
        for node in (helper.make_node(positive, given, ["up"], **more), helper.make_node("Identity", ["x"], ["down"]))
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["is_up"]),
        helper.make_node("If", ["is_up"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    x, y = (tensor(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y"))
    return model(nodes, [x], [y], [weight("zero", np.float32(0))])


def of_items(count: int) -> bytes:
    """`x` int64 [N] → `y` int64 [N], ten times x; fails where x is not below `count`."""
    x, y = (tensor(name, TensorProto.INT64, ["N"]) for name in ("x", "y"))
    return model(
        [helper.make_node("Gather", ["items", "x"], ["y"])], [x], [y], [weight("items", 10 * np.arange(count))]
    )


def noise() -> bytes:
    """`x` float [N, 2] → `y` float [N, 2], another one each time."""
    x, y = (tensor(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y"))
    return model([helper.make_node("RandomNormalLike", ["x"], ["y"])], [x], [y])
