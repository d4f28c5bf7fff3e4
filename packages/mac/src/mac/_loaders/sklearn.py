"""SKLEARN: a pickled estimator, pipeline or transformer."""

from __future__ import annotations

import typing
from typing import Any, Dict

from mac._loaders._files import PICKLES, only_file, read_pickle
from mac._loaders._table import DECISION, PREDICT, PROBABILITY, TRANSFORM, Inputs, Outputs

if typing.TYPE_CHECKING:
    import numpy as np

    from mac._loaders import Fields


class SklearnModel:
    """An estimator, and how the schemas' columns go in and come out."""

    def __init__(self, estimator: Any, inputs: Fields, outputs: Fields) -> None:
        made = type(estimator).__name__
        methods = [name for name in (PREDICT, PROBABILITY, DECISION, TRANSFORM) if hasattr(estimator, name)]
        if PREDICT not in methods and TRANSFORM not in methods:
            raise TypeError(
                "The pickle holds a %s, which has neither predict nor transform. Pickle the trained model itself."
                % made
            )
        main = PREDICT if PREDICT in methods else TRANSFORM
        names = getattr(estimator, "feature_names_in_", None)
        # what takes texts, such as a TfidfVectorizer at the head of a pipeline, has no number of features
        texts = not hasattr(estimator, "n_features_in_")
        self._inputs = Inputs(inputs, names, frames=True, texts=texts)
        self._outputs = Outputs(outputs, {name: getattr(estimator, name) for name in methods}, main, "a " + made)

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        return self._outputs.columns(self._inputs.table(columns))


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> SklearnModel:
    """Raises what unpickling raises, and ValueError when the schemas do not fit the model."""
    return SklearnModel(read_pickle(only_file(folder, PICKLES)), inputs, outputs)
