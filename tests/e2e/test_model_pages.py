"""The pages of docs/models lead from nothing to a prediction: what trains runs where the page's `pip install` was done,
what uploads and asks runs here, in the order of the page."""

from __future__ import annotations

import re
import shlex
import shutil
from typing import TYPE_CHECKING

import pytest
from builders import python_model_zip
from framework_kit import SAMPLES, Bench, Library
from pages import PAGES, ROOT, blocks, trains

if TYPE_CHECKING:
    from pathlib import Path

    import wallaroo

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

INSTALL = re.compile(r"`pip install ([^`]+)`")
SMALLER = {  # the same code, installed sooner
    "tensorflow": "tensorflow-cpu",
    "xgboost": "xgboost-cpu",
    "mlflow": "mlflow-skinny\nskops\npandas",
}
STEP = """
from mac.types import InferenceData
def process_data(input_data: InferenceData) -> InferenceData:
    return input_data
"""


def where_it_trains(page: Path, home: Path, folder: Path) -> Library:
    """An environment with what the page says to install, built by the platform, from CPU builds where there are any."""
    asked = INSTALL.search(page.read_text())
    assert asked, f"{page.name} trains something and says nowhere what to install for it."
    requirements = "".join(f"{SMALLER.get(name, name)}\n" for name in shlex.split(asked[1]))
    step = python_model_zip(folder / "step.zip", STEP, requirements)
    return Library(Bench(home).package("python", step).environment / "bin" / "python", home=folder)


@pytest.mark.parametrize("page", [p for p in PAGES if trains(p)], ids=lambda p: p.stem)
def test_a_page_leads_from_training_to_a_prediction(
    wl: wallaroo.Client, page: Path, shared_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = where_it_trains(page, shared_home, tmp_path)
    person = tmp_path / "person"
    shutil.copytree(SAMPLES, person / SAMPLES.relative_to(ROOT))
    monkeypatch.chdir(person)
    names: dict[str, object] = {"__name__": "docs"}

    for language, trains_a_model, text in blocks(page):
        if trains_a_model:
            words = ["-c", text] if language == "python" else shlex.split(text.removeprefix("python "))
            library.run(words, person)
        else:
            assert language == "python"
            exec(compile(text, str(page), "exec"), names)


def test_every_framework_with_a_library_of_its_own_trains_on_its_page() -> None:
    without = {p.stem for p in PAGES if p.parent.name == "models" and not trains(p)}

    assert without == {"index", "custom", "python"}
