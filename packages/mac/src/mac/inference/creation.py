"""What a CUSTOM model is made by."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from typing import Union

if typing.TYPE_CHECKING:
    from mac.config.inference import CustomInferenceConfig
    from mac.inference import AsyncInference, Inference


class InferenceBuilder(ABC):
    """Makes the inference of an artifact. A subclass has `inference` and `create`."""

    @property
    @abstractmethod
    def inference(self) -> Union[Inference, AsyncInference]:
        """A new inference without a model."""

    @abstractmethod
    def create(self, config: CustomInferenceConfig) -> Union[Inference, AsyncInference]:
        """An inference with its model, read from files below `config.model_path`. Called once, at load."""


__all__ = ["InferenceBuilder"]
