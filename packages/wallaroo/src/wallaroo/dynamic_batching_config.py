"""How requests of several callers are gathered into one run of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass
class DynamicBatchingConfig:
    """For `ModelVersion.configure`: the rows of several callers go through the model together.

    A batch goes when it has `batch_size_target` rows, or when its oldest request has waited `max_batch_delay_ms`. It
    never has more than `batch_size_limit` rows; without a limit, a single larger request goes whole. None stands for
    what the platform takes by default.

    Raises:
        ValueError: a number is not a whole one above zero.
    """

    max_batch_delay_ms: int | None = 10
    batch_size_target: int | None = 4
    batch_size_limit: int | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ValueError(f"{name} is {value!r}. It must be a positive integer or None.")

    def to_json(self) -> dict[str, Any]:
        """The form it travels in: without what is None."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> DynamicBatchingConfig:
        return cls(**{name: given.get(name) for name in cls.__dataclass_fields__})
