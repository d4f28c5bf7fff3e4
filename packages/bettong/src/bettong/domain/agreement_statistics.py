"""What is kept of pairs of values: of numbers their differences and how they go together, of classes their counts."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from bettong.domain.quantile_sketch import QuantileSketch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
MAX_CONFUSION = 20  # distinct values of which a table is given
MAX_CLASSES = 10_000  # distinct values of which counts are kept
MAX_CLASS_CHARS = 200  # a longer text is no class

Array: TypeAlias = Any  # of pyarrow


class Differences:
    """after − before of pairs of numbers that are both finite, and Pearson's correlation of the two.

    Pearson's r = Σ(b − b̄)(a − ā) / √(Σ(b − b̄)² Σ(a − ā)²), each sum put together from those of parts by
    S = S₁ + S₂ + δ_b δ_a n₁ n₂ / (n₁ + n₂), with δ the difference of the parts' means: T. F. Chan, G. H. Golub,
    R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979, and for products
    P. Pébay, "Formulas for robust, one-pass parallel computation of covariances", Sandia report SAND2008-6212, 2008.
    """

    def __init__(self) -> None:
        self.count = self.not_finite = 0
        self._sum = self._largest = 0.0
        self._mean_before = self._mean_after = 0.0
        self._square_before = self._square_after = self._product = 0.0
        self._sketch = QuantileSketch()

    def add(self, before: Floats, after: Floats) -> None:
        """Take pairs; both of shape (values,)."""
        finite = np.isfinite(before) & np.isfinite(after)
        if not finite.all():
            self.not_finite += int(np.count_nonzero(~finite))
            before, after = before[finite], after[finite]
        if not before.size:
            return
        with np.errstate(over="ignore"):
            apart = after - before
            self._sum += float(np.abs(apart).sum())
            self._largest = max(self._largest, float(np.abs(apart).max()))
            self._sketch.add(apart[np.isfinite(apart)])
        with np.errstate(over="ignore", invalid="ignore"):
            self._correlate(before, after)

    def _correlate(self, before: Floats, after: Floats) -> None:
        had, came = self.count, int(before.size)
        mean_before, mean_after = float(before.mean()), float(after.mean())
        around_before, around_after = before - mean_before, after - mean_after
        step_before, step_after = mean_before - self._mean_before, mean_after - self._mean_after
        total = had + came
        weight = had * came / total
        self._square_before += float(around_before @ around_before) + step_before * step_before * weight
        self._square_after += float(around_after @ around_after) + step_after * step_after * weight
        self._product += float(around_before @ around_after) + step_before * step_after * weight
        self._mean_before += step_before * came / total
        self._mean_after += step_after * came / total
        self.count = total

    @property
    def pearson(self) -> float:
        """NaN where one side never changes, or a number is too large for its square."""
        with np.errstate(over="ignore", invalid="ignore"):
            below = math.sqrt(self._square_before) * math.sqrt(self._square_after)
        if not (math.isfinite(below) and below > 0):
            return math.nan
        return max(-1.0, min(1.0, self._product / below))

    def document(self) -> dict[str, Any]:
        if not (self.count or self.not_finite):
            return {}
        return {
            "values": self.count,
            "not_finite": self.not_finite,
            "mean_abs": _json(self._sum / self.count if self.count else math.nan),
            "max_abs": _json(self._largest if self.count else math.nan),
            "pearson": _json(self.pearson),
            "quantiles": {str(q): _json(self._sketch.quantile(q)) for q in QUANTILES},
        }


class Classes:
    """Counts of pairs of values of which there are few: classes, labels, marks.

    Cohen's kappa = (p_o − p_e) / (1 − p_e), with p_o the share of pairs that are equal and, as what chance would give,
    p_e = Σ p_before(k) p_after(k): J. Cohen, "A coefficient of agreement for nominal scales", Educational and
    Psychological Measurement 20(1), 1960. It is exact up to 10,000 distinct values; beyond, and for long texts, there
    is none.
    """

    def __init__(self) -> None:
        self.count = self.equal = 0
        self._before: Counter[Any] | None = Counter()
        self._after: Counter[Any] | None = Counter()
        self._pairs: Counter[tuple[Any, Any]] | None = Counter()

    def add(self, before: Array, after: Array, same: NDArray[np.bool_]) -> None:
        """Take pairs and whether each is equal. Only integers, booleans and texts are classes."""
        if self._before is None or self._after is None or not len(before):
            return
        values, at = _coded(before)
        others, at_other = _coded(after)
        if values is None or others is None:
            return self._give_up()
        self.count += len(before)
        self.equal += int(np.count_nonzero(same))
        for counts, found, codes in ((self._before, values, at), (self._after, others, at_other)):
            for value, n in zip(found, np.bincount(codes, minlength=len(found)).tolist(), strict=True):
                counts[value] += n
        if len(self._before) > MAX_CLASSES or len(self._after) > MAX_CLASSES:
            return self._give_up()
        if self._pairs is None or len(self._before.keys() | self._after.keys()) > MAX_CONFUSION:
            self._pairs = None
            return None
        pairs, counts_ = np.unique(at * len(others) + at_other, return_counts=True)
        for pair, n in zip(pairs.tolist(), counts_.tolist(), strict=True):
            one, other = divmod(pair, len(others))
            self._pairs[values[one], others[other]] += n

    @property
    def kappa(self) -> float:
        """NaN where there are no classes, or one alone, which chance would hit as well."""
        if self._before is None or self._after is None or not self.count:
            return math.nan
        by_chance = sum(n * self._after[value] for value, n in self._before.items())
        beyond = self.count**2 - by_chance  # integers: exact
        return (self.equal * self.count - by_chance) / beyond if beyond else math.nan

    def document(self) -> dict[str, Any]:
        if self._before is None or self._after is None or not self.count:
            return {}
        told: dict[str, Any] = {"kappa": _json(self.kappa)}
        if self._pairs is not None:
            values = sorted(self._before.keys() | self._after.keys(), key=lambda value: (isinstance(value, str), value))
            counts = [[self._pairs[one, other] for other in values] for one in values]
            told["confusion"] = {"values": values, "counts": counts}
        return told

    def _give_up(self) -> None:
        self._before = self._after = self._pairs = None


def _coded(array: Array) -> tuple[list[Any] | None, NDArray[np.int64]]:
    """The distinct values of a column, and for each row which of them it has; None when they are no classes."""
    kind = array.type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    nothing = np.zeros(0, np.int64)
    if not (text or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        return None, nothing
    coded = array.dictionary_encode()
    if len(coded.dictionary) > MAX_CLASSES:
        return None, nothing
    values = coded.dictionary.to_pylist()
    if text and any(len(value) > MAX_CLASS_CHARS for value in values):
        return None, nothing
    return values, np.asarray(coded.indices.to_numpy(zero_copy_only=False), np.int64)


def _json(number: float) -> float | None:
    return number if math.isfinite(number) else None
