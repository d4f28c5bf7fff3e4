"""What an upload of each framework may be, told by its bytes; what is none of them is refused with words."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput, UnsupportedFormat
from bettong.packaging.block_text import read_blocks
from bettong.packaging.frameworks import content_folder, head_of, only_file, way_of
from bettong.packaging.interpreters import Interpreters
from bettong.packaging.requirements import read_requirements

if TYPE_CHECKING:
    from pathlib import Path

PICKLE, ZIP = b"\x80\x04N.", b"PK\x03\x04rest"


def kept_as(folder: Path, framework: str, data: bytes) -> str:
    path = folder / "upload"
    path.write_bytes(data)
    return way_of(framework).single(path, head_of(path))


@pytest.mark.parametrize(
    ("framework", "data", "name"),
    [
        ("python", b"anything", ""),
        ("custom", b"anything", ""),
        ("mlflow", b"anything", ""),
        ("sklearn", PICKLE, "model.pkl"),
        ("sklearn", zlib.compress(PICKLE), "model.pkl"),
        ("sklearn", ZIP, ""),
        ("xgboost", PICKLE, "model.pkl"),
        ("xgboost", b'  {"learner": {}}', "model.json"),
        ("xgboost", b"{L\0\0\0\0\0\0\0\x07learner", "model.ubj"),
        ("xgboost", b"binf\0\0", "model.bin"),
        ("xgboost", ZIP, ""),
    ],
)
def test_a_file_is_known_by_its_bytes_whatever_its_name(tmp_path: Path, framework: str, data: bytes, name: str) -> None:
    assert kept_as(tmp_path, framework, data) == name


@pytest.mark.parametrize(
    ("framework", "words"),
    [("sklearn", "neither a pickle nor a zip.*joblib.dump"), ("xgboost", "no XGBoost model.*save_model")],
)
def test_another_file_is_refused_with_what_was_expected(tmp_path: Path, framework: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        kept_as(tmp_path, framework, b"text,of,a,table")


def test_a_framework_that_does_not_run_names_those_that_do() -> None:
    with pytest.raises(UnsupportedFormat, match=r"'vllm' is not one .*: .*custom.*mlflow.*python.*sklearn.*xgboost"):
        way_of("vllm")


def test_a_zipped_folder_is_the_same_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert content_folder(tmp_path) == tmp_path / "a" / "b"
    (tmp_path / "a" / "notes.txt").touch()
    assert content_folder(tmp_path) == tmp_path / "a"


def test_none_and_several_model_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadInput, match=r"holds no pickled model \(\.pkl\) at its root; found: notes\.txt"):
        only_file(tmp_path, (".pkl",), "pickled model")
    (tmp_path / "a.pkl").touch()
    (tmp_path / "b.PKL").touch()
    with pytest.raises(BadInput, match=r"holds 2 files that may be the pickled model: a\.pkl, b\.PKL"):
        only_file(tmp_path, (".pkl",), "pickled model")


@pytest.mark.parametrize(
    ("name", "content", "requirements"),
    [
        ("model.json", b'{"learner":{},"version":[3,2,0]}', ("xgboost-cpu==3.2.0", "scikit-learn")),
        ("model.json", b'{"learner":{},"version":[1,5,2]}', ("xgboost-cpu>=2.1.1", "scikit-learn")),
        ("model.bin", b"binf\0\0\0\0", ("xgboost-cpu<3.1,>=2.1.1", "scikit-learn")),
    ],
)
def test_a_saved_xgboost_model_needs_the_small_build(
    tmp_path: Path, name: str, content: bytes, requirements: tuple[str, ...]
) -> None:
    (tmp_path / name).write_bytes(content)

    assert way_of("xgboost").look(tmp_path, {}).requirements == requirements


# --- MLflow ---------------------------------------------------------------------------------------------------------

MLMODEL = """
flavors:
  python_function:
    env:
      conda: conda.yaml
    loader_module: mlflow.sklearn
    python_version: 3.10.13
  sklearn:
    pickled_model: model.pkl
