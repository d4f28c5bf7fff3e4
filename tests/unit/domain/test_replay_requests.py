"""What a replay is asked to do, and which logged rows go into a version."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
import pytest

from bettong.domain.expressions import Aggregate, Binary, Cast, Column, Validation
from bettong.domain.replay_requests import ReplayRequest, ReplayWindow, fit
from bettong.domain.replay_results import is_answer, short_name
from bettong.domain.steps import (
    Check,
    KeySplit,
    ModelRef,
    ModelStep,
    RandomSplit,
    RowsToModels,
    looks_at_whole_requests,
)
from bettong.errors import BadInput

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MODEL = ModelRef("forecast", "version", "sha")


def window(**changes: Any) -> ReplayWindow:
    return ReplayWindow(**{"start": NOON, "end": NOON + timedelta(hours=1), **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": datetime(2026, 1, 1, 12)}, "no time zone"),
        ({"end": NOON}, "begin at 2026-01-01T12:00:00\\+00:00 and end at"),
        ({"limit": 0}, "limit of 0"),
        ({"tolerance": -1.0}, "tolerance"),
        ({"tolerance": float("nan")}, "tolerance"),
    ],
)
def test_a_window_that_cannot_be_used_is_refused_in_words(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        window(**changes)


def test_a_request_comes_back_from_json_as_it_was() -> None:
    takes = pa.schema([pa.field("image", pa.list_(pa.list_(pa.float32(), 2), 2)), pa.field("name", pa.string())])
    elsewhere = datetime(2026, 1, 1, 12, 0, 0, 250_000, timezone(timedelta(hours=2)))
    asked = ReplayRequest(
        4, "v2", "topic", "failures", window(start=elsewhere, limit=7, failed=True, inputs=False), takes, ("key",), True
    )

    assert ReplayRequest.from_document(json.loads(json.dumps(asked.to_document()))) == asked


# --- what fits ------------------------------------------------------------------------------------------------------

LOGGED = pa.schema(
    [
        pa.field("time", pa.timestamp("ms")),
        pa.field("in.count", pa.list_(pa.int32())),
        pa.field("in.name", pa.string()),
        pa.field("in.shop", pa.string()),
        pa.field("out.count", pa.int64()),
    ]
)


def test_what_a_version_does_not_take_stays_behind() -> None:
    found = fit(LOGGED, (), pa.schema([pa.field("name", pa.string())]))

    assert found.fits
    assert found.columns == (("in.name", "name"),)


def test_keys_go_along_where_they_are_logged() -> None:
    found = fit(LOGGED, (), pa.schema([pa.field("name", pa.string())]), keys=("shop", "region", "name"))

    assert found.fits
    assert found.columns == (("in.name", "name"), ("in.shop", "shop"))


def test_missing_columns_and_other_types_are_named() -> None:
    fields: list[Any] = [("count", pa.string()), ("name", pa.string()), ("age", pa.int8())]
    takes = pa.schema(fields)

    found = fit(LOGGED, (), takes)

    assert not found.fits
    assert found.problem == (
        "the version takes 'count' as string, which was logged as list<item: int32>, 'age' (int8), which was not logged"
    )


def test_a_column_that_was_too_large_for_the_log_is_told_apart() -> None:
    found = fit(LOGGED, ("in.image",), pa.schema([pa.field("image", pa.list_(pa.float32()))]))

    assert not found.fits
    assert (found.dropped, found.missing) == (("in.image",), ())
    assert found.problem == "too large for the log: in.image"


@pytest.mark.parametrize(
    ("logged", "wanted", "fits"),
    [
        (pa.int64(), pa.float32(), True),
        (pa.int8(), pa.uint64(), True),
        (pa.float64(), pa.int64(), False),
        (pa.bool_(), pa.int64(), False),
        (pa.string(), pa.large_string(), True),
        (pa.date32(), pa.timestamp("ms"), True),
        (pa.timestamp("ms"), pa.date32(), False),
        (pa.list_(pa.int32()), pa.list_(pa.float32(), 4), True),
        (pa.list_(pa.int32(), 5), pa.list_(pa.float32(), 4), False),
        (pa.list_(pa.float32(), 6), pa.list_(pa.list_(pa.float32(), 3), 2), True),
        (pa.list_(pa.float32(), 5), pa.list_(pa.list_(pa.float32(), 3), 2), False),
        (pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32(), 3), 2), True),
        (pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32())), False),
        (pa.list_(pa.list_(pa.float32(), 3), 2), pa.list_(pa.list_(pa.float32(), 2), 3), False),
        (pa.list_(pa.list_(pa.float32())), pa.list_(pa.float32()), False),
        (pa.float32(), pa.list_(pa.float32()), False),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int64())]), True),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), False),
    ],
    ids=str,
)
def test_types_fit_as_a_deployment_takes_them(logged: Any, wanted: Any, fits: bool) -> None:
    log = pa.schema([pa.field("in.x", logged)])

    assert fit(log, (), pa.schema([pa.field("x", wanted)])).fits is fits


# --- names and steps ------------------------------------------------------------------------------------------------


def test_columns_of_answers_have_short_names() -> None:
    names = [
        "time",
        "in.x",
        "out.y",
        "out.a.b",
        "out_other.y",
        "anomaly.count",
        "out._model_split",
        "error",
        "metadata.elapsed",
    ]

    assert [short_name(name) for name in names if is_answer(name)] == ["y", "out.a.b", "out_other.y", "anomaly.count"]


def test_steps_that_look_at_whole_requests_are_known() -> None:
    assert not looks_at_whole_requests([ModelStep((MODEL,))])
    assert looks_at_whole_requests([RandomSplit(None, ((1.0, MODEL),))])
    assert looks_at_whole_requests([KeySplit("key", MODEL, ())])
    assert looks_at_whole_requests([RowsToModels(((0, MODEL),))])

    row, total = Column("out.0.x"), Aggregate("Sum", Column("out.0.x"))
    for expression, whole in ((Binary("Gt", row, row), False), (Binary("Gt", row, Cast(total, "Int64")), True)):
        assert looks_at_whole_requests([Check((Validation("high", expression, ""),))]) is whole
