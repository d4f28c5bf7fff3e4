"""Builders fill in what a test is not about."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def python_model_zip(path: Path, code: str, requirements: str = "", **more: str) -> Path:
    """Zip a Python step: `code` as step.py, its requirements, and other files by name (`data_txt` is data.txt)."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("step.py", code)
        archive.writestr("requirements.txt", requirements)
        for name, content in more.items():
            archive.writestr(name.replace("_", "."), content)
    return path
