from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from worker_builders import artifact

from mac._step import find_step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMPORT = "from mac.types import InferenceData\n"


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    """Finding a step imports its files; forget them again."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize(
    "code",
    [
        IMPORT + "def process_data(input_data: InferenceData) -> InferenceData: return input_data",
        IMPORT + "async def process_data(input_data: InferenceData) -> InferenceData: return input_data",
        IMPORT + "def process_data(input_data: 'InferenceData') -> 'InferenceData': return input_data",
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from mac.types import InferenceData\n"
        "def process_data(input_data: InferenceData) -> InferenceData: return input_data",
        "import numpy as np\nfrom typing import Dict\n"
        "def process_data(input_data: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]: return input_data",
        "import numpy as np\n"
        "def process_data(input_data: dict[str, np.ndarray]) -> dict[str, np.ndarray]: return input_data",
        "import mac.types\n"
        "def process_data(input_data: mac.types.InferenceData) -> mac.types.InferenceData: return input_data",
        "import numpy.typing as npt\nfrom typing import Any\n"
        "def process_data(input_data: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]: return input_data",
    ],
)
def test_the_usual_ways_to_write_it_are_found(tmp_path: Path, code: str) -> None:
    (tmp_path / "step.py").write_text(code)

    step = find_step(str(tmp_path))

    assert step.__name__ == "process_data"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        ("x = 1", AttributeError, "No function 'process_data' found"),
        (IMPORT + "class A:\n  def process_data(input_data: InferenceData): ...", AttributeError, "No function"),
        ("process_data = 5", ValueError, "is not a function"),
        (IMPORT + "def process_data(rows: InferenceData) -> InferenceData: ...", ValueError, r"parameters \(rows\)"),
        (IMPORT + "def process_data(input_data: InferenceData, b) -> InferenceData: ...", ValueError, "input_data, b"),
        (IMPORT + "def process_data() -> InferenceData: ...", ValueError, r"parameters \(\)"),
        (IMPORT + "def process_data(input_data) -> InferenceData: ...", ValueError, "no annotation for its parameter"),
        (IMPORT + "def process_data(input_data: InferenceData): ...", ValueError, "no annotation for its return value"),
        (IMPORT + "def process_data(input_data: dict) -> InferenceData: ...", ValueError, "another annotation"),
        (IMPORT + "def process_data(input_data: InferenceData) -> 'DataFrame': ...", ValueError, "its return value"),
        ("import not_there", ModuleNotFoundError, "step.py cannot be loaded: No module named 'not_there'"),
        ("x = undefined_name", NameError, "undefined_name"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, code: str, error: type[Exception], words: str) -> None:
    (tmp_path / "step.py").write_text(code)

    with pytest.raises(error, match=words):
        find_step(str(tmp_path))


def test_several_are_refused_in_the_words_that_people_search_for(tmp_path: Path) -> None:
    code = IMPORT + "def process_data(input_data: InferenceData) -> InferenceData: return input_data"
    artifact(tmp_path, code, {"second.py": code})

    with pytest.raises(ValueError, match=r"^Multiple pre/post-processing steps found in the given files\."):
        find_step(str(tmp_path))


def test_one_that_is_imported_by_another_file_is_still_one(tmp_path: Path) -> None:
    code = IMPORT + "def process_data(input_data: InferenceData) -> InferenceData: return input_data"
    artifact(tmp_path, code, {"main.py": "from step import process_data"})

    assert find_step(str(tmp_path)).__module__ == "step"


def test_an_archive_without_python_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="no Python file in the root"):
        find_step(str(tmp_path))


def test_a_file_named_like_a_known_module_does_not_take_its_place(tmp_path: Path) -> None:
    import json

    code = IMPORT + "def process_data(input_data: InferenceData) -> InferenceData: return input_data"
    artifact(tmp_path, code, {"json.py": "mine = 1", "numpy.py": "mine = 1"})

    find_step(str(tmp_path))

    assert sys.modules["json"] is json
    assert sys.modules["numpy"] is np
