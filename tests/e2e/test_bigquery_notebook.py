"""The BigQuery notebook runs from its first cell to its last, against an emulator and the platform."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from notebook_texts import texts
from platforms import EXAMPLES
from services.bigquery import running_bigquery

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the notebook machinery, not of ours
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_the_bigquery_notebook_forecasts_from_table_to_table_in_both_ways(
    shared_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(EXAMPLES / "forecast_with_bigquery.ipynb", as_version=4)
    with running_bigquery() as server:
        account = tmp_path / "service-account.json"
        places = {"api_endpoint": server.api_endpoint, "grpc_endpoint": server.grpc_endpoint}
        account.write_text(json.dumps({**server.account, **places}))
        monkeypatch.setenv("BETTONG_HOME", str(shared_home))
        monkeypatch.setenv("BIGQUERY_ACCOUNT", str(account))

        NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(EXAMPLES)}}).execute()

    shown = [texts(cell) for cell in notebook.cells if cell.cell_type == "code"]
    with_forecast = [text for text in shown if "1764, 1749, 1743, 1741, 1740, 1740, 1740" in text]
    assert len(with_forecast) == 3  # what the model answered, what the client wrote, and what the job wrote
    assert all("station 1" in text for text in with_forecast[1:])
    everything = "\n".join(shown)
    assert "*****" in everything
    assert not [line for line in server.account["private_key"].splitlines() if line in everything]
