"""What a CUSTOM model predicts with: a subclass of `Inference` or `AsyncInference`, made by an `InferenceBuilder`."""

from __future__ import annotations

import typing
from abc import ABC, abstractmethod
from typing import Any, Set

if typing.TYPE_CHECKING:
    from mac.types import InferenceData


class ModelNotAssignedError(Exception):
    """`predict` was called before `create` of the builder had given the inference its model."""


class _Base(ABC):
    """What both kinds share: a model of an expected type."""

    _model: Any = None

    def __init__(self) -> None:
        self._model = None

    @property
    @abstractmethod
    def expected_model_types(self) -> Set[Any]:
        """The types that `model` may have."""

    @property
    def model(self) -> Any:
        """The model that `_predict` uses. A subclass that stores it checks it first: see
        `_raise_error_if_model_is_wrong_type`."""
        return self._model

    @model.setter
    def model(self, model: Any) -> None:
        self._raise_error_if_model_is_wrong_type(model)
        self._model = model

    def _raise_error_if_model_is_wrong_type(self, model: Any) -> None:
        """Raises TypeError unless `model` is of one of the expected types."""
        expected = self.expected_model_types
        kinds = tuple(kind for kind in expected if isinstance(kind, type) and kind is not Any)
        if len(kinds) < len(expected) or isinstance(model, kinds):  # typing.Any and the like allow everything
            return
        raise TypeError(
            "The model is a %s; %s expects %s."
            % (type(model).__name__, type(self).__name__, " or ".join(sorted(kind.__name__ for kind in kinds)))
        )

    def _raise_error_if_model_is_not_assigned(self) -> None:
        if self.model is None:
            raise ModelNotAssignedError(
                "%s has no model. Assign it in the builder's create(): inference.model = …" % type(self).__name__
            )


class Inference(_Base):
    """Predicts for a batch of rows.

    A subclass has `expected_model_types` and `_predict`; `predict` is what the platform calls.
    """

    def predict(self, input_data: InferenceData) -> InferenceData:
        """Raises ModelNotAssignedError before the model was assigned."""
        self._raise_error_if_model_is_not_assigned()
        return self._predict(input_data)

    @abstractmethod
    def _predict(self, input_data: InferenceData) -> InferenceData:
        """One array per output field, the first axis being the rows of `input_data`."""


class AsyncInference(_Base):
    """The same with a coroutine, for models that wait for something."""

    async def predict(self, input_data: InferenceData) -> InferenceData:
        """Raises ModelNotAssignedError before the model was assigned."""
        self._raise_error_if_model_is_not_assigned()
        return await self._predict(input_data)

    @abstractmethod
    async def _predict(self, input_data: InferenceData) -> InferenceData:
        """One array per output field, the first axis being the rows of `input_data`."""


__all__ = ["AsyncInference", "Inference", "ModelNotAssignedError"]
