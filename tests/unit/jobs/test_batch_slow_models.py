"""What a batch does with a model whose requests are slow, and with a target that its user may not write to."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest

from bettong.domain.drivers import Transactional, WriteMode, WriteRequest
from bettong.errors import BadInput
from bettong.jobs.batch.pace import FIRST_ROWS, Pace
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
    assert settled(lambda rows: 2.0) == FIRST_ROWS


def test_a_model_that_is_slow_with_every_row_gets_few_at_once() -> None:
    assert settled(lambda rows: 0.1 * rows) in range(2, 9)


def test_a_user_who_may_not_write_is_told_so_and_not_that_a_column_is_wrong() -> None:
    class Refusing:
        def write(self, request: WriteRequest, rows: object) -> int:
            raise BadInput("The user of this connection may not do that in PostgreSQL.", "Ask its administrator.")

    request = WriteRequest("daily", WriteMode.APPEND, ())
    with pytest.raises(BadInput, match=r"^The user of this connection may not do that in PostgreSQL\. Ask"):
        check_target(cast("Transactional", Refusing()), request, pa.schema([pa.field("x", pa.float64())]))
