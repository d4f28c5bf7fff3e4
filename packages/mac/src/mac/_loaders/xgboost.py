"""XGBOOST: a Booster or one of the wrappers in scikit-learn's manner, pickled or saved by save_model."""

from __future__ import annotations

import json
import os
import typing
from typing import Any, Callable, Dict

import numpy as np

from mac._loaders._files import PICKLES, only_file, read_pickle
from mac._loaders._table import PREDICT, PROBABILITY, Inputs, Outputs

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

SAVED = (".json", ".ubj", ".bin", ".model")


class XgboostModel:
    """A model, and how the schemas' columns go in and come out. Its threads are those that the worker was given."""

    def __init__(self, model: Any, inputs: Fields, outputs: Fields) -> None:
        import xgboost

        threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
        made = "a " + type(model).__name__
        if isinstance(model, xgboost.Booster):
            model.set_param({"nthread": threads})
            names, ways, frames = model.feature_names, _of_booster(model, xgboost), False
        elif hasattr(model, "get_booster"):
            model.set_params(n_jobs=threads)
            names, ways, frames = model.get_booster().feature_names, _of_wrapper(model), True
        else:
            raise TypeError(
                "The pickle holds %s, which is no XGBoost model. Pickle the Booster or the XGBClassifier itself; "
                "a scikit-learn pipeline is of framework SKLEARN." % made
            )
        self._inputs = Inputs(inputs, names, frames=frames)
        self._outputs = Outputs(outputs, ways, PREDICT, made)

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        return self._outputs.columns(self._inputs.table(columns))


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> XgboostModel:
    """Raises what unpickling or XGBoost raises, and ValueError when the schemas do not fit the model."""
    path = only_file(folder, (*PICKLES, *SAVED))
    model = read_pickle(path) if path.endswith(PICKLES) else _saved(path)
    return XgboostModel(model, inputs, outputs)


def _saved(path: str) -> Any:
    """What save_model wrote: a wrapper when a wrapper saved it, so that its predictions are its own."""
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(path)
    said = json.loads(booster.attr("scikit_learn") or "{}")
    kind = said.get("_estimator_type") or {"XGBClassifier": "classifier", "XGBRFClassifier": "classifier"}.get(
        said.get("type", ""), "regressor"
    )
    wrappers = {"classifier": "XGBClassifier", "regressor": "XGBRegressor", "ranker": "XGBRanker"}
    if not said or kind not in wrappers:
        return booster
    wrapper = getattr(xgboost, wrappers[kind])()
    wrapper.load_model(path)
    return wrapper


def _of_wrapper(model: Any) -> Dict[str, Callable[[Any], Any]]:
    names = (PREDICT, PROBABILITY)
    return {name: getattr(model, name) for name in names if hasattr(model, name)}


def _of_booster(booster: Any, xgboost: Any) -> Dict[str, Callable[[Any], Any]]:
    """What a Booster gives: its own predictions, and for classes their probabilities.

    A matrix of probabilities (multi:softprob) is what PREDICT gives; XGBoost has no other prediction for it.
    """
    learner = json.loads(booster.save_config())["learner"]
    objective = learner["learner_train_param"]["objective"]
    names = booster.feature_names

    def raw(table: np.ndarray) -> np.ndarray:
        data = xgboost.DMatrix(table, feature_names=names)
        return typing.cast("np.ndarray", booster.predict(data))

    def both(table: np.ndarray) -> np.ndarray:
        positive = raw(table)
        return np.stack([1 - positive, positive], axis=1)

    ways: Dict[str, Callable[[Any], Any]] = {PREDICT: raw}
    if objective == "binary:logistic":
        ways[PROBABILITY] = both
    elif objective == "multi:softprob":
        ways[PROBABILITY] = raw
    return ways
