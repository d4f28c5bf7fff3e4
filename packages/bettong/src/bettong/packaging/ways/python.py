"""PYTHON: a zip with one `process_data` in the files at its root."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.packaging.contract import check_python_step
from bettong.packaging.frameworks import Needs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def single(archive: Path, head: bytes) -> str:
    return ""


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    return Needs(found=(f"Found process_data in {check_python_step(folder)}.",))
