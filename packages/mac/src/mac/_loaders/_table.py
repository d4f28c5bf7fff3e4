"""Columns of a schema as the one table that tabular libraries take, and their results as columns of a schema.

Inputs: a list field gives as many features as its lists have entries, any other field one; side by side in the order
of the schema. Where the model knows the names of its features and the schema's fields have the same names, the model's
order counts. Outputs: fields are matched by name (`predictions`, `probabilities`, …), the others by their position.
"""

from __future__ import annotations

import typing
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

LISTS = ("list", "fixed_list")

PREDICT, PROBABILITY, DECISION, TRANSFORM = "predict", "predict_proba", "decision_function", "transform"
_BY_NAME = {
    PREDICT: ("prediction", "predictions", "predict", "predicted", "label", "labels", "cluster", "clusters", "class"),
    PROBABILITY: ("probability", "probabilities", "predict_proba", "proba", "probas"),
    DECISION: ("decision", "decisions", "decision_function"),
    TRANSFORM: ("transformed", "transform", "transformed_result", "transformed_results", "transformed_data"),
}
RESULT_OF_NAME = {name: result for result, names in _BY_NAME.items() for name in names}


class Inputs:
    """The table of a request's columns, for a model with these feature names (None when it knows none)."""

    def __init__(self, fields: Fields, names: Optional[Sequence[str]], *, frames: bool, texts: bool = False) -> None:
        """`frames`: give a pandas DataFrame where the features have names and pandas is installed. `texts`: the model
        takes a sequence of texts, not a table.

        Raises:
            ValueError: the schema cannot be what the model was trained on.
        """
        own = [field["name"] for field in fields]
        self._lists = [field["type"]["kind"] in LISTS for field in fields]
        self._texts = texts and len(fields) == 1 and not self._lists[0]
        self._order, self._names = own, None if names is None else [str(name) for name in names]
        if self._names is not None and not any(self._lists):
            self._order = _matched(own, self._names)
        self._pandas = _pandas() if frames and self._names is not None else None

    def table(self, columns: Dict[str, np.ndarray]) -> Any:
        """Shape (rows, features); (rows,) for texts."""
        if self._texts:
            return columns[self._order[0]]
        parts = [_two_axes(name, columns[name]) for name in self._order]
        if self._pandas is not None and self._names is not None:
            return self._frame(parts)
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts, axis=1) if _alike(parts) else _mixed(parts)

    def _frame(self, parts: List[np.ndarray]) -> Any:
        names = typing.cast("List[str]", self._names)
        found = sum(part.shape[1] for part in parts)
        if found != len(names):
            raise ValueError(
                "The model was trained on %d features (%s), and the rows have %d. Send them in that order."
                % (len(names), ", ".join(names[:8]) + (", …" if len(names) > 8 else ""), found)
            )
        pandas = typing.cast("Any", self._pandas)
        if len(parts) == 1:
            return pandas.DataFrame(parts[0], columns=names, copy=False)
        plain = (part[:, at] for part in parts for at in range(part.shape[1]))  # each column keeps its own type
        return pandas.DataFrame(dict(zip(names, plain)), columns=names, copy=False)


def _matched(own: List[str], names: List[str]) -> List[str]:
    """The schema's fields in the order of the features the model was trained on."""
    if set(own) == set(names):
        return names
    if len(own) != len(names):
        raise ValueError(
            "The input schema has %d fields, the model was trained on %d features: %s. Give the schema these fields."
            % (len(own), len(names), ", ".join(names))
        )
    if common := set(own) & set(names):
        raise ValueError(
            "The input schema has the fields %s, which the model was not trained on; it was on %s. "
            "Name all fields as in training, or none of them (then their order counts)."
            % (", ".join(sorted(set(own) - common)), ", ".join(sorted(set(names) - common)))
        )
    return own


