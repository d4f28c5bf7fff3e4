"""How a graph is read, and which schemas people may want for it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from bettong.domain.tensors import Graph, Tensor, read_graph
from bettong.errors import BadInput

F32: Any = pa.float32()
TEXT: Any = pa.string()
HOUSE = Graph((Tensor("tensor", "float", (18,)),), (Tensor("variable", "float", (1,)),))
IMAGES = Graph((Tensor("image", "float", (3, 8, None)),), (Tensor("logits", "float", (10,)),))
PLAIN = Graph((Tensor("x", "int64", ()), Tensor("s", "string", ())), (Tensor("y", "double", ()),))


def described(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "type": "tensor(float)", "shape": [None, 2]}
    return {"inputs": [tensor], "outputs": [{**tensor, "name": "y"}], **changes}


def one_input(kind: str, shape: list[int | None]) -> dict[str, Any]:
    return described(inputs=[{"name": "x", "type": kind, "shape": shape}])


def test_the_first_dimension_counts_rows_and_the_rest_are_lists() -> None:
    assert HOUSE.input_schema == pa.schema([pa.field("tensor", pa.list_(F32, 18))])
    assert IMAGES.input_schema == pa.schema([pa.field("image", pa.list_(pa.list_(pa.list_(F32), 8), 3))])
    assert PLAIN.input_schema == pa.schema([("x", pa.int64()), ("s", TEXT)])


def test_outputs_are_lists_even_of_one_number() -> None:
    inner: Any = pa.list_(pa.field("inner", pa.float64(), nullable=False))

    assert PLAIN.output_schema == pa.schema([pa.field("y", inner, nullable=False)])


def test_the_rows_that_the_inputs_fix_are_the_batch() -> None:
    assert read_graph(described()).batch is None
    assert read_graph(one_input("tensor(float)", [4, 2])).batch == 4


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (described(inputs=[]), "no input or no output"),
        (one_input("seq(map(int64,tensor(float)))", []), r"input 'x' is seq\(map.*zipmap"),
        (one_input("tensor(complex64)", [None]), "input 'x' holds complex64"),
        (one_input("tensor(float)", []), "no dimension that counts rows"),
        (one_input("tensor(float)", [None, 0]), "dimension of size 0"),
        (
            described(
                inputs=[
                    {"name": "a", "type": "tensor(float)", "shape": [1]},
                    {"name": "b", "type": "tensor(float)", "shape": [4]},
                ]
            ),
            "inputs fix different numbers of rows: 1, 4",
        ),
    ],
)
def test_a_graph_that_rows_cannot_feed_says_why(document: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        read_graph(document)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"inputs": 3, "outputs": []},
        one_input("tensor(float)", ["N"]),  # type: ignore[list-item]
        one_input("tensor(float)", [-1]),
        one_input("tensor(float)", [True]),
        described(outputs=[{"name": "y", "type": "tensor(float)", "shape": [None]}] * 2),
    ],
)
def test_what_is_no_description_is_not_believed(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not the description|one name"):
        read_graph(document)


def test_inputs_are_renamed_in_their_order() -> None:
    renamed = PLAIN.taking(PLAIN.input_schema, ["count", "label"])

    assert renamed == pa.schema([("count", pa.int64()), ("label", TEXT)])


@pytest.mark.parametrize("names", [["one"], ["a", "b", "c"], ["a", "a"], ["a", ""]])
def test_every_input_gets_one_name_of_its_own(names: list[str]) -> None:
    with pytest.raises(BadInput, match="tensor_fields has"):
        PLAIN.taking(PLAIN.input_schema, names)


@pytest.mark.parametrize(
    ("graph", "kind"),
    [
        (HOUSE, pa.list_(F32, 18)),
        (HOUSE, pa.list_(pa.float64())),
        (HOUSE, pa.large_list(pa.int32())),
        (IMAGES, pa.list_(pa.list_(pa.list_(F32, 8), 8), 3)),
        (Graph((Tensor("n", "float", (2, 3)),), ()), pa.list_(F32, 6)),
        (Graph((Tensor("n", "float", (1,)),), ()), F32),
        (Graph((Tensor("n", "float", ()),), ()), pa.list_(F32, 1)),
        (Graph((Tensor("n", "string", ()),), ()), pa.large_string()),
    ],
)
def test_an_input_may_be_wanted_in_another_width_or_as_one_list(graph: Graph, kind: Any) -> None:
    (name,) = (t.name for t in graph.inputs)
    wanted = pa.schema([pa.field(name, kind)])

    assert graph.checked_inputs(wanted, [name]) == wanted


@pytest.mark.parametrize(
    "kind", [F32, pa.list_(F32, 17), pa.list_(pa.list_(F32)), pa.list_(pa.string(), 18), pa.list_(pa.bool_(), 18)]
)
def test_an_input_schema_that_the_graph_cannot_take_is_refused_with_what_it_takes(kind: Any) -> None:
    with pytest.raises(BadInput, match=r"'tensor' is .*; the model has fixed_size_list<item: float>\[18\] there"):
        HOUSE.checked_inputs(pa.schema([pa.field("tensor", kind)]), ["tensor"])


def test_fields_that_are_wanted_in_another_order_stand_in_the_graphs() -> None:
    wanted = pa.schema([("s", TEXT), ("x", pa.int32())])

    assert PLAIN.checked_inputs(wanted, ["x", "s"]).names == ["x", "s"]


def test_fields_of_other_names_are_refused_with_the_names() -> None:
    with pytest.raises(BadInput, match=r"has the fields y; the model's inputs are tensor\. .*tensor_fields"):
        HOUSE.checked_inputs(pa.schema([pa.field("y", F32)]), ["tensor"])
    with pytest.raises(BadInput, match="the model's outputs are variable"):
        HOUSE.checked_outputs(pa.schema([pa.field("price", F32)]))


def test_an_output_of_one_number_may_be_wanted_as_that_number() -> None:
    wanted = pa.schema([pa.field("variable", pa.float64())])

    assert HOUSE.checked_outputs(wanted) == wanted
    with pytest.raises(BadInput, match="output schema field 'logits'"):
        IMAGES.checked_outputs(pa.schema([pa.field("logits", F32)]))
