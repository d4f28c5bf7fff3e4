"""What `make demo` says on a machine that lacks something: the thing that is missing, and what to do."""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType

SCRIPT = Path(__file__).parents[2] / ".ci" / "install.py"


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """A Python that lacks these modules."""
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in missing else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def with_pip(monkeypatch: pytest.MonkeyPatch, version: str | None) -> None:
    """A Python that has this pip, or none."""

    def installed(name: str) -> str:
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", installed)


def test_an_old_python_is_named_with_the_version_that_is_needed(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))

    with pytest.raises(SystemExit, match=r"needs Python 3\.11 or newer; .* make demo PYTHON=python3\.12"):
        install.main(str(tmp_path / "environment"), "numpy")

    assert list(tmp_path.iterdir()) == []


def test_a_python_without_venv_is_told_what_to_install(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without(monkeypatch, "venv")

    with pytest.raises(SystemExit, match=r"has no module 'venv'. Install it .*python3-venv"):
        install.main(str(tmp_path / "environment"), "numpy")


@pytest.mark.parametrize("version", [None, "20.3.4", "22.2.2"])
def test_a_python_without_a_pip_that_will_do_and_without_ensurepip_is_told_what_to_install(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str | None
) -> None:
    with_pip(monkeypatch, version)
    without(monkeypatch, "ensurepip")

    with pytest.raises(SystemExit, match=r"no pip of version 22\.3 or newer.*python3-pip"):
        install._pip(tmp_path / "bin" / "python")


@pytest.mark.parametrize("version", ["22.3", "23.0.1", "26.1rc1"])
def test_a_pip_that_installs_from_outside_is_taken_as_it_is(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    with_pip(monkeypatch, version)

    command = install._pip(tmp_path / "bin" / "python")

    assert command == [sys.executable, "-m", "pip", "--python", str(tmp_path / "bin" / "python")]


def test_the_environment_gets_a_pip_of_its_own(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without one, `pip install` in the activated environment would be another Python's, and install there."""
    commands: list[list[str]] = []
    monkeypatch.setattr(install.subprocess, "run", lambda command, **_: commands.append(command))
    monkeypatch.setattr(install, "_by_uv", lambda *_: True)

    install.main(str(tmp_path / "environment"), "numpy")

    assert [words[-2:] for words in commands if "--python" in words] == [["uv", "pip"]]
