"""How long a call will take, learned from the calls before: short ones run on the event loop, others beside it."""

from __future__ import annotations

WEIGHT = 0.2  # of the newest call


class CostModel:
    """Nanoseconds by size of input, in classes of a doubling each. For what costs more the more it is given."""

    def __init__(self) -> None:
        self._known: dict[int, float] = {}

    def took(self, size: int, ns: int) -> None:
        """A call with `size` values took `ns`."""
        at = size.bit_length()
        known = self._known.get(at)
        self._known[at] = ns if known is None else known + WEIGHT * (ns - known)

    def expected_ns(self, size: int) -> float:
        """What a call of this size costs at most, as far as others tell; infinite before the first."""
        at = size.bit_length()
        if (known := self._known.get(at)) is not None:
            return known
        larger = (ns for other, ns in self._known.items() if other > at)
        smaller = (ns * 2.0 ** (at - other) for other, ns in self._known.items() if other < at)
        return min((*larger, *smaller), default=float("inf"))