mlflow_version: 2.9.2
signature:
  inputs: '[{"type": "double", "name": "a"}, {"type":
    "double", "name": "b"}]'
"""
CONDA = """
channels:
- conda-forge
dependencies:
- python=3.10.13
- pip<=23
- pytorch=2.1.0=cpu_py310
- numpy
- pip:
  - mlflow==2.9.2
  - scikit-learn==1.3.0  # the model's
name: mlflow-env
"""


def test_an_mlflow_folder_says_its_python_and_its_packages_and_gets_the_small_mlflow(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MLMODEL)
    (tmp_path / "conda.yaml").write_text(CONDA)

    needs = way_of("mlflow").look(tmp_path, {})

    assert needs.requirements == (
        *("mlflow-skinny==2.9.2", "pandas", "torch==2.1.0", "numpy", "mlflow-skinny==2.9.2", "scikit-learn==1.3.0"),
    )
    assert needs.found == ("Found an MLflow model of MLflow 2.9.2, loaded by mlflow.sklearn.",)
    assert needs.python is not None
    assert Interpreters({(3, 10): [], (3, 11): []}).candidates(needs.python) == [(3, 10)]
    assert Interpreters({(3, 11): [], (3, 12): []}).candidates(needs.python) == [(3, 11), (3, 12)]


def test_an_mlflow_folders_requirements_win_over_its_conda_file(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text(MLMODEL)
    (tmp_path / "conda.yaml").write_text(CONDA)
    (tmp_path / "requirements.txt").write_text("mlflow==2.9.2\nscikit-learn==1.3.2\n")
    needs = way_of("mlflow").look(tmp_path, {})

    read = read_requirements(tmp_path, (), needs.requirements, needs.instead)

    assert read.lines == ("mlflow-skinny==2.9.2", "scikit-learn==1.3.2", "pandas")
    assert read.swapped == (("mlflow==2.9.2", "mlflow-skinny==2.9.2"),)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"model.pkl": ""}, r"no file MLmodel; found: model\.pkl"),
        ({"MLmodel": "flavors:\n  spark:\n    x: y\n"}, "no flavour python_function; its flavours are: spark"),
        ({"MLmodel": ""}, "no flavour python_function; its flavours are: none"),
        ({"MLmodel": "x" * 2_000_000}, "MLmodel has 2000000 bytes"),
    ],
)
def test_an_mlflow_folder_that_cannot_be_run_says_why(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    with pytest.raises(BadInput, match=words):
        way_of("mlflow").look(tmp_path, {})


def test_blocks_are_read_as_mlflow_and_conda_write_them() -> None:
    top = read_blocks("a:\n  - x\n  - b: 1\n    c: 'two'\nd:\n- y # why\n- pip:\n  - z==1\ne: \"f: g\"\n# h: i\n")

    assert top.at("a").texts == ["x"]
    assert top.at("a").items[1].at("c").text == "two"
    assert top.at("d").texts == ["y"]
    assert top.at("d").items[1].at("pip").texts == ["z==1"]
    assert (top.at("e").text, top.at("h").text, list(top.keys)) == ("f: g", "", ["a", "d", "e"])


# --- requirements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "lines"),
    [
        ("", ("scikit-learn==1.0.2", "pandas")),
        ("scikit_learn==1.1.3", ("scikit_learn==1.1.3", "pandas")),
        ("scikit-learn>=1", ("scikit-learn>=1", "pandas")),
        ("scikit-learn\npandas", ("scikit-learn", "pandas", "scikit-learn==1.0.2")),
        ("numpy", ("numpy", "scikit-learn==1.0.2", "pandas")),
    ],
)
def test_what_a_model_needs_is_added_unless_its_own_requirements_say_otherwise(
    tmp_path: Path, asked: str, lines: tuple[str, ...]
) -> None:
    (tmp_path / "requirements.txt").write_text(asked)

    assert read_requirements(tmp_path, (), ("scikit-learn==1.0.2", "pandas")).lines == lines
