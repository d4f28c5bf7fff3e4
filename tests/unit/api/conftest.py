from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from platform_kit import Api, Platform, open_platform

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with open_platform(tmp_path) as opened:
        yield opened


@pytest.fixture
def api(platform: Platform) -> Iterator[Api]:
    with platform.api() as opened:
        yield opened
