"""Quantiles of a stream of numbers, at constant memory and with an error that is known beforehand."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

RELATIVE_ERROR = 0.01


class QuantileSketch:
    """Numbers by buckets that grow by the same factor, as in C. Masson, J. E. Rim, H. K. Lee, "DDSketch: a fast and
    fully-mergeable quantile sketch with relative-error guarantees", PVLDB 12(12), 2019.

    With γ = (1 + a) / (1 − a), a number x > 0 falls into bucket i = ceil(log_γ x), which stands for 2 γ^i / (γ + 1): at
    most a·x away from every number in it. Below zero the same with the sign turned; zeros are counted. A 64-bit float
    falls into one of some 72,000 buckets of each sign, and no more are ever kept.
    """

    def __init__(self, relative_error: float = RELATIVE_ERROR) -> None:
        self._gamma = (1 + relative_error) / (1 - relative_error)
        self._log_gamma = math.log(self._gamma)
        self._above: Counter[int] = Counter()
        self._below: Counter[int] = Counter()
        self._zeros = 0
        self._least, self._most = math.inf, -math.inf
        self.count = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Take finite numbers, of any shape."""
        if not values.size:
            return
        self.count += int(values.size)
        self._least, self._most = min(self._least, float(values.min())), max(self._most, float(values.max()))
        above, below = values[values > 0], values[values < 0]
        self._zeros += int(values.size - above.size - below.size)
        for numbers, counts in ((above, self._above), (-below, self._below)):
            buckets, found = np.unique(np.ceil(np.log(numbers) / self._log_gamma), return_counts=True)
            for bucket, n in zip(buckets.tolist(), found.tolist(), strict=True):
                counts[int(bucket)] += n

    def quantile(self, q: float) -> float:
        """The number at rank floor(q (count − 1)) in ascending order, counted from 0, to within the relative error.

        NaN without a number; exact for q = 0 and q = 1.
        """
        if not self.count:
            return math.nan
        if q in (0, 1):
            return self._most if q else self._least
        rank, seen = math.floor(q * (self.count - 1)), 0
        for value, n in self._ascending():
            seen += n
            if seen > rank:
                return min(max(value, self._least), self._most)
        return self._most

    def _ascending(self) -> Iterator[tuple[float, int]]:
        for bucket in sorted(self._below, reverse=True):
            yield -self._middle(bucket), self._below[bucket]
        yield 0.0, self._zeros
        for bucket in sorted(self._above):
            yield self._middle(bucket), self._above[bucket]

    def _middle(self, bucket: int) -> float:
        exponent = bucket * self._log_gamma + math.log(2 / (self._gamma + 1))
        return math.exp(min(exponent, 709.78))  # the largest that a float holds
