"""Zip the forecast models for upload: `python bundle.py [FOLDER]` writes forecast_<name>.zip files there."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

MODELS = Path(__file__).parent / "models"


def bundle(to: Path) -> list[Path]:
    """Write one zip per model folder into `to`; their paths. The same files give the same bytes every time."""
    to.mkdir(parents=True, exist_ok=True)
    return [_zip(folder, to / f"forecast_{folder.name}.zip") for folder in sorted(MODELS.iterdir())]


def _zip(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.glob("*.*")):
            entry = zipfile.ZipInfo(file.name)  # carries the date 1980-01-01, so that the SHA-256 does not move
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, file.read_bytes())
    return target


if __name__ == "__main__":
    for path in bundle(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(path)
