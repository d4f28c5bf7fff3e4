"""Which year's constraints hold what an artifact leaves open: decided by its pins, without a network."""

from __future__ import annotations

import pytest
from packaging.requirements import Requirement

from bettong.packaging.baselines import Baseline, choose


def chosen(*lines: str) -> list[Baseline]:
    return choose(Requirement(line) for line in lines)


def bound(baseline: Baseline, name: str) -> str | None:
    return next((line for line in baseline.lines if Requirement(line).name == name), None)


@pytest.mark.parametrize(
    ("lines", "year"),
    [
        (["statsmodels==0.14.1"], "2024"),
        (["statsmodels==0.13.5"], "2023"),
        (["scikit-learn~=1.3.2"], "2024"),
        (["pandas<=2.0"], "2023"),
        (["numpy==1.19.5"], "2022"),
        (["Scikit_Learn==1.7.2"], "2025"),
        (["pandas==3.0.0"], "2026"),
        (["statsmodels==0.14.1", "scikit-learn==1.8.0"], "2024"),
        ([], "2026"),
        (["statsmodels", "pandas>=1.5", "scipy<2", "numpy!=1.24"], "2026"),
        (["some-library-of-ours==0.1"], "2026"),
        (["transformers==5.24.0"], "2026"),
        (["xgboost===build-7"], "2026"),
        (["tensorflow==2.15.*"], "2024"),
    ],
)
def test_the_oldest_pin_dates_the_artifact(lines: list[str], year: str) -> None:
    assert chosen(*lines)[0].year == year


def test_the_reason_names_the_pin() -> None:
    assert str(chosen("patsy", "statsmodels==0.14.1")[0]) == "baseline 2024 (statsmodels==0.14.1 is of that time)"


def test_a_pin_of_2024_is_held_below_what_broke_it() -> None:
    first = chosen("statsmodels==0.14.1")[0]
    assert bound(first, "pandas") == "pandas<2.2.3"
    assert bound(first, "numpy") == "numpy<2"


@pytest.mark.parametrize(
    "line", ["pandas==3.0.1", "pandas<3.5", "pandas>=3", "pandas~=3.0", "pandas @ https://x/y.whl"]
)
def test_the_uploads_own_word_drops_the_line_it_contradicts(line: str) -> None:
    assert bound(chosen("statsmodels==0.14.1", line)[0], "pandas") is None


@pytest.mark.parametrize("line", ["pandas", "pandas>=1.5", "pandas!=2.0.1"])
def test_what_is_left_open_upwards_stays_held(line: str) -> None:
    assert bound(chosen("statsmodels==0.14.1", line)[0], "pandas") == "pandas<2.2.3"


def test_newer_baselines_and_at_last_none_follow() -> None:
    assert [b.year for b in chosen("statsmodels==0.14.1")] == ["2024", "2025", "2026", ""]
    assert chosen("statsmodels==0.14.1")[-1].lines == ()
