"""The three distributions as they would be published: each is complete, and works with what it declares and no more."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trove_classifiers import classifiers

from bettong.packaging.interpreters import Interpreters, discover

ROOT = Path(__file__).parents[2]
IMPORTED_AS = {"bettong-mac": "mac", "bettong-sdk": "wallaroo", "bettong": "bettong"}
UV = str(Path(sys.executable).parent / "uv")
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
# Two are no modules for anyone to import: the one acts at once, the other runs inside Alembic alone.
left_out = {"bettong.__main__", "bettong.storage.migrations.env"}
# And these need a library that is there where they are imported: in a model's environment, with an extra.
left_out |= {f"mac._loaders.{name}" for name in "hugging_face keras mlflow pytorch sklearn tensorflow xgboost".split()}
left_out |= {"bettong.drivers.adbc"}
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if found.name not in left_out:
        importlib.import_module(found.name)
print("all of", package.__file__)
"""
LOADED = """
import importlib, sys
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(*sorted({name.partition(".")[0] for name in sys.modules.keys() - before} - sys.stdlib_module_names))
"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By distribution: the wheel that comes out of its source archive."""
    folder = tmp_path_factory.mktemp("dist")
    for package in IMPORTED_AS.values():
        command = [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--outdir",
            str(folder),
            str(ROOT / "packages" / package),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return {name: next(folder.glob(f"{name.replace('-', '_')}-*.whl")) for name in IMPORTED_AS}


@pytest.fixture(params=IMPORTED_AS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def told(wheel: Path) -> Metadata:
    """What the wheel says of itself, held against the standard."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Metadata.from_email(archive.read(file), validate=True)


def needed(requirements: list[Requirement], wheels: dict[str, Path]) -> tuple[set[str], set[str]]:
    """What `requirements` bring along, each with its own: (distributions of ours, distributions of others)."""
    ours: set[str] = set()
    others: set[str] = set()
    todo = [(requirement, "") for requirement in requirements]
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        known = name in ours | others
        if name in wheels:
            ours.add(name)
            brought = told(wheels[name]).requires_dist or []
        else:
            others.add(name)
            brought = [Requirement(text) for text in metadata.requires(name) or ()]
        if not known:
            todo += [(r, "") for r in brought]
        todo += [(r, e) for r in brought for e in requirement.extras if r.marker is not None]
    return ours, others


@pytest.fixture
def python(name: str, wheels: dict[str, Path], tmp_path: Path) -> str:
    """An interpreter with the distribution `name` and what it declares, and nothing else of this machine.

    Packages of others are linked from the environment of this test, so that no index is asked.
    """
    environment = tmp_path / "environment"
    interpreter = environment / "bin" / "python"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(environment)], check=True)
    ours, others = needed([Requirement(name)], wheels)
    install = [UV, "pip", "install", "-q", "--offline", "--no-deps", "--python", str(interpreter)]
    subprocess.run([*install, *(str(wheels[name]) for name in ours)], check=True)
    (packages,) = environment.glob("lib/*/site-packages")
    for other in others:
        distribution = metadata.distribution(other)
        files = distribution.files or []
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (packages / top).symlink_to(str(distribution.locate_file(top)))
        for program in (file for file in files if file.parts[0] == ".." and file.parent.name == "bin"):
            (environment / "bin" / program.name).symlink_to(str(distribution.locate_file(program)))
    return str(interpreter)


def run(python: str, *words: str, **variables: str) -> str:
    """The output of `python words`, started where nothing of the checkout is in sight."""
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **variables}
    folder = Path(python).parents[2]
    done = subprocess.run([python, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_file_of_the_package_is_in_the_wheel_and_no_other(name: str, wheels: dict[str, Path]) -> None:
    source = ROOT / "packages" / IMPORTED_AS[name] / "src"
    files = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file() and p.suffix != ".pyc"}

    with zipfile.ZipFile(wheels[name]) as archive:
        packed = {n for n in archive.namelist() if ".dist-info/" not in n}

    assert packed == files
    assert f"{IMPORTED_AS[name]}/py.typed" in packed


def test_what_a_wheel_says_of_itself_holds(name: str, wheels: dict[str, Path]) -> None:
    said = told(wheels[name])

    assert (said.name, said.license_expression, said.license_files) == (name, "Apache-2.0", ["LICENSE"])
    assert set(said.classifiers or ()) <= classifiers
    assert said.description_content_type == "text/markdown"
    assert str(said.description).strip() == (ROOT / "packages" / IMPORTED_AS[name] / "README.md").read_text().strip()
    assert all(r.url is None for r in said.requires_dist or ())
    for ours in (r for r in said.requires_dist or () if r.name in IMPORTED_AS):
        assert str(said.version) in ours.specifier, f"{ours} is not the version that is released together with it"


def test_the_licence_in_a_package_is_the_repositorys(name: str) -> None:
    assert (ROOT / "packages" / IMPORTED_AS[name] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_every_module_imports_with_what_is_declared(name: str, python: str) -> None:
    said = run(python, "-I", "-W", "error", "-c", IMPORT_ALL, IMPORTED_AS[name])

    assert said.startswith(f"all of {Path(python).parents[1]}")


@pytest.mark.parametrize("name", ["bettong-sdk"], indirect=True)
def test_importing_the_sdk_loads_no_server_and_no_pandas(python: str) -> None:
    loaded = set(run(python, "-I", "-c", LOADED, "wallaroo").split())

    assert "wallaroo" in loaded
    assert loaded.isdisjoint({"bettong", "mac", "pandas", "pyarrow", "numpy", "polars", "matplotlib"})


@pytest.mark.parametrize("name", ["bettong-mac"], indirect=True)
def test_importing_macs_types_loads_numpy_alone(python: str) -> None:
    assert run(python, "-I", "-c", LOADED, "mac.types").split() == ["mac", "numpy"]


@pytest.mark.parametrize("name", ["bettong"], indirect=True)
def test_a_platform_runs_from_the_wheels(python: str, tmp_path: Path) -> None:
    command = str(Path(python).parent / "bettong")
    home = {"BETTONG_HOME": str(tmp_path / "home")}
    assert "bettong status" in run(python, command, "--help")

    try:
        run(python, command, "up", **home)
        said = run(python, "-m", "bettong", "status", **home)
        made = run(
            python,
            "-c",
            "import wallaroo; print(wallaroo.Client().get_workspace('w', create_if_not_exist=True).name())",
            **home,
        )
    finally:
        stopped = run(python, command, "stop", **home)

    assert "Nothing is deployed." in said
    assert made.splitlines()[-1] == "w"
    assert stopped == "Stopped.\n"


@pytest.mark.framework
@pytest.mark.parametrize(("name", "version"), [("bettong-mac", "3.8"), ("bettong-sdk", "3.10")], indirect=["name"])
def test_the_oldest_python_that_is_promised_imports_it(
    name: str, version: str, wheels: dict[str, Path], tmp_path: Path
) -> None:
    promised = told(wheels[name]).requires_python
    assert promised is not None
    assert promised == f">={version}"
    subprocess.run([UV, "venv", "-q", "--python", _interpreter(version), str(tmp_path / "old")], check=True)
    python = str(tmp_path / "old" / "bin" / "python")
    subprocess.run([UV, "pip", "install", "-q", "--python", python, str(wheels[name])], check=True)

    assert run(python, "-I", "-c", IMPORT_ALL, IMPORTED_AS[name]).startswith("all of ")


def _interpreter(version: str) -> str:
    """An installed Python of this version. Its absence is a failure, not a skip."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = discover(folders=[Path(folder) for folder in os.environ["PATH"].split(os.pathsep)], pyenv_root=pyenv)
    major, minor = map(int, version.split("."))
    working = Interpreters(found).get((major, minor))
    assert working, f"Python {version} is not installed; this test needs it (pyenv install {version})."
    return str(working.path)
