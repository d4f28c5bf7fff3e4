"""Constraints for what an artifact's requirements leave open, one file of plain lines per year.

An artifact of 2024 that asks for `statsmodels==0.14.1` alone does not load today: pandas 3 came since. So each year has
a file of upper bounds, `name<release`, the release being the newest one when the next year began (found with
`uv pip compile --no-deps --exclude-newer YYYY-01-01`). The rule that chooses a file needs no network:

1. Every exact pin (`==`, `~=`, `<=`) belongs to the oldest baseline whose bound admits it.
2. The artifact's oldest pin decides: an old library cannot say what later broke it, a new one says what it needs.
3. Without such a pin the newest baseline is taken.
4. A line that the requirements contradict is dropped: the upload's own pins win.
5. When there is no solution under a baseline, the next newer one is tried, at last none; the upload log says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from collections.abc import Iterable

PINNING = ("==", "===", "~=", "<=")


@dataclass(frozen=True, slots=True)
class Baseline:
    """The constraints of one year. `year` is '' for none at all; `why` says in words how it was chosen."""

    year: str
    lines: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"baseline {self.year} ({self.why})" if self.year else f"no baseline ({self.why})"


def choose(requirements: Iterable[Requirement]) -> list[Baseline]:
    """The baselines to try, in this order: the one that the pins belong to, each newer one, then none."""
    wanted = list(requirements)
    years = sorted(_shipped())
    votes = [vote for requirement in wanted if (vote := _vote(requirement)) is not None]
    year, pin = min(votes, default=(years[-1], ""))
    reason = f"{pin} is of that time" if pin else "the newest; no requirement pins a version that dates the model"
    chosen = [Baseline(year, _left_open(year, wanted), reason)]
    for newer in years[years.index(year) + 1 :]:
        chosen.append(Baseline(newer, _left_open(newer, wanted), f"nothing fits under {chosen[-1].year}"))
    return [*chosen, Baseline("", (), f"nothing fits under {chosen[-1].year}")]


def _vote(requirement: Requirement) -> tuple[str, str] | None:
    """(year, pin in words) of a requirement that pins a version some baseline knows."""
    name = canonicalize_name(requirement.name)
    for specifier in requirement.specifier:
        if specifier.operator not in PINNING:
            continue
        try:
            version = Version(specifier.version.removesuffix(".*"))
        except InvalidVersion:  # `===` takes any text
            continue
        for year, bounds in sorted(_shipped().items()):
            if name in bounds and bounds[name].specifier.contains(version, prereleases=True):
                return year, f"{requirement.name}{specifier}"
    return None


def _left_open(year: str, wanted: list[Requirement]) -> tuple[str, ...]:
    """The lines of a baseline that no requirement contradicts."""
    kept = {name: str(bound) for name, bound in _shipped()[year].items()}
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name in kept and _closes(requirement, _shipped()[year][name]):
            del kept[name]
    return tuple(kept.values())


def _closes(requirement: Requirement, bound: Requirement) -> bool:
    """Whether a requirement has an upper bound of its own, or a lower one that lies above `bound`."""
    if requirement.url:
        return True
    for specifier in requirement.specifier:
        if specifier.operator in (*PINNING, "<"):
            return True
        if specifier.operator in (">=", ">") and not bound.specifier.contains(specifier.version, prereleases=True):
            return True
    return False


@cache
def _shipped() -> dict[str, dict[str, Requirement]]:
    found: dict[str, dict[str, Requirement]] = {}
    for file in resources.files(__name__).iterdir():
        if file.name.endswith(".txt"):
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
            bounds = [Requirement(line) for line in lines if line and not line.startswith("#")]
            found[file.name.removesuffix(".txt")] = {canonicalize_name(b.name): b for b in bounds}
    return found
