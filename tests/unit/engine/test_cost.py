from __future__ import annotations

from bettong.engine.cost import CostModel


def test_what_was_never_called_may_take_forever() -> None:
    assert CostModel().expected_ns(1) == float("inf")


def test_a_call_costs_what_calls_of_its_size_did_the_newest_counting_more_than_the_oldest() -> None:
    cost = CostModel()
    cost.took(100, 1000)
    assert cost.expected_ns(100) == 1000

    for _ in range(30):
        cost.took(100, 9000)
    assert 8900 < cost.expected_ns(100) < 9000


def test_an_unknown_size_costs_no_more_than_a_larger_one_and_no_more_than_its_share_of_a_smaller_one() -> None:
    cost = CostModel()
    cost.took(64, 1000)
    assert cost.expected_ns(64 * 1024) == 1000 * 1024
    assert cost.expected_ns(1) == 1000

    cost.took(64 * 1024, 50_000)
    assert cost.expected_ns(64 * 512) == 50_000
    assert cost.expected_ns(64) == 1000
