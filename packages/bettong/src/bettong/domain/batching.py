"""How requests of several callers are gathered into one run of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_DELAY_MS = 60_000
MOST_ROWS = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DynamicBatching:
    """A batch goes when it has `batch_size_target` rows, or when its oldest request has waited `max_batch_delay_ms`.

    It never has more than `batch_size_limit` rows. Without a limit a single larger request goes whole.

    Raises:
        BadInput: a number is none or out of range, or the limit is below the target.
    """

    max_batch_delay_ms: int = 10
    batch_size_target: int = 4
    batch_size_limit: int | None = None

    def __post_init__(self) -> None:
        _check("max_batch_delay_ms", self.max_batch_delay_ms, LONGEST_DELAY_MS)
        _check("batch_size_target", self.batch_size_target, MOST_ROWS)
        if self.batch_size_limit is None:
            return
        _check("batch_size_limit", self.batch_size_limit, MOST_ROWS)
        if self.batch_size_limit < self.batch_size_target:
            raise BadInput(
                f"The dynamic batching config has a batch_size_limit of {self.batch_size_limit}, "
                f"below its batch_size_target of {self.batch_size_target}.",
                "Give a limit that is at least the target, or none.",
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> DynamicBatching:
        """From its JSON form; what is absent or null is as by default. Raises BadInput as above."""
        return cls(**{name: given[name] for name in cls.__slots__ if given.get(name) is not None})


def _check(name: str, value: object, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise BadInput(
            f"The dynamic batching config has a {name} that is no whole number from 1 to {most}.", "Correct it."
        )
