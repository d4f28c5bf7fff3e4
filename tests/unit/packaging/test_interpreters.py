"""Which Python a model gets, and what is said when there is none."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput
from bettong.packaging.interpreters import Interpreters, Minor, discover, wish_of

if TYPE_CHECKING:
    from pathlib import Path

OWN: Minor = sys.version_info[:2]


def fake_python(path: Path, version: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {version}\n")
    path.chmod(stat.S_IRWXU)
    return path


def test_names_tell_versions_and_the_newest_patch_of_pyenv_comes_first(tmp_path: Path) -> None:
    for version in ("3.9.2", "3.9.18", "3.7.16", "2.7.18"):
        fake_python(tmp_path / f"pyenv/versions/{version}/bin/python{version.rpartition('.')[0]}", version)
    fake_python(tmp_path / "bin/python3.9", "3.9.1")
    fake_python(tmp_path / "pyenv/shims/python3.9", "3.6.0")

    found = discover(folders=[tmp_path / "pyenv/shims", tmp_path / "bin"], pyenv_root=tmp_path / "pyenv")

    ours = [str(p.relative_to(tmp_path)) for p in found[(3, 9)] if p.is_relative_to(tmp_path)]
    assert ours == ["pyenv/versions/3.9.18/bin/python3.9", "pyenv/versions/3.9.2/bin/python3.9", "bin/python3.9"]
    assert (3, 7) not in found


def test_an_operators_interpreter_goes_before_all_others(tmp_path: Path) -> None:
    named = fake_python(tmp_path / "opt/bin/python3.10", "3.10.1")
    nameless = fake_python(tmp_path / "special/python", "3.10.99")

    found = discover(first=[str(nameless), str(tmp_path / "opt")], pyenv_root=tmp_path)

    assert found[(3, 10)][:2] == [nameless, named]


def test_the_running_interpreter_is_always_there(tmp_path: Path) -> None:
    interpreter = Interpreters(discover(pyenv_root=tmp_path)).get(OWN)
    assert interpreter is not None
    assert interpreter.version == "{}.{}.{}".format(*sys.version_info[:3])


def test_one_that_does_not_run_or_lies_about_its_version_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "broken/python3.9"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 3\n")
    liar, good = fake_python(tmp_path / "liar/python3.9", "3.10.2"), fake_python(tmp_path / "good/python3.9", "3.9.4")

    interpreter = Interpreters({(3, 9): [broken, liar, good]}).get((3, 9))

    assert interpreter is not None
    assert (interpreter.path, interpreter.version) == (good, "3.9.4")


def test_a_model_gets_the_platforms_version_then_older_then_newer_ones(tmp_path: Path) -> None:
    minors: list[Minor] = [(3, 8), (3, 9), OWN, (3, 98), (3, 99)]
    assert Interpreters({m: [tmp_path] for m in minors}).candidates(None) == [OWN, (3, 9), (3, 8), (3, 98), (3, 99)]


@pytest.mark.parametrize("text", ["3.9", "3.9.18\n", "python-3.9", "cpython-3.9.2", "3.9\n3.8\n"])
def test_a_python_version_file_decides(tmp_path: Path, text: str) -> None:
    (tmp_path / ".python-version").write_text(text)
    assert Interpreters({m: [tmp_path] for m in [(3, 8), (3, 9), OWN]}).candidates(wish_of(tmp_path)) == [(3, 9)]


def test_requires_python_of_a_pyproject_decides(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nrequires-python = ">=3.8,<3.10"\n')
    assert Interpreters({m: [tmp_path] for m in [(3, 8), (3, 9), OWN]}).candidates(wish_of(tmp_path)) == [
        (3, 9),
        (3, 8),
    ]


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.55", r"asks for Python 3.55, which is not installed .* Installed are: 3.8, 3.9. .*pyenv install 3.55"),
        ("3.7", "asks for Python 3.7; models run on Python 3.8 and newer"),
        ("2.7", "models run on Python 3.8 and newer"),
    ],
)
def test_a_missing_version_is_named_with_what_to_do(tmp_path: Path, version: str, said: str) -> None:
    (tmp_path / ".python-version").write_text(version)
    with pytest.raises(BadInput, match=said):
        Interpreters({(3, 9): [tmp_path], (3, 8): [tmp_path]}).candidates(wish_of(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"), [(".python-version", "my-venv"), ("pyproject.toml", "[project"), (".python-version", "")]
)
def test_rubbish_is_said(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=f"The artifact's {name}"):
        wish_of(tmp_path)


def test_an_artifact_that_says_nothing_wishes_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\n")
    assert wish_of(tmp_path) is None
