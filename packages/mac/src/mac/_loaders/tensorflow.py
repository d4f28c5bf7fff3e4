"""TENSORFLOW: a SavedModel's signature `serving_default`, on the CPU."""

from __future__ import annotations

import os
import typing
from typing import Any, Dict, List, Optional

import numpy as np

from mac._loaders._files import content_folder
from mac._loaders._tensors import answer, is_stacked, matched, numbers, shaped, stacked

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

SAVED_MODEL, SIGNATURE = "saved_model.pb", "serving_default"


class Signature:
    """One signature of a SavedModel. Rows are the first axis of every input and output."""

    def __init__(self, tf: Any, model: Any, signature: Any, inputs: Fields, outputs: Fields) -> None:
        self._tf, self._inputs, self._outputs = tf, inputs, outputs
        self._model, self._signature = model, signature  # the signature alone does not keep the variables
        self._specs = dict(signature.structured_input_signature[1])
        self._stacked = is_stacked(inputs, len(self._specs))
        self._names = {} if self._stacked else matched(inputs, sorted(self._specs), "input")
        matched(outputs, sorted(signature.structured_outputs), "output")

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        if self._stacked:
            name = next(iter(self._specs))
            given = {name: self._tensor(stacked(columns, self._inputs), name, "inputs")}
        else:
            given = {own: self._tensor(columns[name], own, name) for name, own in self._names.items()}
        result = self._signature(**given)
        found = answer(dict(sorted(result.items())), self._outputs)
        return {field["name"]: _array(found[field["name"]], field["type"]) for field in self._outputs}

    def _tensor(self, values: np.ndarray, own: str, name: str) -> Any:
        spec = self._specs[own]
        if spec.dtype != self._tf.string:
            values = numbers(values, name).astype(spec.dtype.as_numpy_dtype, copy=False)
        return self._tf.constant(shaped(values, _shape(spec)), dtype=spec.dtype)


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> Signature:
    """Raises ValueError when there is no SavedModel, or its signature does not fit the schemas."""
    root = saved_model(folder)
    if root is None:
        raise ValueError(
            "The artifact has no saved_model.pb. Zip the folder that model.export() or tf.saved_model made."
        )
    return signature_of(root, inputs, outputs)


def signature_of(root: str, inputs: Fields, outputs: Fields) -> Signature:
    """The signature of the SavedModel in the folder `root`."""
    tf = start()
    model = tf.saved_model.load(reachable(root))
    known: List[str] = sorted(model.signatures)
    name = SIGNATURE if SIGNATURE in known else known[0] if len(known) == 1 else None
    if name is None:
        raise ValueError(
            "The SavedModel has no signature '%s'; it has: %s. Save it with tf.saved_model.save(model, folder, "
            "signatures={'%s': function})." % (SIGNATURE, ", ".join(known) or "none", SIGNATURE)
        )
    return Signature(tf, model, model.signatures[name], inputs, outputs)


def saved_model(folder: str) -> Optional[str]:
    """The folder of a SavedModel: the artifact's content, when it is one."""
    folder = content_folder(folder)
    return folder if os.path.isfile(os.path.join(folder, SAVED_MODEL)) else None


def reachable(path: str) -> str:
    """The same place from the current folder, which is the artifact's.

    TensorFlow looks with access(2) whether a file is there. That call asks what the user may, not what the process may:
    a worker of another user than the server's reads the artifact all the same, but not by a way through folders that
    are closed to that user.
    """
    return os.path.relpath(path)


def start() -> Any:
    """The library, quiet, without a GPU, with as many threads as the worker was given."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    import tensorflow as tf

    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        tf.config.threading.set_intra_op_parallelism_threads(int(threads))
        tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


def _array(value: Any, tree: Dict[str, Any]) -> Any:
    """A tensor as numpy. TensorFlow's texts are bytes; they are text unless the schema says binary."""
    values = value.numpy()
    while "child" in tree:
        tree = tree["child"]
    if values.dtype != object or tree["kind"] != "utf8":
        return values
    texts = [item.decode("utf-8") if isinstance(item, bytes) else item for item in values.ravel()]
    return np.array(texts, dtype=object).reshape(values.shape)


def _shape(spec: Any) -> List[Optional[int]]:
    return list(spec.shape) if spec.shape.rank is not None else [None, None]
