"""Every example in the docs runs: the Python and shell blocks of a page, in order, against a real platform.

Those of pages that train a model with a library of its own are run by test_model_pages.py."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pages import PAGES, ROOT, blocks, trains
from platforms import EXAMPLES, new_home

if TYPE_CHECKING:
    from collections.abc import Iterator

LINK = re.compile(r"\]\((?!https?://)([^)#]+)\)")
NOT_HERE = "make "  # the commands that ran this test, or would run it again


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with new_home() as home:
        yield home


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p) and not trains(p)], ids=lambda p: str(p.relative_to(ROOT))
)
def test_the_examples_of_a_page_run_in_order(page: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    names: dict[str, object] = {"__name__": "docs"}
    for language, _, text in blocks(page):
        if language == "python":
            exec(compile(text, str(page), "exec"), names)
        elif not text.startswith(NOT_HERE):
            pipeline = names.get("pipeline")
            url = pipeline.get_external_url() if pipeline is not None else ""  # type: ignore[attr-defined]
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                env={**os.environ, "PIPELINE_URL": url},
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            assert '"status":"error"' not in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    broken = [target for target in LINK.findall(page.read_text()) if not (page.parent / target).exists()]

    assert broken == []
