"""Says in which band each price lies: the smallest CUSTOM model that has a file of its own and an option."""

import json
from typing import Any, Dict, Set

import numpy as np

from mac.config.inference import CustomInferenceConfig
from mac.inference import Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData


class Bands(Inference):
    def __init__(self) -> None:
        super().__init__()
        self.shift = 0.0

    @property
    def expected_model_types(self) -> Set[Any]:
        return {dict}

    @Inference.model.setter  # type: ignore[attr-defined, untyped-decorator]
    def model(self, model: Dict[str, Any]) -> None:
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _predict(self, input_data: InferenceData) -> InferenceData:
        band = np.digitize(input_data["price"] + self.shift, self.model["edges"])
        return {"band": band, "name": np.array(self.model["names"])[band]}


class BandsBuilder(InferenceBuilder):
    @property
    def inference(self) -> Bands:
        return Bands()

    def create(self, config: CustomInferenceConfig) -> Bands:
        inference = self.inference
        inference.model = json.loads((config.model_path / "artifacts" / "bands.json").read_text())
        inference.shift = config.extra.get("shift", 0.0)  # given as CustomConfig(shift=…)
        return inference
