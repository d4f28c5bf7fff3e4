"""CPU builds are preferred where this machine has them, unless the requirements or the model's year exclude them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement
from packaging.tags import platform_tags
from packaging.version import Version

from bettong.packaging import cpu_builds
from bettong.packaging.baselines import Baseline
from bettong.packaging.cpu_builds import CpuBuild, on_this_machine, preferring

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = CpuBuild("torch", Version("2.4.0+cpu")), CpuBuild("torch", Version("2.13.0+cpu"))
BASELINE = Baseline("2026", ("torch<3",), "the newest")


def asked(*lines: str) -> list[Requirement]:
    return [Requirement(line) for line in lines]


def test_wheels_for_cpus_and_this_python_are_found_newest_first(tmp_path: Path) -> None:
    here = next(platform_tags())
    for name in (
        f"torch-2.4.0+cpu-cp311-cp311-{here}.whl",
        f"torch-2.13.0+cpu-cp311-cp311-{here}.whl",
        f"torch-2.14.0+cpu-cp312-cp312-{here}.whl",
        "torch-2.15.0+cpu-cp311-cp311-plan9_mips.whl",
        f"torch-2.16.0+cu126-cp311-cp311-{here}.whl",
        "torch-2.17.0+cpu-broken.whl",
    ):
        (tmp_path / name).touch()

    assert on_this_machine([str(tmp_path), str(tmp_path / "nowhere")], (3, 11)) == [NEW, OLD]


@pytest.mark.parametrize(
    ("baseline", "lines", "chosen"),
    [
        (BASELINE, ["torch"], "torch==2.13.0+cpu"),
        (BASELINE, ["transformers<5"], "torch==2.13.0+cpu"),
        (BASELINE, ["torch<2.10"], "torch==2.4.0+cpu"),
        (BASELINE, ["torch==2.13.0"], "torch==2.13.0+cpu"),
        (BASELINE, ["torch==2.14.0"], None),
        (BASELINE, ["torch @ https://example.org/torch-2.13.0-py3-none-any.whl"], None),
        (Baseline("2024", ("torch<2.5.1",), "of that time"), ["torch"], "torch==2.4.0+cpu"),
        (Baseline("", (), "the last try"), ["torch"], None),
    ],
)
def test_the_newest_build_that_nothing_excludes_is_asked_for(
    baseline: Baseline, lines: list[str], chosen: str | None
) -> None:
    found = preferring([NEW, OLD], baseline, asked(*lines))

    assert found.lines == (*baseline.lines, *([chosen] if chosen else []))


def test_the_upload_log_says_what_is_preferred_or_what_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(sys, "platform", "linux")
    with_build = preferring([NEW], BASELINE, [])

    assert (
        cpu_builds.told(with_build, asked("torch")) == "Preferring CPU builds that this machine has: torch==2.13.0+cpu."
    )
    assert "may bring CUDA libraries of several GB" in cpu_builds.told(BASELINE, asked("torch"))
    assert cpu_builds.told(with_build, asked("numpy")) == ""
    assert cpu_builds.told(BASELINE, asked("torch==2.13.0+cpu")) == ""
