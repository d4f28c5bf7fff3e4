"""Weights and keys: by distribution, and by repeatability."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest

from bettong.engine.routing import Weights, point_of, route_of


@pytest.mark.parametrize(
    ("weights", "point", "at"), [((1, 1), 0.4, 0), ((1, 1), 0.6, 1), ((1, 1), 0.5, 1), ((5,), 0.99, 0)]
)
def test_a_point_selects_over_the_cumulative_normalised_weights(
    weights: tuple[float, ...], point: float, at: int
) -> None:
    assert Weights(weights).choose(point) == at


def test_shares_are_those_of_the_weights_whatever_their_sum() -> None:
    weights, chance = Weights((2, 1, 0, 7)), random.Random(7)

    counts = Counter(weights.choose(chance.random()) for _ in range(20_000))

    assert counts[2] == 0
    for at, share in ((0, 0.2), (1, 0.1), (3, 0.7)):
        assert abs(counts[at] / 20_000 - share) < 0.02


@pytest.mark.parametrize("weights", [(0.1, 0.2, 0.7), (1, 1, 1), (1, 0), (0, 1), (1e-300, 1e300)])
def test_no_point_falls_out_and_none_to_a_weight_of_nothing(weights: tuple[float, ...]) -> None:
    chosen = {Weights(weights).choose(point) for point in (0.0, 0.1, 0.3, 0.999, 1 - 2**-53)}

    assert all(weights[at] > 0 for at in chosen)


def test_a_number_of_zero_to_one_is_its_own_point_and_anything_else_has_one_for_good() -> None:
    assert [point_of(value) for value in (0, 0.25, 0.999)] == [0.0, 0.25, 0.999]
    texts = ["session-1", "0.4", "", "ü", True, 1.0, 7, 2**70, -0.5, float("nan"), ["a"]]
    points = [point_of(value) for value in texts]

    assert points == [point_of(value) for value in texts]
    assert all(0 <= point < 1 for point in points)
    assert len(set(points)) == len(points)
    digits = hashlib.sha256(b"session-1").hexdigest()[:12]  # the same on every machine and in every release
    assert point_of("session-1") == int(digits, 16) / 16**12


def test_keys_spread_over_the_weights() -> None:
    weights = Weights((3, 1))

    first = sum(weights.choose(point_of(f"session-{n}")) == 0 for n in range(8000))

    assert abs(first / 8000 - 0.75) < 0.02


def test_a_split_key_is_compared_as_text_and_what_is_not_named_goes_to_control() -> None:
    routes = {"gold": 1, "3": 2, "true": 3, "2.5": 4}

    assert [route_of(value, routes, 0) for value in ("gold", 3, 3.0, True, 2.5, ["gold"])] == [1, 2, 2, 3, 4, 1]
    others: list[object] = ["Gold", 4, False, None, []]
    assert [route_of(value, routes, 0) for value in others] == [0, 0, 0, 0, 0]
