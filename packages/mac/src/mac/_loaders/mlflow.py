"""MLFLOW: a saved model with the pyfunc flavour, called as mlflow calls it."""

from __future__ import annotations

import os
import typing
from typing import Any, Dict, List

from mac._loaders._files import content_folder
from mac._loaders._table import LISTS, dense, spread

if typing.TYPE_CHECKING:
    import numpy as np

    from mac._loaders import Fields

QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_TRACKING_URI": "file:///nonexistent"}


class MlflowModel:
    """A pyfunc, the form in which its signature takes rows, and the fields that its result goes to."""

    def __init__(self, pyfunc: Any, inputs: Fields, outputs: Fields) -> None:
        self._pyfunc = pyfunc
        self._outputs = outputs
        self._names = [field["name"] for field in inputs]
        signature = pyfunc.metadata.signature
        schema = None if signature is None else signature.inputs
        self._tensors = schema is not None and schema.is_tensor_spec()
        expected = [] if schema is None or not schema.has_input_names() else list(schema.input_names())
        optional = set() if schema is None or self._tensors else set(_optional(schema))
        missing = [name for name in expected if name not in self._names and name not in optional]
        self._one = len(self._names) == 1 and (len(expected) > 1 or not expected)
        if missing and not self._one:
            raise ValueError(
                "The model's signature takes %s; the input schema lacks %s. Name its fields as in the signature."
                % (", ".join(expected), ", ".join(missing))
            )
        self._features = expected if self._one else []

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        return _fields_of(self._pyfunc.predict(self._given(columns)), self._outputs)

    def _given(self, columns: Dict[str, np.ndarray]) -> Any:
        """An array or a dict of arrays for tensors, a DataFrame otherwise. One list field stands for all features."""
        if self._tensors:
            return columns[self._names[0]] if self._one else columns
        import pandas

        if self._one and columns[self._names[0]].ndim == 2:
            return pandas.DataFrame(columns[self._names[0]], columns=self._features or None)
        return pandas.DataFrame({name: _cells(columns[name]) for name in self._names})


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> MlflowModel:
    """Raises what mlflow raises."""
    os.environ.update(QUIET)
    import mlflow.pyfunc

    return MlflowModel(mlflow.pyfunc.load_model(content_folder(folder)), inputs, outputs)


def _optional(schema: Any) -> List[str]:
    return [column.name for column in schema.inputs if not getattr(column, "required", True)]


def _cells(column: np.ndarray) -> Any:
    """A column of a DataFrame: lists as lists, one per cell."""
    return column if column.ndim == 1 else list(column)


def _fields_of(result: Any, outputs: Fields) -> Dict[str, Any]:
    """Results by name where they have names, else by position."""
    columns: Dict[str, Any] = {}
    names = [field["name"] for field in outputs]
    if hasattr(result, "columns") and hasattr(result, "iloc"):  # a DataFrame
        if set(names) <= set(result.columns):
            return {name: _column(result[name]) for name in names}
        if len(names) == len(result.columns):
            return {name: _column(result.iloc[:, at]) for at, name in enumerate(names)}
        if len(names) > 1:
            raise ValueError(
                "The model returned the columns %s, and the output schema has the fields %s."
                % (", ".join(map(str, result.columns)), ", ".join(names))
            )
    elif isinstance(result, dict):
        if len(result) == 1 and len(names) == 1:
            return {names[0]: next(iter(result.values()))}
        return dict(result)
    elif isinstance(result, (list, tuple)) and result and isinstance(result[0], dict):
        return {name: [row[name] for row in result] for name in names}
    values = dense(result)
    if values.dtype == object and values.ndim == 1 and outputs[0]["type"]["kind"] in LISTS:
        return {names[0]: values}
    spread(values, list(outputs), "The model", columns)
    return columns


def _column(series: Any) -> np.ndarray:
    return typing.cast("np.ndarray", series.to_numpy())
