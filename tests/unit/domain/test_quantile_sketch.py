"""Quantiles of a stream, beside those of numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bettong.domain.quantile_sketch import QuantileSketch


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(1).normal(size=20_000),
        np.random.default_rng(2).lognormal(sigma=4, size=20_000),
        np.concatenate([np.zeros(500), -np.random.default_rng(3).exponential(size=700)]),
        np.array([3.0]),
    ],
    ids=["around zero", "over many decades", "zeros and negative ones", "one"],
)
def test_a_quantile_is_off_by_a_hundredth_of_its_value_at_most(values: np.ndarray) -> None:
    sketch = QuantileSketch()
    for part in np.array_split(values, 7):
        sketch.add(part)

    for q in (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1):
        true = float(np.quantile(values, q, method="lower"))
        assert abs(sketch.quantile(q) - true) <= 0.01 * abs(true) * (1 + 1e-9)


def test_the_ends_of_what_floats_hold_are_kept() -> None:
    most = float(np.finfo(np.float64).max)
    sketch = QuantileSketch()

    sketch.add(np.array([-most, 5e-324, most, most]))

    assert [sketch.quantile(q) for q in (0, 1)] == [-most, most]
    assert sketch.quantile(0.5) == pytest.approx(0, abs=1e-300)


def test_memory_does_not_grow_with_the_values() -> None:
    sketch = QuantileSketch()
    for n in range(50):
        sketch.add(np.linspace(1, 1000, 10_000) + n)

    assert sketch.count == 500_000
    assert len(sketch._above) < 400


def test_without_a_number_there_is_no_quantile() -> None:
    sketch = QuantileSketch()
    sketch.add(np.array([]))

    assert math.isnan(sketch.quantile(0.5))
