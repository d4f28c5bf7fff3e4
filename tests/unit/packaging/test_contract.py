"""The code of a Python step is read, never run, and what is wrong with it is said with file and line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput
from bettong.packaging.contract import check_python_step

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """from mac.types import InferenceData
def process_data(input_data: InferenceData) -> InferenceData:
    return {}
"""


def artifact(folder: Path, **files: str | bytes) -> Path:
    for name, code in files.items():
        path = folder / name.replace("__", "/").replace("_py", ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(code if isinstance(code, bytes) else code.encode())
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as refused:
        check_python_step(folder)
    return str(refused.value)


@pytest.mark.parametrize(
    "code",
    [
        GOOD,
        GOOD.replace("def ", "async def "),
        "import mac.types\ndef process_data(input_data: mac.types.InferenceData) -> mac.types.InferenceData: ...",
        "import mac.types as t\ndef process_data(input_data: 't.InferenceData') -> 't.InferenceData': ...",
        "from mac.types import InferenceData as D\ndef process_data(input_data: D) -> D: ...",
        "def process_data(input_data: Dict[str, np.ndarray]) -> dict[str, numpy.ndarray]: ...",
        "Rows = Dict[str, np.ndarray]\ndef process_data(input_data: Rows) -> Rows: ...",
        "def process_data(input_data: dict[str, NDArray[np.float64]]) -> InferenceData: ...",
        "try:\n  import x\nexcept ImportError:\n  x = None\nif x:\n  "
        "def process_data(input_data: InferenceData) -> InferenceData: ...\nelse:\n  "
        "def process_data(input_data: InferenceData) -> InferenceData: ...",
        b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + GOOD.encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
    ],
)
def test_every_way_to_write_the_contract_is_taken(tmp_path: Path, code: str | bytes) -> None:
    assert check_python_step(artifact(tmp_path, step_py=code, helpers_py="def clean(rows): ...")) == "step.py"


def test_nothing_is_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    check_python_step(artifact(tmp_path / "a", step_py=f"open({str(tmp_path / 'ran')!r}, 'w')\n{GOOD}"))
    assert not (tmp_path / "ran").exists()


def test_several_steps_are_refused_in_the_words_of_the_contract(tmp_path: Path) -> None:
    said = refusal(artifact(tmp_path, one_py=GOOD, two_py=GOOD))
    assert said.startswith("Multiple pre/post-processing steps found in the given files.")
    assert "one.py line 2, two.py line 2" in said


def test_files_in_folders_are_not_looked_at(tmp_path: Path) -> None:
    assert check_python_step(artifact(tmp_path, step_py=GOOD, old__step_py=GOOD)) == "step.py"


def test_a_single_top_folder_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    said = refusal(artifact(tmp_path, forecast__step_py=GOOD))
    assert "sits in the folder 'forecast/'" in said
    assert "(cd forecast && zip -r ../model.zip .)" in said


def test_no_code_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    assert "no .py file at its root" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("\n\ndef proces_data(input_data): ...", "found 'proces_data' in step.py line 3; the function must be called"),
        ("def predict(input_data): ...", "found 'predict' in step.py line 1; the function must be called process_data"),
        ("class Step:\n  def process_data(self): ...", "the one in step.py line 2 is inside a class"),
        ("from steps.inner import process_data", "step.py line 1 imports it"),
        ("process_data = lambda input_data: {}", "step.py line 1 assigns to it"),
        ("def a(): ...\ndef b(): ...", "found only: a, b"),
        ("x = 1", "they define no function"),
        ("def process_data(data: InferenceData) -> InferenceData: ...", "takes (data); expected one parameter"),
        ("def process_data(input_data: InferenceData, n=1) -> InferenceData: ...", "takes (input_data, n)"),
        ("def process_data(input_data: InferenceData, **k) -> InferenceData: ...", "takes (input_data, k)"),
        (
            "def process_data(input_data) -> InferenceData: ...",
            "parameter input_data of process_data in step.py line 1 has",
        ),
        ("def process_data(input_data: InferenceData): ...", "return value of process_data in step.py line 1 has no"),
        ("def process_data(input_data: pd.DataFrame) -> InferenceData: ...", "is annotated 'pd.DataFrame'"),
        ("def process_data(input_data: InferenceData) -> Dict[str, list]: ...", "is annotated 'Dict[str, list]'"),
        ("def process_data(input_data: 'Infer (') -> InferenceData: ...", "is annotated"),
        ("def process_data(:", "step.py line 1 is not Python code"),
        ("print 'hello'", "step.py line 1 is not Python code"),
        (b"# -*- coding: klingon -*-\n", "step.py is not Python code: unknown encoding: klingon"),
        (b"x = '\xff\xfe'\n", "is not Python code"),
        (b"x = 1\0\n", "is not Python code"),
        ("(" * 5000 + ")" * 5000, "is not Python code"),
        ("x = " + "-" * 100_000 + "1", "is not Python code"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path: Path, code: str | bytes, said: str) -> None:
    assert said in refusal(artifact(tmp_path, step_py=code))


def test_more_code_than_is_read_is_refused(tmp_path: Path) -> None:
    assert "more than 4194304" in refusal(artifact(tmp_path, step_py=b"#" * (4 * 2**20 + 1)))
