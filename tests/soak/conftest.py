"""Tests of hours, run by `make soak` alone: a platform of their own, deployed as people do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from platforms import new_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def own_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BETTONG_LOG_BYTES_PER_TOPIC", str(64 * 2**20))  # so that a soak meets the log's end, too
    with new_home() as home:
        yield home
