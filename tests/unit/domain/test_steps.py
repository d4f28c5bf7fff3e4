"""Step documents: what is read, and what is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bettong.domain.expression_reader import MAX_DEPTH, parse_validation
from bettong.domain.expressions import columns_of
from bettong.domain.steps import (
    Audit,
    Average,
    Check,
    ColumnsToRows,
    KeySplit,
    ModelRef,
    ModelStep,
    MultiOut,
    Nth,
    RandomSplit,
    RowsToModels,
    SelectColumns,
    first_models_of,
    models_of,
    parse_steps,
)
from bettong.errors import BadInput

ONE, TWO, THREE = ({"name": name, "version": f"v-{name}", "sha": "ab"} for name in ("one", "two", "three"))
COLUMN: dict[str, Any] = {"Column": "out.x"}
FUNCTION: dict[str, Any] = {"input": [COLUMN], "function": "Abs", "options": {}}


def ref(document: dict[str, str]) -> ModelRef:
    return ModelRef(document["name"], document["version"], document["sha"])


def steps(*documents: object) -> Any:
    return parse_steps({"id": "p", "steps": list(documents)})


def infer(*models: dict[str, str]) -> dict[str, Any]:
    return {"ModelInference": {"models": list(models)}}


def tree(node: object, name: object = "odd") -> str:
    return json.dumps({"Alias": [node, name]})


def greater(node: object, than: object = 1) -> dict[str, Any]:
    return {"BinaryExpr": {"left": node, "op": "Gt", "right": {"Literal": {"Int32": than}}}}


def test_every_kind_of_step_is_read() -> None:
    check = {"Check": {"tree": [tree(greater(COLUMN), "high")]}}
    read = steps(
        infer(ONE, TWO),
        {"AuditResults": {"from": 1, "to": None}},
        {"MultiOut": {}},
        {"Average": {}},
        {"ColumnsSelect": {"columns": [1, 0]}},
        {"ColumnsToRows": {}},
        {
            "RandomSplit": {
                "hash_key": "session_id",
                "weights": [{"model": ONE, "weight": 2}, {"model": TWO, "weight": 0}],
            }
        },
        {"MetaValueSplit": {"split_key": "card", "control": ONE, "routes": {"gold": TWO, "silver": THREE}}},
        {"RowsToModels": {"rows_to_models": [{"row_index": 1, "model": TWO}, {"row_index": 0, "model": ONE}]}},
        infer(ONE, TWO),
        {"Nth": {"index": 1}},
        check,
    )

    assert read[:-1] == (
        ModelStep((ref(ONE), ref(TWO))),
        Audit(1, None),
        MultiOut(),
        Average(),
        SelectColumns((1, 0)),
        ColumnsToRows(),
        RandomSplit("session_id", ((2.0, ref(ONE)), (0.0, ref(TWO)))),
        KeySplit("card", ref(ONE), (("gold", ref(TWO)), ("silver", ref(THREE)))),
        RowsToModels(((1, ref(TWO)), (0, ref(ONE)))),
        ModelStep((ref(ONE), ref(TWO))),
        Nth(1),
    )
    assert isinstance(read[-1], Check)
    assert read[-1].validations[0].name == "high"
    assert models_of(read) == (ref(ONE), ref(TWO), ref(THREE)), "each version once"
    assert first_models_of(read) == ("one", "one", "one", "two", "one"), "the first of each step that has models"


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"Blend": {}}, r"of the kind 'Blend'. There are: ModelInference, RandomSplit"),
        ({"MultiOut": {"all": True}}, r"\(MultiOut\) has the unknown field 'all'"),
        ({"Nth": {}}, r"\(Nth\) lacks the field 'index'"),
        ({"Nth": []}, r"\(Nth\) is not an object"),
        ({"ModelInference": {"models": [{**ONE, "id": 7}]}}, "unknown field 'id'"),
        ({"ModelInference": {"models": [{"name": "one", "version": "v"}]}}, "lacks the field 'sha'"),
        ({"ModelInference": {"models": [{**ONE, "sha": 7}]}}, "is no text"),
        ({"RandomSplit": {"hash_key": None, "weights": [{"model": ONE, "weight": -1}]}}, "weight that is not a number"),
        ({"RandomSplit": {"hash_key": None, "weights": [{"model": ONE, "weight": 0}]}}, "weights whose sum is 0"),
        ({"RandomSplit": {"hash_key": None, "weights": [{"model": ONE, "weight": True}]}}, "weight that is not a numb"),
        ({"RandomSplit": {"hash_key": None, "weights": []}}, "not a list of 1 to"),
        ({"RandomSplit": {"hash_key": 7, "weights": [{"model": ONE, "weight": 1}]}}, "'hash_key' that is no column"),
        ({"MetaValueSplit": {"split_key": "", "control": ONE, "routes": {}}}, "'split_key' that is no column"),
        ({"MetaValueSplit": {"split_key": "k", "control": ONE, "routes": [TWO]}}, "'routes' that are not an object"),
        ({"AuditResults": {"from": 2, "to": 2}}, "no slice of results"),
        ({"AuditResults": {"from": -1, "to": None}}, "no slice of results"),
        ({"ColumnsSelect": {"columns": [0, 0]}}, "not positions, each once"),
        ({"Nth": {"index": -1}}, "no position"),
        ({"RowsToModels": {"rows_to_models": [{"row_index": 0, "model": ONE}] * 2}}, "'row_index' twice"),
        ({"Check": {"tree": ["{"]}}, r"\(Check\): A validation is not JSON"),
    ],
)
def test_a_step_that_does_not_hold_is_refused_by_name(step: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        steps(infer(ONE), step)


@pytest.mark.parametrize(
    ("documents", "words"),
    [
        ([{"Nth": {"index": 0}}], r"step 0 \(Nth\) works on results and comes before the first model"),
        ([infer(ONE, TWO), {"Nth": {"index": 2}}], "picks result 2 of 2"),
        ([infer(ONE, TWO), {"Average": {}}, {"Nth": {"index": 1}}], "picks result 1 of 1"),
        ([infer(ONE), {"AuditResults": {"from": 1, "to": None}}], "keeps results from 1 on; there are 1"),
    ],
)
def test_steps_that_work_on_results_have_as_many_as_they_name(documents: list[object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        steps(*documents)


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({"Window": {}}, "the node 'Window'"),
        ("Wildcard", "the node 'Wildcard'"),
        ({"Columns": ["a"]}, "the node 'Columns'"),
        ({"Function": {**FUNCTION, "function": {"ListExpr": "Reverse"}}}, r"'Function ListExpr\.Reverse'"),
        ({"Function": {**FUNCTION, "function": {"TemporalExpr": "Year"}}}, "'Function TemporalExpr'"),
        ({"Function": {**FUNCTION, "function": {"Shift": 1}}}, "'Function Shift'"),
        ({"Agg": {"Quantile": {}}}, "'Agg Quantile'"),
        ({"BinaryExpr": {"left": COLUMN, "op": "Power", "right": COLUMN}}, "'BinaryExpr Power'"),
        ({"Cast": {"expr": COLUMN, "data_type": "Categorical", "strict": True}}, "'Cast to Categorical'"),
        ({"Literal": {"Duration": [1, "ms"]}}, "'Literal Duration'"),
    ],
)
def test_an_unknown_node_of_a_validation_is_refused_by_name(node: object, words: str) -> None:
    with pytest.raises(BadInput, match=f"Validation 'odd' has the node {words}|Validation 'odd' has {words}"):
        parse_validation(tree(greater(node)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (7, "not a text"),
        ("x" * 70_000, "not a text of at most"),
        (json.dumps(greater(COLUMN)), "has no name"),
        (tree(greater(COLUMN), 7), "has no name"),
        (tree(greater(COLUMN), "count"), "called 'count'"),
        (tree(greater(COLUMN), ""), "name is not 1 to"),
        (tree({"Column": 7}), "node 'Column' of another form"),
        (tree({"Literal": {"Int8": 300}}), "node 'Literal' of another form"),
        (tree({"Literal": {"Float64": None}}), "node 'Literal' of another form"),
        (tree({"Function": {**FUNCTION, "input": [COLUMN, COLUMN]}}), "node 'Function' of another form"),
        (tree({"Filter": {"input": COLUMN, "by": COLUMN}}), "another number of values than there are rows"),
        (tree(greater({"Explode": COLUMN})), "another number of values"),
        (
            tree({"BinaryExpr": {"left": COLUMN, "op": "Gt", "right": {"Explode": COLUMN}}}),
            "puts together columns of different lengths",
        ),
        (
            tree(
                {
                    "Function": {
                        "input": [COLUMN, {"Literal": {"Utf8": "["}}],
                        "function": {"StringExpr": {"Contains": {"literal": False, "strict": True}}},
                    }
                }
            ),
            "no regular expression",
        ),
    ],
)
def test_a_validation_that_does_not_hold_says_what_is_wrong(text: object, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_validation(text)


def test_a_validation_is_not_nested_without_end() -> None:
    node: Any = COLUMN
    for _ in range(MAX_DEPTH):
        node = {"Function": {**FUNCTION, "input": [node]}}
    with pytest.raises(BadInput, match=f"nested deeper than {MAX_DEPTH}"):
        parse_validation(tree(greater(node)))
    with pytest.raises(BadInput, match="not JSON"):
        parse_validation("[" * 60_000)


def test_the_columns_that_a_validation_looks_at_are_known() -> None:
    node = {
        "Ternary": {
            "predicate": {"Column": "in.a"},
            "truthy": greater({"Column": "out.b"}),
            "falsy": {"Column": "in.c"},
        }
    }
    assert list(columns_of(parse_validation(tree(node)).expression)) == ["in.a", "out.b", "in.c"]
