"""Columns become the table a model was trained on, and its results the fields of the schema, by name or position."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from mac._loaders import load
from mac._loaders._table import Inputs, Outputs
from mac._loaders.sklearn import SklearnModel

if TYPE_CHECKING:
    from pathlib import Path

FLOAT = {"kind": "fixed", "dtype": "<f8", "of": "double"}
LIST = {"kind": "list", "child": FLOAT, "of": "list"}
TEXT = {"kind": "utf8", "of": "string"}


def fields(**types: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


class Sums:
    """An estimator whose results show what it was given."""

    def __init__(self, names: list[str] | None = None, n_features: int | None = 2) -> None:
        if names is not None:
            self.feature_names_in_ = np.array(names, dtype=object)
        if n_features is not None:
            self.n_features_in_ = n_features
        self.given: Any = None

    def predict(self, table: Any) -> Any:
        self.given = table
        return np.asarray(table)[:, 0] * 10 + np.asarray(table)[:, 1]

    def predict_proba(self, table: Any) -> Any:
        return np.stack([np.asarray(table)[:, 0], np.asarray(table)[:, 1]], axis=1)


class Halves:
    """A transformer."""

    n_features_in_ = 2

    def transform(self, table: Any) -> Any:
        return np.asarray(table) / 2


ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])
COLUMNS = {"a": ROWS[:, 0], "b": ROWS[:, 1]}


def predicted(model: Any, columns: dict[str, Any], inputs: Any, outputs: Any) -> dict[str, Any]:
    answer = SklearnModel(model, inputs, outputs).predict(columns)
    return {name: np.asarray(values).tolist() for name, values in answer.items()}


def test_a_list_column_and_columns_in_order_are_the_same_table() -> None:
    out = fields(predictions=FLOAT)

    assert predicted(Sums(), {"inputs": ROWS}, fields(inputs=LIST), out) == {"predictions": [12.0, 34.0]}
    assert predicted(Sums(), COLUMNS, fields(a=FLOAT, b=FLOAT), out) == {"predictions": [12.0, 34.0]}
    backwards = predicted(Sums(), COLUMNS, fields(b=FLOAT, a=FLOAT), out)
    assert backwards == {"predictions": [21.0, 43.0]}


def test_known_feature_names_decide_the_order_and_make_a_frame() -> None:
    model = Sums(["a", "b"])

    assert predicted(model, COLUMNS, fields(b=FLOAT, a=FLOAT), fields(y=FLOAT)) == {"y": [12.0, 34.0]}
    assert isinstance(model.given, pd.DataFrame)
    assert list(model.given.columns) == ["a", "b"]


def test_other_names_than_in_training_go_by_position() -> None:
    model = Sums(["height", "width"])

    assert predicted(model, COLUMNS, fields(a=FLOAT, b=FLOAT), fields(y=FLOAT)) == {"y": [12.0, 34.0]}
    assert list(model.given.columns) == ["height", "width"]


def test_lists_and_numbers_stand_side_by_side() -> None:
    columns = {"pair": ROWS, "c": np.array([7.0, 8.0])}

    table = Inputs(fields(pair=LIST, c=FLOAT), None, frames=True).table(columns)

    assert table.tolist() == [[1.0, 2.0, 7.0], [3.0, 4.0, 8.0]]


def test_texts_beside_numbers_stay_texts() -> None:
    columns = {"a": np.array([1.5, 2.5]), "t": np.array(["x", "y"], dtype=object)}

    assert Inputs(fields(a=FLOAT, t=TEXT), None, frames=True).table(columns).tolist() == [[1.5, "x"], [2.5, "y"]]


def test_what_takes_texts_gets_them_as_they_are() -> None:
    texts = np.array(["x", "y"], dtype=object)

    assert Inputs(fields(t=TEXT), None, frames=True, texts=True).table({"t": texts}) is texts


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (["a"], "has 1 fields, the model was trained on 2 features: a, b"),
        (["a", "c"], "has the fields c, which the model was not trained on; it was on b"),
    ],
)
def test_fields_that_cannot_be_the_features_are_named(own: list[str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Inputs(fields(**dict.fromkeys(own, FLOAT)), ["a", "b"], frames=True)


def test_ragged_rows_and_too_few_features_are_named_without_values() -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [np.array([1.0]), np.array([1.0, 2.0])]
    with pytest.raises(ValueError, match="'inputs' has lists of different lengths"):
        Inputs(fields(inputs=LIST), None, frames=True).table({"inputs": ragged})
    with pytest.raises(ValueError, match=r"trained on 3 features \(a, b, c\), and the rows have 2"):
        Inputs(fields(inputs=LIST), ["a", "b", "c"], frames=True).table({"inputs": ROWS})


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        (fields(predictions=FLOAT), {"predictions": [12.0, 34.0]}),
        (fields(anything=FLOAT), {"anything": [12.0, 34.0]}),
        (fields(probabilities=LIST), {"probabilities": ROWS.tolist()}),
        (fields(probability=FLOAT), {"probability": [2.0, 4.0]}),
        (fields(probabilities=LIST, y=FLOAT), {"probabilities": ROWS.tolist(), "y": [12.0, 34.0]}),
        (fields(y=FLOAT, p=LIST), {"y": [12.0, 34.0], "p": ROWS.tolist()}),
        (fields(predictions=FLOAT, p=LIST), {"predictions": [12.0, 34.0], "p": ROWS.tolist()}),
    ],
    ids=lambda value: "-".join(f["name"] for f in value) if isinstance(value, list) else "",
)
def test_results_go_to_fields_by_name_and_else_by_position(outputs: Any, expected: dict[str, Any]) -> None:
    assert predicted(Sums(), {"inputs": ROWS}, fields(inputs=LIST), outputs) == expected


def test_a_transformer_fills_one_list_or_one_field_per_column() -> None:
    one = predicted(Halves(), {"inputs": ROWS}, fields(inputs=LIST), fields(scaled=LIST))
    each = predicted(Halves(), {"inputs": ROWS}, fields(inputs=LIST), fields(x=FLOAT, y=FLOAT))

    assert one == {"scaled": [[0.5, 1.0], [1.5, 2.0]]}
    assert each == {"x": [0.5, 1.5], "y": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("model", "outputs", "words"),
    [
        (
            Halves(),
            fields(predictions=FLOAT),
            "'predictions' asks for what a Halves does not have: predict. It has: tra",
        ),
        (Halves(), fields(x=FLOAT), "transform gives 2 values per row, and field 'x' takes one"),
        (Halves(), fields(x=FLOAT, y=FLOAT, z=FLOAT), "transform gives 2 values per row, and the output schema has 3"),
        (
            Sums(),
            fields(predictions=FLOAT, probabilities=LIST, z=FLOAT),
            "'z' has no known name, and no result of a Sums",
        ),
    ],
)
def test_fields_that_no_result_can_fill_are_named(model: Any, outputs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        predicted(model, {"inputs": ROWS}, fields(inputs=LIST), outputs)


def test_sparse_results_become_arrays() -> None:
    class Sparse:
        def toarray(self) -> Any:
            return ROWS

    columns = Outputs(fields(x=LIST), {"transform": lambda _: Sparse()}, "transform", "a model").columns(None)

    assert columns["x"] is ROWS


def test_a_pickle_is_found_in_a_zipped_folder_and_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "numbers.pickle").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "model" / "requirements.txt").write_text("")

    with pytest.raises(TypeError, match="The pickle holds a list, which has neither predict nor transform"):
        load("sklearn", str(tmp_path), fields(inputs=LIST), fields(y=FLOAT), {})


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (
            b"cnot_installed.anywhere\nThing\n.",
            ModuleNotFoundError,
            "No module named 'not_installed'. Zip it with a req",
        ),
        (b"ccollections\nNoSuchClass\n.", ValueError, r"does not load with the installed versions \(Python 3"),
        (b"\x80\x04oops", ValueError, "Zip it with a requirements.txt that pins the versions"),
        (
            b"\x80\x04\x8c\x10_sklearn_version\x94\x8c\x051.0.2\x94oops",
            ValueError,
            r"It was written with scikit-learn 1\.0\.2\.",
        ),
    ],
)
def test_a_pickle_that_does_not_load_says_what_it_lacks(
    tmp_path: Path, data: bytes, error: type[Exception], words: str
) -> None:
    (tmp_path / "model.pkl").write_bytes(data)

    with pytest.raises(error, match=words):
        load("sklearn", str(tmp_path), fields(inputs=LIST), fields(y=FLOAT), {})


def test_unknown_frameworks_are_not_imported() -> None:
    with pytest.raises(ValueError, match=r"knows no framework '\.\./os'"):
        load("../os", "/", [], [], {})
