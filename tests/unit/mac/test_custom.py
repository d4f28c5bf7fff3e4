"""The classes of a CUSTOM model: what `mac` promises to those who write them, and how the worker finds theirs."""

from __future__ import annotations

import asyncio
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from mac._loaders import load
from mac.config.inference import CustomInferenceConfig
from mac.inference import Inference, ModelNotAssignedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLOAT = {"kind": "fixed", "dtype": "<f8", "of": "double"}
IN, OUT = [{"name": "x", "type": FLOAT}], [{"name": "y", "type": FLOAT}]
ROWS = {"x": np.array([1.0, 2.0])}
MODEL = """
from typing import Any, Set
import numpy as np
from mac.config.inference import CustomInferenceConfig
from mac.inference import AsyncInference, Inference
from mac.inference.creation import InferenceBuilder
from mac.types import InferenceData

class Times(Inference):
    @property
    def expected_model_types(self) -> Set[Any]:
        return {float}

    def _predict(self, input_data: InferenceData) -> InferenceData:
        return {"y": input_data["x"] * self.model}

class TimesBuilder(InferenceBuilder):
    @property
    def inference(self) -> Times:
        return Times()

    def create(self, config: CustomInferenceConfig) -> Times:
        inference = self.inference
        inference.model = float((config.model_path / "factor.txt").read_text())
        return inference
"""


@pytest.fixture(autouse=True)
def imports_of_artifacts_are_forgotten() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - before:
        if not name.startswith("mac"):
            del sys.modules[name]


def artifact(folder: Path, code: str = MODEL, **files: str) -> str:
    """Each test's module has a name of its own: classes of earlier ones may still be known to their bases."""
    for name, text in {f"model_{folder.name}": code, **files}.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "factor.txt").write_text("3")
    return str(folder)


def answer(folder: str, config: dict[str, Any] | None = None) -> Any:
    return load("custom", folder, IN, OUT, config or {}).predict(ROWS)


def test_a_model_that_its_builder_reads_from_a_file_predicts(tmp_path: Path) -> None:
    assert answer(artifact(tmp_path))["y"].tolist() == [3.0, 6.0]


def test_an_async_inference_is_awaited_and_checked(tmp_path: Path) -> None:
    code = MODEL.replace("Times(Inference)", "Times(AsyncInference)").replace("def _predict", "async def _predict")

    assert asyncio.run(answer(artifact(tmp_path, code)))["y"].tolist() == [3.0, 6.0]


def test_options_of_the_config_reach_the_builder(tmp_path: Path) -> None:
    code = MODEL.replace("read_text())", "read_text()) + config.more + config.extra['more']")

    assert answer(artifact(tmp_path, code), {"model_path": "./model/", "more": 1})["y"].tolist() == [5.0, 10.0]


def test_a_model_path_may_lie_below_the_artifact(tmp_path: Path) -> None:
    folder = artifact(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "factor.txt").write_text("7")

    assert answer(folder, {"model_path": "./model/weights"})["y"].tolist() == [7.0, 14.0]


def test_code_in_the_folder_artifacts_is_not_the_models(tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "__init__.py").write_text("raise RuntimeError('imported')")

    assert answer(artifact(tmp_path))["y"].tolist() == [3.0, 6.0]


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (
            "import not_installed_here",
            ModuleNotFoundError,
            r"model_\w+\.py cannot be loaded: the module 'not_installed_he",
        ),
        ("x = undefined_name", NameError, r"cannot be loaded: name 'undefined_name' is not defined\. Define or import"),
        (
            MODEL.replace("Times(Inference)", "Times"),
            TypeError,
            "No subclass of Inference is found in the artifact's Py",
        ),
        (
            MODEL + "class Two(Times): ...\nclass Three(Times): ...",
            TypeError,
            "Several subclasses of Inference are foun",
        ),
        (MODEL.replace("def create", "def make"), TypeError, "The builder TimesBuilder lacks create"),
        (MODEL.replace("return inference", "return 5"), TypeError, r"TimesBuilder\.create returned a int"),
        (MODEL.replace("return {float}", "return {dict}"), TypeError, "The model is a float; Times expects dict"),
        (
            MODEL.replace("config.model_path", "config.model_folder"),
            AttributeError,
            "has no 'model_folder'. It has: model_",
        ),
    ],
)
def test_what_only_shows_when_it_runs_is_said_with_words(
    tmp_path: Path, code: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        answer(artifact(tmp_path, code))


@pytest.mark.parametrize(
    ("returned", "error", "words"),
    [
        (
            '[input_data["x"]]',
            TypeError,
            r"Times\._predict returned a list\. Return a dict with one numpy array per outp",
        ),
        ('{"z": input_data["x"]}', KeyError, r"Times\._predict returned no y\. It returned: z\."),
    ],
)
def test_an_answer_that_lacks_what_the_schema_has_is_named(
    tmp_path: Path, returned: str, error: type[Exception], words: str
) -> None:
    code = MODEL.replace('{"y": input_data["x"] * self.model}', returned)

    with pytest.raises(error, match=words):
        answer(artifact(tmp_path, code))


def test_predicting_without_a_model_is_an_error_of_its_own(tmp_path: Path) -> None:
    code = MODEL.replace("inference.model = ", "unused = ")

    with pytest.raises(ModelNotAssignedError, match="Times has no model"):
        answer(artifact(tmp_path, code))


def test_any_type_is_taken_where_any_is_expected() -> None:
    class Free(Inference):
        @property
        def expected_model_types(self) -> set[Any]:
            return {Any}

        def _predict(self, input_data: Any) -> Any:
            return input_data

    free = Free()
    free.model = object()

    assert free.predict(ROWS) is ROWS


def test_a_config_shows_names_and_no_values() -> None:
    assert repr(CustomInferenceConfig("/x", token="geheim")) == "CustomInferenceConfig(model_path, token)"
