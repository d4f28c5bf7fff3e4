"""How many rows of a batch may be rejected, and what is said of those that were."""

from __future__ import annotations

import pytest

from bettong.errors import BadInput, ModelFailed
from bettong.jobs.batch.limit import Limit, outcome
from bettong.jobs.batch.positions import Position
from bettong.jobs.batch.reasons import reason_of


def limit(most: float, total: int | None = None, before: Position | None = None) -> Limit:
    return Limit(most, total, before or Position(), lambda: "id=7: Column 'x' is null.")


def said(bound: Limit, position: Position) -> str:
    with pytest.raises(BadInput) as refused:
        bound.check(position)
    return refused.value.problem


def test_a_count_is_passed_by_one_more_whatever_attempt_found_them() -> None:
    bound = limit(3, before=Position(rows=100, written=98, rejected=2))
    bound.asking(10)
    bound.found(1)
    assert not bound.passed

    bound.found(1)

    assert bound.passed
    assert said(bound, Position(105, 101, 4)) == "More than 3 rows were rejected. The first, id=7: Column 'x' is null."


def test_a_share_is_one_of_all_rows_where_these_are_known() -> None:
    bound = limit(0.05, total=200)
    bound.asking(20)
    bound.found(10)
    assert not bound.passed

    bound.found(1)

    assert bound.passed
    assert said(bound, Position(20, 9, 11)).startswith("More than 5% of the rows were rejected: 11 of 200. The first,")


def test_a_share_of_nobody_knows_how_many_waits_for_a_thousand_rows_and_for_the_end() -> None:
    bound = limit(0.25)
    bound.asking(999)
    bound.found(999)
    assert not bound.passed
    assert said(bound, Position(999, 0, 999)).startswith("More than 25% of the rows were rejected: 999 of 999.")

    bound.asking(1)
    bound.found(0)

    assert bound.passed


def test_few_enough_rejects_and_no_rows_at_all_are_no_fault() -> None:
    limit(0).check(Position())
    limit(0.0).check(Position())
    limit(3).check(Position(10, 7, 3))
    limit(0.5).check(Position(10, 5, 5))


def test_when_no_row_could_be_done_that_is_said_rather_than_success() -> None:
    assert said(limit(1_000), Position(12, 0, 12)) == (
        "All 12 rows were rejected. The first, id=7: Column 'x' is null."
    )
    assert said(limit(1_000), Position(1, 0, 1)) == "The only row was rejected: id=7: Column 'x' is null."


def test_the_outcome_is_a_sentence() -> None:
    assert outcome(Position()) == "0 rows were written."
    assert outcome(Position(1, 1, 0)) == "1 row was written."
    assert outcome(Position(5_000, 5_000, 0)) == "5,000 rows were written."
    assert outcome(Position(5_000, 4_999, 1)) == "4,999 of 5,000 rows were written, 1 was rejected."


SEE = "Infer the row to see what the model says."


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Column 'x', row 0: found null, expected int64.", "Column 'x': found null, expected int64."),
        ("Column 't', row 0, item 3: found 2 values.", "Column 't', item 3: found 2 values."),
        ("The worker of model 'm' was killed.", "The worker of model 'm' was killed."),
        ("Step 1: Model 'm' failed: ValueError: Ann, 7. See.", f"Step 1: Model 'm' failed with ValueError. {SEE}"),
        ("Model 'm' failed: KeyError.", f"Model 'm' failed with KeyError. {SEE}"),
        ("Model 'm' failed: idx=4711 is out of bounds", f"Model 'm' failed. {SEE}"),
    ],
)
def test_a_reason_has_no_number_of_a_row_and_no_value_of_it(said: str, reason: str) -> None:
    assert reason_of(ModelFailed(said)) == reason


def test_a_refusal_keeps_its_next_step() -> None:
    assert reason_of(BadInput("Column 'x', row 0: found null.", "Send one.")) == "Column 'x': found null. Send one."
