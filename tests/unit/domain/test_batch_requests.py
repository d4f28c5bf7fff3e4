"""Batch requests are read strictly, and what is promised follows from source, target, mode and keys."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from batch_kit import batch_request, columns

from bettong.domain.batch_requests import BatchRequest, guarantee, outputs_of
from bettong.domain.drivers import ReadOrder, WriteMode
from bettong.errors import BadInput

FORECAST = columns(
    {"count": pa.list_(pa.int32()), "shop": pa.string()},
    {"forecast": pa.list_(pa.int32()), "weekly_average": pa.float32(), "pair": pa.list_(pa.int32(), 2)},
    ("customer",),
)


@pytest.mark.parametrize(
    ("order", "transactional", "mode", "keys", "once", "goes_on"),
    [
        (ReadOrder.KEYS, True, "append", ("id",), True, True),
        (ReadOrder.KEYS, True, "replace", ("id",), True, True),
        (ReadOrder.KEYS, True, "append", (), False, False),
        (ReadOrder.KEYS, True, "replace", (), True, False),
        (ReadOrder.KEYS, False, "append", ("id",), False, False),
        (ReadOrder.KEYS, False, "upsert", ("id",), True, True),
        (ReadOrder.STABLE, True, "append", (), True, True),
        (ReadOrder.STABLE, False, "append", (), False, False),
        (ReadOrder.STABLE, False, "replace", (), True, False),
        (ReadOrder.NONE, True, "append", ("id",), False, False),
        (ReadOrder.NONE, True, "upsert", ("id",), True, False),
    ],
)
def test_what_is_promised(
    order: ReadOrder, transactional: bool, mode: str, keys: tuple[str, ...], once: bool, goes_on: bool
) -> None:
    promised = guarantee(order, transactional, WriteMode(mode), keys)

    assert (promised.exactly_once, promised.goes_on) == (once, goes_on)
    assert promised.words.startswith("exactly once: " if once else "at least once: ")


def test_a_request_comes_back_from_json_as_it_was() -> None:
    request = batch_request(
        FORECAST,
        map={"count": ["mon", "tue"], "customer": "who"},
        keys=["day", "shop"],
        outputs={"next": "forecast[0]", "marks": "anomaly.count"},
        lineage=True,
        max_rejects=0.05,
        source={"parameters": [1, "x", None]},
    )

    assert BatchRequest.from_document(json.loads(json.dumps(request.to_document()))) == request


def test_outputs_are_all_of_the_answer_unless_some_are_named() -> None:
    assert outputs_of(batch_request(FORECAST)) == {
        "forecast": ("out.forecast", None),
        "weekly_average": ("out.weekly_average", None),
        "pair": ("out.pair", None),
    }
    picked = batch_request(
        FORECAST, outputs={"next": "forecast[0]", "n": "anomaly.count", "mean": "out.weekly_average"}
    )
    assert outputs_of(picked) == {
        "next": ("out.forecast", 0),
        "n": ("anomaly.count", None),
        "mean": ("out.weekly_average", None),
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"outputs": {"x": "forecats"}}, "no column 'forecats'. They have: forecast, weekly_average"),
        ({"outputs": {"x": "weekly_average[0]"}}, "is float, no list"),
        ({"outputs": {}}, "name no column"),
        ({"outputs": {"x": "pair[2]"}}, r"never has: it is a list of 2\. .* the last is 'pair\[1\]'"),
        ({"keys": ["forecast"]}, "two columns 'forecast'"),
        ({"keys": ["job_id"], "lineage": True}, "two columns 'job_id'"),
        ({"keys": ["id", "id"]}, "names a column twice"),
        ({"keys": "id"}, "no list of column names"),
        ({"map": {"cuont": "count"}}, "names 'cuont'.* It takes: count, shop, customer"),
        ({"map": {"shop": ["a", "b"]}}, "several columns for 'shop', which is no list"),
        ({"sink": {"mode": "upsert"}, "keys": []}, "Upsert needs key columns"),
        ({"sink": {"mode": "merge"}}, "append, replace, upsert"),
        ({"max_rejects": -1}, "'max_rejects' is no whole number from 0 to 1000000. Pass how many rows may be rejected"),
        ({"max_rejects": 1.0}, "no share below 1. Pass how many .* or which share of them, such as 0.05"),
        ({"max_rejects": -0.1}, "no share below 1"),
        ({"max_rejects": True}, "'max_rejects' is no number"),
        ({"sink": {"table": " "}}, "'sink.table' is no text"),
        ({"source": {"parameters": "x"}}, "parameters are no list"),
        ({"lineage": "yes"}, "neither true nor false"),
    ],
)
def test_a_request_that_cannot_be_done_is_told_with_what_can(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        batch_request(FORECAST, **changes)


def test_a_list_of_fixed_size_takes_as_many_columns() -> None:
    house = columns({"tensor": pa.list_(pa.float32(), 3)}, {"price": pa.float32()})

    assert batch_request(house, map={"tensor": ["a", "b", "c"]}).map["tensor"] == ("a", "b", "c")
    with pytest.raises(BadInput, match="gives 2 columns for 'tensor', a list of 3"):
        batch_request(house, map={"tensor": ["a", "b"]})
