"""Between the fields of a schema and the inputs and outputs of a model that takes tensors.

A field goes to the model's input of that name. Where the model knows none of the names, fields go by position: in the
schema's order, or by their numbers where all are called input_1, input_2, ….
"""

from __future__ import annotations

import re
import typing
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

_NUMBERED = re.compile(r"(?:input|output)_(\d+)")


def in_position(fields: Fields) -> List[str]:
    """The names of fields in the order in which a model takes or gives them."""
    names = [field["name"] for field in fields]
    numbers = [_NUMBERED.fullmatch(name) for name in names]
    if names and all(numbers):
        return sorted(names, key=lambda name: int(name.rpartition("_")[2]))
    return names


def is_stacked(fields: Fields, takes: int) -> bool:
    """Whether columns of single numbers are the features of a model with one input, one column each."""
    return takes == 1 and len(fields) > 1 and all(_is_number(field["type"]) for field in fields)


def stacked(columns: Dict[str, np.ndarray], fields: Fields) -> np.ndarray:
    """Columns of single numbers as one array of shape (rows, columns), in the order of the schema."""
    return np.stack([columns[field["name"]] for field in fields], axis=1)


def matched(fields: Fields, known: Sequence[str], which: str) -> Dict[str, str]:
    """The model's name of each field, by field name. `which` is "input" or "output"; outputs may be left out.

    Raises:
        ValueError: some names are the model's and some are not, or their number is another.
    """
    names = in_position(fields)
    own = [name for name in names if name in known]
    if len(own) == len(names) and (which == "output" or len(names) == len(known)):
        return {name: name for name in names}
    if own or len(names) != len(known):
        raise ValueError(
            "The model has the %ss %s; the schema has %s. Declare one field for each, with these names or in this "
            "order." % (which, _listed(known), _listed(names))
        )
    return dict(zip(names, known))


def answer(result: object, fields: Fields, names: Sequence[str] = ()) -> Dict[str, Any]:
    """What a model returned, by output field: a dict or named tuple by its keys, a sequence by `names` or position.

    Raises:
        ValueError: there are more or fewer outputs than fields, and their names do not tell which is which.
    """
    if hasattr(result, "_asdict"):
        result = typing.cast("Any", result)._asdict()
    if isinstance(result, dict):
        return {name: result[key] for name, key in matched(fields, [str(key) for key in result], "output").items()}
    if not isinstance(result, (list, tuple)):
        result = [result]
    if len(names) == len(result) and any(field["name"] in names for field in fields):
        by_name = dict(zip(names, result))
        return {name: by_name[key] for name, key in matched(fields, names, "output").items()}
    if len(result) != len(fields):
        raise ValueError(
            "The model returned %d outputs; the output schema has %d fields: %s. Declare one field for each output, in "
            "its order." % (len(result), len(fields), _listed([field["name"] for field in fields]))
        )
    return dict(zip(in_position(fields), result))


def numbers(values: np.ndarray, name: str) -> np.ndarray:
    """`values` if they can be a tensor.

    Raises:
        ValueError: rows of different lengths, texts or other things that are not numbers.
    """
    if values.dtype == object:
        what = "lists of different lengths" if any(isinstance(v, np.ndarray) for v in values) else "values, not numbers"
        raise ValueError(
            "Input field '%s' came with %s; a tensor has one length for all rows. Send them in requests of their own, "
            "or declare a fixed-size list and fill the rows up." % (name, what)
        )
    if values.dtype.kind not in "biuf":
        raise ValueError("Input field '%s' holds %s; a tensor takes numbers and booleans." % (name, values.dtype))
    return values


def shaped(values: np.ndarray, shape: Sequence[Optional[int]]) -> np.ndarray:
    """`values` in the form (rows, …) that a model declares; `shape` has None where any size will do.

    Single numbers become lists of one; a flat list becomes the declared nested one if that has as many numbers.
    """
    inner = [size for size in shape[1:] if size is not None]
    if len(inner) < len(shape) - 1:  # a size is open
        return values.reshape(-1, 1) if values.ndim == 1 and len(shape) == 2 else values
    if values.ndim in (1, 2) and values.ndim != len(shape) and values.size == len(values) * int(np.prod(inner)):
        return values.reshape([len(values), *inner])
    return values


def _is_number(tree: Dict[str, Any]) -> bool:
    return tree["kind"] == "fixed" and np.dtype(tree["dtype"]).kind in "biuf"


def _listed(names: Sequence[str]) -> str:
    return ", ".join("'%s'" % name for name in names) or "none"
