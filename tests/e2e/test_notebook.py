"""The example notebook runs from its first cell to its last, in a real IPython kernel."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_texts import texts
from platforms import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the notebook machinery, not of ours
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_forecast_notebook_runs_as_written(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BETTONG_HOME", str(shared_home))
    notebook = nbformat.read(EXAMPLES / "forecast_with_connection.ipynb", as_version=4)

    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(EXAMPLES)}}).execute()

    everything = "\n".join(texts(cell) for cell in notebook.cells if cell.cell_type == "code")
    assert "1764, 1749, 1743, 1741, 1740, 1740, 1740" in everything
    assert "1745.2858" in everything
    assert "*****" in everything
    assert re.search(r"Waiting for model loading - this will take up to \d+min\.", everything)
    assert re.search(r"Waiting for deployment - this will take up to \d+s \.* ?ok", everything)
    assert re.search(r"Waiting for undeployment - this will take up to \d+s \.* ?ok", everything)
