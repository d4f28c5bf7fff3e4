"""Our files in an environment are ours."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

from bettong.errors import BadInput
from bettong.packaging.environment import check_intact
from bettong.packaging.wheels import carried_wheel

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_of_ours_that_another_distribution_replaced_is_named(tmp_path: Path) -> None:
    wheel = carried_wheel("bettong-mac", tmp_path / "cache")
    with zipfile.ZipFile(wheel.path) as archive:
        archive.extractall(tmp_path / "site")
    check_intact(wheel, tmp_path / "site")

    (tmp_path / "site/mac/types.py").write_text("stolen = True")

    with pytest.raises(BadInput, match=r"its own 'mac/types.py', which belongs to the platform's bettong-mac"):
        check_intact(wheel, tmp_path / "site")
