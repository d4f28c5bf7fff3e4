"""KERAS: .keras and .h5 files by the Keras of the environment; a SavedModel by its signature, which needs no Keras."""

from __future__ import annotations

import inspect
import typing
from typing import Any, Dict, List, Optional

from mac._loaders import tensorflow
from mac._loaders._files import only_file
from mac._loaders._tensors import answer, is_stacked, matched, numbers, shaped, stacked

if typing.TYPE_CHECKING:
    import numpy as np

    from mac._loaders import Fields

ENDINGS = (".keras", ".h5", ".hdf5")


class KerasModel:
    """A model with known inputs, of Keras 2 or 3. Rows are the first axis of every input and output."""

    def __init__(self, model: Any, inputs: Fields, outputs: Fields) -> None:
        self._model, self._inputs, self._outputs = model, inputs, outputs
        nested = getattr(model, "input", None)  # a loaded Sequential has none before its first call
        self._as_dict = sorted(nested) if isinstance(nested, dict) else None
        self._output_names = [str(name) for name in getattr(model, "output_names", ())]
        known = self._as_dict or _names(model)
        self._stacked = is_stacked(inputs, len(known))
        own = {} if self._stacked else {key: name for name, key in matched(inputs, known, "input").items()}
        self._order = [own[key] for key in known] if own else []
        by_key = nested if isinstance(nested, dict) else dict(zip(known, model.inputs))
        self._declared = [by_key[key] for key in known]
        if self._output_names:
            matched(outputs, self._output_names, "output")

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        if self._stacked:
            given: List[Any] = [self._array(stacked(columns, self._inputs), "inputs", self._declared[0])]
        else:
            given = [self._array(columns[n], n, tensor) for n, tensor in zip(self._order, self._declared)]
        asked: Any = given[0] if len(given) == 1 else given
        if self._as_dict is not None:
            asked = dict(zip(self._as_dict, given))
        return answer(self._model.predict_on_batch(asked), self._outputs, self._output_names)

    def _array(self, values: np.ndarray, name: str, declared: Any) -> np.ndarray:
        dtype = getattr(declared.dtype, "name", declared.dtype)
        if dtype != "string":
            values = numbers(values, name).astype(dtype, copy=False)
        return shaped(values, list(declared.shape))


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> Any:
    """Raises ValueError when the file cannot be loaded by this Keras, or its inputs do not fit the schema."""
    root = tensorflow.saved_model(folder)
    if root is not None:
        return tensorflow.signature_of(root, inputs, outputs)
    model = _loaded(tensorflow.reachable(only_file(folder, ENDINGS)))
    if not getattr(model, "inputs", None):
        raise ValueError(
            "The model does not say what it takes: it was saved before it was built. Call it once, or give it an Input "
            "layer, then save it."
        )
    return KerasModel(model, inputs, outputs)


def _loaded(path: str) -> Any:
    keras = tensorflow.start().keras
    options: Dict[str, Any] = {"compile": False}
    if "safe_mode" in inspect.signature(keras.models.load_model).parameters:  # since 2.13
        options["safe_mode"] = False  # a Lambda layer is code, which runs here and nowhere else: this is the sandbox
    try:
        return keras.models.load_model(path, **options)
    except (TypeError, ValueError, KeyError) as failed:
        raise ValueError(
            "Keras %s cannot load the file: %s. If it was saved by another version, name that in the upload's "
            "requirements (tensorflow-cpu==2.15.* is the last with Keras 2). If it has layers of your own, upload the "
            "SavedModel that model.export(folder) makes." % (_version(keras), _first_line(failed))
        ) from failed


def _names(model: Any) -> List[str]:
    names: Optional[List[str]] = getattr(model, "input_names", None)  # Keras 2
    return [str(name) for name in names or [tensor.name for tensor in model.inputs]]


def _version(keras: Any) -> str:
    return str(getattr(keras, "__version__", None) or keras.version())


def _first_line(failed: BaseException) -> str:
    return next((line.strip() for line in str(failed).splitlines() if line.strip()), type(failed).__name__)[
        :300
    ].rstrip(".")
