from __future__ import annotations

import pytest

from bettong.engine.dataset import Dataset, parse_dataset
from bettong.errors import BadInput

COLUMNS = ["time", "in.count", "out.forecast", "out.forecast_error", "anomaly.count", "metadata.elapsed"]


def chosen(query: str) -> list[str]:
    dataset = parse_dataset(query.encode())
    return [COLUMNS[at] for at in dataset.chosen(COLUMNS)]


def test_without_parameters_everything_is_in_the_answer() -> None:
    assert chosen("") == COLUMNS
    assert parse_dataset(b"") == Dataset(("*",), (), None)


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("dataset[]=*&dataset.exclude[]=metadata&dataset.separator=.", COLUMNS[:-1]),
        ("dataset%5B%5D=time&dataset%5B%5D=out", ["time", "out.forecast", "out.forecast_error"]),
        ("dataset[]=out.forecast", ["out.forecast"]),
        ("dataset[]=*&dataset.exclude[]=in&dataset.exclude[]=out.forecast", [COLUMNS[0], *COLUMNS[3:]]),
        ("dataset[]=*&dataset[]=metadata.partition", COLUMNS),
        ("dataset[]=out&dataset.exclude[]=*", []),
        ("verbose=1", COLUMNS),
    ],
)
def test_items_choose_whole_columns_and_whole_groups(query: str, columns: list[str]) -> None:
    assert chosen(query) == columns


def test_the_last_separator_counts() -> None:
    assert parse_dataset(b"dataset.separator=.&dataset.separator=_").separator == "_"
    assert parse_dataset(b"dataset.separator=").separator == ""


@pytest.mark.parametrize(
    "query",
    [
        b"dataset[]=nonsense",
        b"dataset[]=",
        b"dataset.exclude[]=secret_name",
        b"dataset.separator=%0a",
        b"dataset.separator=" + b"-" * 17,
        b"dataset[]=%ff",
        b"\xff\xfe",
        b"&".join([b"a=1"] * 300),
    ],
)
def test_bad_parameters_are_refused_without_repeating_them(query: bytes) -> None:
    with pytest.raises(BadInput) as refused:
        parse_dataset(query)

    assert "nonsense" not in str(refused.value)
    assert "secret_name" not in str(refused.value)
