"""Paths of details: which may be reached, and what is said of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.domain.drivers import Egress
from bettong.drivers.paths import inside
from bettong.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path


def test_a_path_that_is_not_absolute_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"The path 'sales/daily\.db' is not absolute"):
        inside("sales/daily.db", Egress(folders=(str(tmp_path),)))


def test_a_path_outside_of_the_folders_is_told_which_they_are(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'/etc/passwd'") as refused:
        inside("/etc/passwd", Egress(folders=(str(tmp_path), "/data")))

    assert f"Use a path below {tmp_path} or /data" in refused.value.next_step
    assert "BETTONG_FILE_FOLDERS" in refused.value.next_step


def test_where_no_folder_is_allowed_it_is_said() -> None:
    with pytest.raises(BadInput, match="It allows none"):
        inside("/data/x", Egress())


def test_a_path_below_a_folder_is_reached(tmp_path: Path) -> None:
    assert inside(f"{tmp_path}/x", Egress(folders=(str(tmp_path),))) == tmp_path.resolve() / "x"
