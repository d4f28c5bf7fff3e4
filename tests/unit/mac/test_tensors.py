"""How the fields of a schema meet the inputs and outputs of a model of tensors, whichever library it is of."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from mac._loaders._tensors import answer, in_position, is_stacked, matched, numbers, shaped, stacked

Fields = list[dict[str, Any]]


def fields(*names: str, kind: str = "fixed") -> Fields:
    tree: dict[str, Any] = {"kind": kind, "dtype": "<f8", "of": "double"}
    return [{"name": name, "type": tree} for name in names]


def test_numbered_names_say_the_position_and_others_stand_where_they_are() -> None:
    assert in_position(fields("input_2", "input_10", "input_1")) == ["input_1", "input_2", "input_10"]
    assert in_position(fields("b", "input_1", "a")) == ["b", "input_1", "a"]


@pytest.mark.parametrize(
    ("names", "known", "found"),
    [
        (("b", "a"), ["a", "b"], {"a": "a", "b": "b"}),
        (("x", "y"), ["a", "b"], {"x": "a", "y": "b"}),
        (("input_2", "input_1"), ["a", "b"], {"input_1": "a", "input_2": "b"}),
    ],
)
def test_fields_go_by_name_or_else_by_position(names: tuple[str, ...], known: list[str], found: dict[str, str]) -> None:
    assert matched(fields(*names), known, "input") == found


@pytest.mark.parametrize(("names", "known"), [(("a",), ["a", "b"]), (("a", "x"), ["a", "b"]), (("x",), ["a", "b"])])
def test_names_that_do_not_tell_which_is_which_are_refused(names: tuple[str, ...], known: list[str]) -> None:
    with pytest.raises(ValueError, match="The model has the inputs 'a', 'b'; the schema has"):
        matched(fields(*names), known, "input")


def test_an_output_that_the_schema_does_not_name_is_left_out() -> None:
    assert matched(fields("b"), ["a", "b"], "output") == {"b": "b"}


class Named(NamedTuple):
    price: int
    kind: int


@pytest.mark.parametrize(
    ("result", "names", "found"),
    [
        (5, (), {"price": 5}),
        ([5], (), {"price": 5}),
        ({"kind": 1, "price": 5}, (), {"price": 5}),
        (Named(5, 1), (), {"price": 5}),
        ([5, 1], ("price", "kind"), {"price": 5}),
        ({"output_0": 5}, (), {"price": 5}),
    ],
)
def test_what_a_model_returns_in_any_form_becomes_the_fields(
    result: object, names: tuple[str, ...], found: Any
) -> None:
    assert answer(result, fields("price"), names) == found


def test_more_outputs_than_fields_without_names_are_refused() -> None:
    with pytest.raises(ValueError, match="returned 2 outputs; the output schema has 1 fields: 'price'"):
        answer((5, 1), fields("price"))


def test_columns_of_numbers_are_the_features_of_a_model_with_one_input() -> None:
    table = {"b": np.array([1.0, 2.0]), "a": np.array([3.0, 4.0])}

    assert is_stacked(fields("b", "a"), 1)
    assert stacked(table, fields("b", "a")).tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert not is_stacked(fields("b", "a"), 2)
    assert not is_stacked(fields("b", "a", kind="list"), 1)


@pytest.mark.parametrize(
    ("shape", "declared", "found"),
    [
        ((5,), [None, 1], (5, 1)),
        ((5,), [None, None], (5, 1)),
        ((5, 12), [None, 3, 4], (5, 3, 4)),
        ((5, 12), [None, None, 4], (5, 12)),
        ((5, 3, 4), [None, 3, 4], (5, 3, 4)),
        ((5, 11), [None, 3, 4], (5, 11)),
        ((0, 12), [None, 3, 4], (0, 3, 4)),
        ((5,), [None], (5,)),
    ],
)
def test_values_take_the_form_that_the_model_declares_when_they_have_as_many_numbers(
    shape: tuple[int, ...], declared: list[int | None], found: tuple[int, ...]
) -> None:
    assert shaped(np.zeros(shape), declared).shape == found


def test_what_is_no_tensor_is_refused_by_field_name_and_without_values() -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.zeros(1), np.zeros(2)]

    for values, words in (
        (ragged, "Input field 'x' came with lists of different lengths"),
        (np.array(["secret", "b"], dtype=object), "Input field 'x' came with values, not numbers"),
        (np.array(["2024-01-01"], dtype="M8[D]"), r"Input field 'x' holds datetime64\[D\]"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            numbers(values, "x")
        assert "secret" not in str(refused.value)
