"""constraints.txt holds a plain pin for everything that an installation pulls in, and for nothing else."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OURS = {"bettong-mac": "mac", "bettong-sdk": "wallaroo", "bettong": "bettong"}
EXTRAS = {"notebook", "postgres"}
MACHINES = [
    {"sys_platform": system, "platform_system": name, "python_version": python, "python_full_version": f"{python}.0"}
    for (system, name), python in product([("linux", "Linux"), ("darwin", "Darwin")], ["3.11", "3.12", "3.13"])
]


def declared() -> list[Requirement]:
    """What we ask for ourselves: the three projects with all their extras, and the tools."""
    lines = [line for line in (ROOT / "requirements-dev.txt").read_text().splitlines() if not line.startswith("#")]
    for folder in OURS.values():
        project = tomllib.loads((ROOT / "packages" / folder / "pyproject.toml").read_text())["project"]
        lines += project["dependencies"]
        lines += [line for extra in project.get("optional-dependencies", {}).values() for line in extra]
    return [Requirement(line) for line in lines]


def brought(requirement: Requirement) -> list[Requirement]:
    """What a package of others brings along on any of the machines; nothing when it is not installed here."""
    try:
        all_of_them = [Requirement(text) for text in metadata.requires(requirement.name) or ()]
    except metadata.PackageNotFoundError:
        return []
    extras = ["", *requirement.extras]
    return [r for r in all_of_them if any(holds(r, machine, extra) for machine, extra in product(MACHINES, extras))]


def holds(requirement: Requirement, machine: dict[str, str], extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**machine, "extra": extra})


def needed() -> set[str]:
    found: set[str] = set()
    seen: set[str] = set()
    todo = declared()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in OURS or (asked := f"{name}{sorted(requirement.extras)}") in seen:
            continue
        seen.add(asked)
        found.add(name)
        todo += brought(requirement)
    return found


def test_every_line_is_a_name_and_a_version_in_order() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert [line for line in lines if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*==\d+(\.[0-9a-z]+)*", line)] == []
    names = [line.partition("==")[0] for line in lines]
    assert names == sorted(set(names))


def test_what_is_pulled_in_is_pinned_and_nothing_else_is() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert pinned == needed()
