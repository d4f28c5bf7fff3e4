"""What a batch does with a model whose requests are slow, and with a target that its user may not write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest

from bettong.domain.drivers import Transactional, WriteMode, WriteRequest
from bettong.errors import BadInput
from bettong.jobs.batch.pace import MOST_ROWS, Pace
from bettong.jobs.batch.writing import check_target

if TYPE_CHECKING:
    from collections.abc import Callable


def settled(cost_s: Callable[[int], float]) -> int:
    """The rows of a request after many, each of which took `cost_s` of its rows."""
    pace = Pace()
    for _ in range(30):
        pace.learn(pace.rows, cost_s(pace.rows))
    return pace.rows


def test_a_model_that_is_slow_whatever_it_is_asked_gets_many_rows_at_once() -> None:
    assert settled(lambda rows: 2.0) == MOST_ROWS


def test_rows_share_what_a_request_costs_besides_them_until_they_take_as_long_again() -> None:
    assert 1.0 + 0.1 * settled(lambda rows: 1.0 + 0.1 * rows) <= 2.5


@pytest.mark.parametrize("row_s", [0.04, 0.2, 1.0])
def test_a_slow_model_has_answered_its_first_rows_within_seconds_and_goes_on_so(row_s: float) -> None:
    pace, took = Pace(), []
    for _ in range(10):
        took.append(row_s * pace.rows)
        pace.learn(pace.rows, took[-1])

    assert took[0] <= 4.0
    assert max(took[1:]) <= 1.0


def test_a_first_request_that_loads_something_does_not_hold_up_the_rest() -> None:
    pace = Pace()
    pace.learn(pace.rows, 30.0)
    for _ in range(8):
        pace.learn(pace.rows, 1e-5 * pace.rows)

    assert pace.rows >= 32_768


def test_a_fast_model_has_as_many_rows_as_it_can_after_a_few_requests() -> None:
    pace = Pace()
    for _ in range(5):
        pace.learn(pace.rows, 0.002 + 4e-6 * pace.rows)

    assert pace.rows == MOST_ROWS


def test_a_model_that_is_slow_with_every_row_gets_few_at_once() -> None:
    assert settled(lambda rows: 0.1 * rows) in range(2, 9)


def test_a_user_who_may_not_write_is_told_so_and_not_that_a_column_is_wrong() -> None:
    class Refusing:
        def write(self, request: WriteRequest, rows: object) -> int:
            raise BadInput("The user of this connection may not do that in PostgreSQL.", "Ask its administrator.")

    request = WriteRequest("daily", WriteMode.APPEND, ())
    with pytest.raises(BadInput, match=r"^The user of this connection may not do that in PostgreSQL\. Ask"):
        check_target(cast("Transactional", Refusing()), request, pa.schema([pa.field("x", pa.float64())]))
