"""Builds for CPUs are preferred where this machine has them beside what the index offers.

PyTorch's packages come for CPUs under a version of its own, such as 2.13.0+cpu; the ones that an index usually has for
x86-64 Linux bring CUDA, several gigabytes, with them. Resolvers take the newest release, whichever it is, so the CPU
build is asked for in the constraints, with those of a baseline. The last try, without a baseline, goes without it.
"""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.tags import cpython_tags, platform_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from packaging.version import Version

    from bettong.packaging.baselines import Baseline
    from bettong.packaging.interpreters import Minor

LARGE = "torch"


@dataclass(frozen=True, slots=True)
class CpuBuild:
    name: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def on_this_machine(folders: Iterable[str], minor: Minor) -> list[CpuBuild]:
    """The CPU builds in folders of wheels that this version of Python takes on this machine, newest first."""
    fitting = set(cpython_tags(minor, platforms=list(platform_tags())))
    found: set[CpuBuild] = set()
    for folder in folders:
        for wheel in Path(folder).glob("*+cpu-*.whl"):
            try:
                name, version, _, tags = parse_wheel_filename(wheel.name)
            except InvalidWheelFilename:
                continue
            if version.local == "cpu" and not fitting.isdisjoint(tags):
                found.add(CpuBuild(name, version))
    return sorted(found, key=lambda build: (build.version, build.name), reverse=True)


def preferring(builds: Sequence[CpuBuild], baseline: Baseline, wanted: Sequence[Requirement]) -> Baseline:
    """`baseline` with the newest build of each name that neither it nor the requirements exclude."""
    if not baseline.year:
        return baseline
    asked = [*wanted, *(Requirement(line) for line in baseline.lines)]
    chosen: dict[str, CpuBuild] = {}
    for build in builds:
        said = [r for r in asked if canonicalize_name(r.name) == build.name]
        if all(not r.url and r.specifier.contains(build.version, prereleases=True) for r in said):
            chosen.setdefault(build.name, build)
    return replace(baseline, lines=(*baseline.lines, *map(str, chosen.values())))


def told(baseline: Baseline, wanted: Sequence[Requirement]) -> str:
    """What the upload log says of it; "" when nothing asks for such a package."""
    names = {canonicalize_name(r.name) for r in wanted}
    chosen = [line for line in baseline.lines if line.endswith("+cpu") and line.partition("==")[0] in names]
    if chosen:
        return f"Preferring CPU builds that this machine has: {', '.join(chosen)}."
    pinned = any("+" in str(r.specifier) or r.url for r in wanted if canonicalize_name(r.name) == LARGE)
    if LARGE in names and not pinned and (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return (
            f"This machine has no CPU build of {LARGE}: the index's own may bring CUDA libraries of several GB. Builds "
            "for CPUs in a folder that pip's find-links names are preferred."
        )
    return ""