def _two_axes(name: str, column: np.ndarray) -> np.ndarray:
    if column.ndim == 1 and column.dtype == object and len(column) and isinstance(column[0], np.ndarray):
        raise ValueError(
            "Column '%s' has lists of different lengths. Send as many values as there are features." % name
        )
    if column.ndim == 1:
        return column.reshape(len(column), 1)
    return column.reshape(len(column), -1) if column.ndim > 2 else column


def _alike(parts: List[np.ndarray]) -> bool:
    return all(part.dtype.kind in "biuf" for part in parts)


def _mixed(parts: List[np.ndarray]) -> np.ndarray:
    """Columns of several kinds side by side, each value as it is."""
    return np.concatenate([part.astype(object) for part in parts], axis=1)


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        return None
    return pandas


class Outputs:
    """What to ask of a model for the fields of the output schema, decided once."""

    def __init__(self, fields: Fields, ways: Dict[str, Callable[[Any], Any]], main: str, made: str) -> None:
        """`ways` are the results the model can give, `main` the one that a field without a known name stands for;
        `made` names the model for people.

        Raises:
            ValueError: a field names a result that the model does not have, or none is left for it.
        """
        self._ways = ways
        self._parts: Dict[str, List[Dict[str, Any]]] = {}
        rest: List[Dict[str, Any]] = []
        for field in fields:
            result = RESULT_OF_NAME.get(field["name"].lower())
            if result is None:
                rest.append(field)
            elif result in ways:
                self._parts.setdefault(result, []).append(field)
            else:
                raise ValueError(
                    "Output field '%s' asks for what %s does not have: %s. It has: %s."
                    % (field["name"], made, result, ", ".join(sorted(ways)))
                )
        if rest:
            self._place(rest, main, made)

    def _place(self, rest: List[Dict[str, Any]], main: str, made: str) -> None:
        """Fields without a known name: the main result, then probabilities; else each is a column of the main one."""
        if main in self._parts:
            main = PROBABILITY
        elif len(rest) == 2 and PROBABILITY in self._ways and PROBABILITY not in self._parts and _is_list(rest[1]):
            self._parts[PROBABILITY] = [rest.pop()]
        if main not in self._ways or main in self._parts:
            raise ValueError(
                "Output field '%s' has no known name, and no result of %s is left for it. Known names: %s."
                % (rest[0]["name"], made, ", ".join(sorted(RESULT_OF_NAME)))
            )
        self._parts[main] = rest

    def columns(self, table: Any) -> Dict[str, Any]:
        """The columns of the output schema."""
        columns: Dict[str, Any] = {}
        for result, fields in self._parts.items():
            values = dense(self._ways[result](table))
            spread(values, fields, result, columns)
        return columns


def spread(values: np.ndarray, fields: List[Dict[str, Any]], result: str, columns: Dict[str, Any]) -> None:
    """Put a result of shape (rows,) or (rows, width) into the fields that stand for it.

    Raises:
        ValueError: there are more or fewer columns than fields.
    """
    if len(fields) == 1:
        field = fields[0]
        if not _is_list(field) and values.ndim == 2 and values.shape[1] != 1:
            if result == PROBABILITY and values.shape[1] == 2:
                values = values[:, 1]  # of the second class, as everybody means by "the probability"
            else:
                raise ValueError(
                    "%s gives %d values per row, and field '%s' takes one. Declare it as a list: pa.list_(…, %d)."
                    % (result, values.shape[1], field["name"], values.shape[1])
                )
        columns[field["name"]] = values
        return
    width = values.shape[1] if values.ndim == 2 else 1
    if width != len(fields):
        raise ValueError(
            "%s gives %d values per row, and the output schema has %d fields for it: %s."
            % (result, width, len(fields), ", ".join(field["name"] for field in fields))
        )
    for at, field in enumerate(fields):
        columns[field["name"]] = values[:, at]


def dense(values: Any) -> np.ndarray:
    """A result as a plain array: of sparse matrices, DataFrames and lists too."""
    if hasattr(values, "toarray"):
        values = values.toarray()
    return np.asarray(values)


def _is_list(field: Dict[str, Any]) -> bool:
    return field["type"]["kind"] in LISTS
