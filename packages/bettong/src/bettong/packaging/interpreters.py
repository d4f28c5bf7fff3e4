"""The Python interpreters of this machine, and which one a model gets.

A model gets the platform's own Python version unless its artifact says otherwise, in a `.python-version` file or in a
pyproject.toml's `requires-python`, or unless its requirements have no wheel for that version but have for another.
The `python_version` of an upload is not asked: SDKs always send "3.8", which nobody chose.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OLDEST = (3, 8)  # of the worker in bettong-mac
_NAMED = re.compile(r"python(\d)\.(\d{1,2})")
_ASKED = re.compile(r"(?:c?python-?)?(\d+)\.(\d+)(?:\.\d+)?")
_ASK_VERSION = "import sys; print('%d.%d.%d' % sys.version_info[:3])"

Minor = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """An interpreter that was run and said its version, such as "3.11.7"."""

    path: Path
    version: str

    @property
    def minor(self) -> Minor:
        major, minor, *_ = self.version.split(".")
        return int(major), int(minor)


@dataclass(frozen=True, slots=True)
class Wish:
    """What an artifact says about its interpreter; `said_by` names the file, or what else asks for it.

    `example` is a version that would do, `otherwise` what a person can do besides installing it. A `preferred` one is
    taken when it is installed; others do as well.
    """

    allowed: SpecifierSet
    said_by: str
    example: str = ""
    otherwise: str = ""
    preferred: bool = False


def discover(*, first: Iterable[str] = (), folders: Iterable[Path] = (), pyenv_root: Path) -> dict[Minor, list[Path]]:
    """Interpreters by version as their names tell it, best candidate first; none of them is run.

    `first` are paths an operator gave (a file, or a folder of an installation); then the running interpreter, pyenv's
    versions (newest patch first), and `folders`, those of PATH for instance. A file of `first` whose name has no
    version is asked for it.
    """
    found: dict[Minor, list[Path]] = {}

    def add(path: Path, minor: Minor | None) -> None:
        if minor and minor >= OLDEST and path.is_file() and path not in found.setdefault(minor, []):
            found[minor].append(path)

    for text in first:
        given = Path(text).expanduser()
        for path in [given] if given.is_file() else _named_in(given / "bin") or _named_in(given):
            add(path, _minor_of(path) or _asked(path))
    add(_running(), sys.version_info[:2])
    versions = sorted(pyenv_root.glob("versions/[23].*"), key=_patch_order, reverse=True)
    shims = pyenv_root / "shims"  # scripts that choose a version by the folder they are called in
    for folder in [*(v / "bin" for v in versions), *folders, Path("/usr/local/bin"), Path("/usr/bin")]:
        if folder != shims:
            for path in _named_in(folder):
                add(path, _minor_of(path))
    return {minor: paths for minor, paths in sorted(found.items()) if paths}


class Interpreters:
    """Hands out interpreters, each run once to see that it works."""

    def __init__(self, found: dict[Minor, list[Path]]) -> None:
        self._found = found
        self._verified: dict[Minor, Interpreter | None] = {}

    def get(self, minor: Minor) -> Interpreter | None:
        """The first working interpreter of this version."""
        if minor not in self._verified:
            asked = ((path, _version(path)) for path in self._found.get(minor, ()))
            working = (Interpreter(p, v) for p, v in asked if v and v.startswith(f"{minor[0]}.{minor[1]}."))
            self._verified[minor] = next(working, None)
        return self._verified[minor]

    def candidates(self, wish: Wish | None) -> Sequence[Minor]:
        """The versions to try for a model, best first: the platform's own, older ones, newer ones.

        Raises:
            BadInput: no installed version is one that the artifact asks for.
        """
        own: Minor = sys.version_info[:2]
        older = sorted((m for m in self._found if m < own), reverse=True)
        newer = sorted(m for m in self._found if m > own)
        known = [m for m in [own, *older, *newer] if m in self._found]
        if wish is None:
            return known
        if fitting := [m for m in known if _fits(m, wish.allowed)]:
            return fitting
        if wish.preferred:
            return known
        asked = str(wish.allowed).removeprefix("==").removesuffix(".*")
        if not any(_fits((3, n), wish.allowed) for n in range(OLDEST[1], 100)):
            raise BadInput(
                f"{wish.said_by} asks for Python {asked}; models run on Python 3.8 and newer.", "Ask for one of those."
            )
        raise BadInput(
            f"{wish.said_by} asks for Python {asked}, which is not installed on the platform's machine. "
            f"Installed are: {', '.join(f'{a}.{b}' for a, b in sorted(self._found))}.",
            f"Install it (for example: pyenv install {wish.example or asked}), or name its path in BETTONG_PYTHONS; "
            f"then upload again.{wish.otherwise and ' ' + wish.otherwise}",
        )


def wish_of(folder: Path) -> Wish | None:
    """What the artifact in `folder` says about its Python version, None when it says nothing.

    Raises:
        BadInput: it says something that is no version.
    """
    chosen = folder / ".python-version"
    if chosen.is_file():
        lines = [s for line in chosen.read_bytes().decode("utf-8", "replace").splitlines() if (s := line.strip())]
        match = _ASKED.fullmatch(lines[0]) if lines else None
        if not match:
            raise BadInput("The artifact's .python-version holds no version.", "Write it as 3.11.")
        return Wish(SpecifierSet(f"=={match[1]}.{match[2]}.*"), "The artifact's .python-version")
    project = folder / "pyproject.toml"
    if project.is_file():
        try:
            said = tomllib.loads(project.read_text(encoding="utf-8")).get("project", {}).get("requires-python")
            return Wish(SpecifierSet(said), "The artifact's pyproject.toml") if said else None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, InvalidSpecifier, AttributeError, TypeError):
            raise BadInput(
                "The artifact's pyproject.toml cannot be read.", "Correct it, or leave it out of the zip."
            ) from None
    return None


def _fits(minor: Minor, allowed: SpecifierSet) -> bool:
    """Whether some release of this version is allowed."""
    return any(allowed.contains(f"{minor[0]}.{minor[1]}.{patch}") for patch in (0, 5, 10, 99))


def _running() -> Path:
    """The interpreter that the platform runs on; the one below a virtual environment, not that environment's."""
    base = Path(getattr(sys, "_base_executable", "") or sys.executable)
    named = base.with_name(f"python{sys.version_info[0]}.{sys.version_info[1]}")
    return named if named.is_file() else base


def _named_in(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if _minor_of(p))
    except OSError:  # not there, or not ours to read
        return []


def _minor_of(path: Path) -> Minor | None:
    match = _NAMED.fullmatch(path.name)
    return (int(match[1]), int(match[2])) if match else None


def _asked(path: Path) -> Minor | None:
    version = _version(path)
    return Interpreter(path, version).minor if version else None


def _version(path: Path) -> str | None:
    """The version an interpreter says it has, None when it does not run."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK_VERSION],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
            check=False,
            env={"PATH": os.defpath},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    text = done.stdout.decode("ascii", "replace").strip()
    return text if done.returncode == 0 and re.fullmatch(r"\d+\.\d+\.\d+", text) else None


def _patch_order(folder: Path) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", folder.name))
