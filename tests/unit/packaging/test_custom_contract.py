"""Each faulty layout of a CUSTOM model (spec 4.11) has words of its own, with file and line, and nothing is run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput
from bettong.packaging.custom_contract import check_custom
from bettong.packaging.ways import custom

if TYPE_CHECKING:
    from pathlib import Path

IMPORTS = """
from mac.inference import AsyncInference, Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData
"""
INFERENCE = """
class Guess(Inference):
    @property
    def expected_model_types(self): return {int}
    @Inference.model.setter
    def model(self, model): self._model = model
    def _predict(self, input_data: InferenceData) -> InferenceData: return input_data
"""
BUILDER = """
class Maker(InferenceBuilder):
    @property
    def inference(self): return Guess()
    def create(self, config): return self.inference
"""
PREDICT = "def _predict(self, input_data: InferenceData) -> InferenceData: return input_data"
GOOD = IMPORTS + INFERENCE + BUILDER


def artifact(folder: Path, **files: str) -> Path:
    """Files by name without .py; `a_in_folder` is folder/a.py."""
    for name, code in files.items():
        stem, _, place = name.partition("_in_")
        path = folder / place.replace("__", "/") / f"{stem}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(BadInput) as refused:
        check_custom(folder)
    return str(refused.value)


@pytest.mark.parametrize(
    "files",
    [
        {"model": GOOD},
        {
            "model": GOOD.replace("Guess(Inference)", "Guess(AsyncInference)").replace(
                "def _predict", "async def _predict"
            )
        },
        {"inference": IMPORTS + INFERENCE, "builder": IMPORTS + "from inference import Guess\n" + BUILDER},
        {"model": "import mac.inference as mi\n" + GOOD.replace("Guess(Inference)", "Guess(mi.Inference)")},
        {"model": "from mac.inference import Inference as Root\n" + GOOD.replace("Guess(Inference)", "Guess(Root)")},
        {"model": GOOD, "__init___in_artifacts": "", "old_in_artifacts": GOOD},
        {"model": GOOD, "old_in_notes": GOOD},
        {"__init___in_package": "", "code_in_package": GOOD, "main": "import package.code"},
    ],
    ids=lambda files: "+".join(files),
)
def test_every_way_to_lay_it_out_is_taken(tmp_path: Path, files: dict[str, str]) -> None:
    found = check_custom(artifact(tmp_path, **files))

    assert any(line.startswith("Found the inference Guess in ") for line in found)
    assert any(line.startswith("Found the builder Maker in ") for line in found)
    assert not any("WARNING" in line for line in found)


def test_an_inference_may_take_members_from_a_base_in_the_zip(tmp_path: Path) -> None:
    base = INFERENCE.replace("Guess", "Base")
    code = IMPORTS + base + "class Guess(Base):\n    def helps(self): ...\n" + BUILDER

    assert check_custom(artifact(tmp_path, model=code))[0].startswith("Found the inference Guess in model.py line ")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "No Python modules found in the zip."),
        ({"model_in_artifacts": GOOD}, "No Python modules found in the zip."),
        (
            {"model": IMPORTS + BUILDER},
            "No subclass of Inference is found in the zip's Python files (found the classes M",
        ),
        ({"model": IMPORTS + INFERENCE}, "No subclass of InferenceBuilder is found"),
        (
            {"model": GOOD, "other": IMPORTS + INFERENCE.replace("Guess", "Second")},
            "Several subclasses of Inference are found: Guess in model.py line 6, Second in other.py line 6. Only one",
        ),
        ({"model": GOOD, "other": IMPORTS + INFERENCE}, "Guess in model.py line 6, Guess in other.py line 6. Only one"),
        (
            {"model": GOOD + BUILDER.replace("Maker", "Other")},
            "Several subclasses of InferenceBuilder are found: Maker in model.py line 13, Other in model.py line 18.",
        ),
        ({"model": GOOD.replace("def inference", "def other")}, "builder Maker in model.py line 13 has no 'inference'"),
        ({"model": GOOD.replace("def create", "def make")}, "builder Maker in model.py line 13 has no 'create'"),
        ({"model": GOOD.replace("def _predict", "def predict_")}, "Guess in model.py line 6 has no method _predict"),
        ({"model": GOOD.replace("expected_model_types", "types")}, "line 6 has no expected_model_types"),
        (
            {"model": GOOD.replace("input_data: InferenceData", "rows: InferenceData")},
            "_predict of Guess in model.py line 11 has no parameter input_data; it takes (self, rows).",
        ),
        (
            {"model": GOOD.replace("input_data: InferenceData", "input_data")},
            "The parameter input_data of _predict of Guess in model.py line 11 has no annotation.",
        ),
        (
            {"model": GOOD.replace(" -> InferenceData", "")},
            "The return value of _predict of Guess in model.py line 11 has",
        ),
        (
            {"model": GOOD.replace("input_data: InferenceData", "input_data: list")},
            "The parameter input_data of _predict of Guess in model.py line 11 is annotated 'list'; expected a dict of",
        ),
        (
            {"model": GOOD.replace("-> InferenceData", "-> Dict[str, list]")},
            "The return value of _predict of Guess in model.py line 11 is annotated 'Dict[str, list]'; expected a dict",
        ),
        ({"model": "def broken(:"}, "model.py line 1 is not Python code"),
        (
            {"model": "def handle_completion(request): ..."},
            "The zip serves OpenAI's endpoints (handle_completion), which this release does not run.",
        ),
    ],
)
def test_each_fault_is_said_in_words_of_its_own(tmp_path: Path, files: dict[str, str], words: str) -> None:
    assert words in refusal(artifact(tmp_path, **files))


def test_an_inference_without_the_recommended_member_is_taken_with_a_warning(tmp_path: Path) -> None:
    code = GOOD.replace("    @Inference.model.setter\n    def model(self, model): self._model = model\n", "")

    found = check_custom(artifact(tmp_path, model=code))

    assert "WARNING: The inference Guess in model.py line 6 has no member 'model', which is recommended" in found[1]


def test_classes_whose_bases_come_from_elsewhere_are_left_to_the_worker(tmp_path: Path) -> None:
    assert check_custom(
        artifact(tmp_path, model="from ours import Base\nclass Guess(Base): ...\n" + IMPORTS + BUILDER)
    ) == ["Found the builder Maker in model.py line 8."]


def test_nothing_is_run(tmp_path: Path) -> None:
    artifact(tmp_path / "zip", model=f"open({str(tmp_path / 'ran')!r}, 'w')\n" + GOOD)

    check_custom(tmp_path / "zip")

    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("model_path", ["./model/", "model", "./model/data", "data", "data/weights"])
def test_a_model_path_is_the_artifact_or_something_in_it(tmp_path: Path, model_path: str) -> None:
    artifact(tmp_path, model=GOOD, notes_in_data__weights="")

    assert custom.look(tmp_path, {"model_path": model_path}).found


@pytest.mark.parametrize("model_path", ["../model", "/etc", "missing", "model/../../etc"])
def test_a_model_path_outside_the_zip_is_refused(tmp_path: Path, model_path: str) -> None:
    artifact(tmp_path, model=GOOD)

    with pytest.raises(BadInput, match="model_path names nothing in the zip"):
        custom.look(tmp_path, {"model_path": model_path})
