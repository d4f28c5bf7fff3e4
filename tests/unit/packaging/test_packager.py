"""What packaging says of a file is said under the name that its owner gave it."""

from __future__ import annotations

import datetime as dt
import io
import pickle
import zipfile
from typing import TYPE_CHECKING

import pytest

from bettong.artifacts.store import open_artifacts
from bettong.domain.models import ModelStatus, ModelVersion
from bettong.errors import BadInput
from bettong.packaging.packager import LocalPackager

if TYPE_CHECKING:
    from pathlib import Path

OF_A_NOTEBOOK = b"c__main__\nMine\n)\x81."  # what pickle writes of an instance of a notebook's class


def checked(folder: Path, file_name: str, content: bytes) -> list[str]:
    """The upload log of a scikit-learn model of this content."""
    store = open_artifacts(str(folder / "artifacts"))
    sha, size = store.put(io.BytesIO(content), max_bytes=2**20)
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    version = ModelVersion(
        *(1, 1, "houses", 1, "version", "private", ModelStatus.UPLOADING, None, "sklearn", "3.11", (), "x86"),
        *("none", file_name, size, sha, None, None, "u-ann", now, now),
    )
    log: list[str] = []
    LocalPackager(folder / "models", folder / "environments", folder / "cache", store).check(version, log.append)
    return log


def test_a_single_file_is_called_as_its_owner_calls_it(tmp_path: Path) -> None:
    log = checked(tmp_path, "prices of 2024.pkl", pickle.dumps({"a": 1}))

    assert log[-1].startswith("Read prices of 2024.pkl without running it")


def test_what_is_wrong_with_it_too(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^prices\.pkl needs Mine, defined in the notebook"):
        checked(tmp_path, "prices.pkl", OF_A_NOTEBOOK)


def test_a_file_in_a_zip_keeps_the_name_that_it_has_there(tmp_path: Path) -> None:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("inside.pkl", OF_A_NOTEBOOK)

    with pytest.raises(BadInput, match=r"^inside\.pkl needs Mine"):
        checked(tmp_path, "houses.zip", zipped.getvalue())
