"""What a pyfunc is given and where its result goes, for each form of signature and result."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mac._loaders.mlflow import MlflowModel

FLOAT = {"kind": "fixed", "dtype": "<f8", "of": "double"}
LIST = {"kind": "list", "child": FLOAT, "of": "list"}
ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])


class Signature:
    """As much of MLflow's schema as is asked."""

    def __init__(self, *names: str, tensors: bool = False, optional: tuple[str, ...] = ()) -> None:
        self._names, self._tensors = names, tensors
        self.inputs = [SimpleNamespace(name=name, required=name not in optional) for name in names]

    def is_tensor_spec(self) -> bool:
        return self._tensors

    def has_input_names(self) -> bool:
        return bool(self._names)

    def input_names(self) -> list[str]:
        return list(self._names)


class Pyfunc:
    def __init__(self, signature: Signature | None, result: Any = None) -> None:
        self.metadata = SimpleNamespace(signature=None if signature is None else SimpleNamespace(inputs=signature))
        self.result = result
        self.given: Any = None

    def predict(self, given: Any) -> Any:
        self.given = given
        return np.arange(2.0) if self.result is None else self.result


def fields(**types: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "type": kind} for name, kind in types.items()]


def asked(pyfunc: Pyfunc, columns: dict[str, Any], inputs: Any, outputs: Any) -> dict[str, Any]:
    answer = MlflowModel(pyfunc, inputs, outputs).predict(columns)
    return {name: np.asarray(values).tolist() for name, values in answer.items()}


@pytest.mark.parametrize("columns", [{"inputs": ROWS}, {"a": ROWS[:, 0], "b": ROWS[:, 1]}], ids=["list", "columns"])
def test_a_signature_of_columns_gets_a_frame_with_its_names(columns: dict[str, Any]) -> None:
    pyfunc = Pyfunc(Signature("a", "b"))
    inputs = fields(inputs=LIST) if "inputs" in columns else fields(a=FLOAT, b=FLOAT)

    assert asked(pyfunc, columns, inputs, fields(y=FLOAT)) == {"y": [0.0, 1.0]}
    pd.testing.assert_frame_equal(pyfunc.given, pd.DataFrame(ROWS, columns=["a", "b"]))


def test_a_signature_of_one_tensor_gets_the_array_and_of_several_a_dict() -> None:
    one, several = Pyfunc(Signature(tensors=True)), Pyfunc(Signature("p", "q", tensors=True))

    asked(one, {"anything": ROWS}, fields(anything=LIST), fields(y=FLOAT))
    asked(several, {"p": ROWS, "q": ROWS}, fields(p=LIST, q=LIST), fields(y=FLOAT))

    assert one.given is ROWS
    assert several.given == {"p": ROWS, "q": ROWS}


def test_without_a_signature_a_frame_is_given() -> None:
    pyfunc = Pyfunc(None)

    asked(pyfunc, {"a": ROWS[:, 0], "l": ROWS}, fields(a=FLOAT, l=LIST), fields(y=FLOAT))

    assert pyfunc.given["a"].tolist() == [1.0, 3.0]
    assert [list(cell) for cell in pyfunc.given["l"]] == ROWS.tolist()


def test_a_column_that_the_signature_demands_and_the_schema_lacks_is_named() -> None:
    with pytest.raises(ValueError, match="signature takes a, b, c; the input schema lacks c"):
        MlflowModel(Pyfunc(Signature("a", "b", "c")), fields(a=FLOAT, b=FLOAT), fields(y=FLOAT))

    optional = Pyfunc(Signature("a", "b", "c", optional=("c",)))
    assert MlflowModel(optional, fields(a=FLOAT, b=FLOAT), fields(y=FLOAT))


@pytest.mark.parametrize(
    ("result", "outputs", "expected"),
    [
        (pd.DataFrame({"y": [1.0, 2.0], "z": [3.0, 4.0]}), fields(z=FLOAT), {"z": [3.0, 4.0]}),
        (
            pd.DataFrame({"y": [1.0, 2.0], "z": [3.0, 4.0]}),
            fields(b=FLOAT, a=FLOAT),
            {"b": [1.0, 2.0], "a": [3.0, 4.0]},
        ),
        (pd.Series([1.0, 2.0]), fields(y=FLOAT), {"y": [1.0, 2.0]}),
        ([1.0, 2.0], fields(y=FLOAT), {"y": [1.0, 2.0]}),
        (ROWS, fields(y=LIST), {"y": ROWS.tolist()}),
        (ROWS, fields(a=FLOAT, b=FLOAT), {"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        ({"out": np.array([1.0, 2.0])}, fields(y=FLOAT), {"y": [1.0, 2.0]}),
        ({"y": [1.0, 2.0], "n": [0, 0]}, fields(y=FLOAT, n=FLOAT), {"y": [1.0, 2.0], "n": [0, 0]}),
        ([{"y": 1.0}, {"y": 2.0}], fields(y=FLOAT), {"y": [1.0, 2.0]}),
    ],
)
def test_each_form_of_result_finds_its_fields(result: Any, outputs: Any, expected: dict[str, Any]) -> None:
    pyfunc = Pyfunc(Signature("a", "b"), result)

    assert asked(pyfunc, {"a": ROWS[:, 0], "b": ROWS[:, 1]}, fields(a=FLOAT, b=FLOAT), outputs) == expected


def test_a_result_with_other_columns_than_fields_is_named() -> None:
    pyfunc = Pyfunc(Signature("a"), pd.DataFrame({"x": [1.0], "y": [1.0], "z": [1.0]}))

    with pytest.raises(ValueError, match="returned the columns x, y, z, and the output schema has the fields p, q"):
        asked(pyfunc, {"a": ROWS[:1, 0]}, fields(a=FLOAT), fields(p=FLOAT, q=FLOAT))
