"""Drivers are found by entry point, without importing one."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bettong.drivers.registry import Registry
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path


def distribution(folder: Path, name: str, points: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bettong.drivers]\n{points}\n")


def test_finding_drivers_imports_none_and_loading_one_imports_no_library_of_it() -> None:
    code = """
import sys
from bettong.drivers.registry import Registry
registry = Registry()
assert "POSTGRES" in registry.types()
assert not [name for name in sys.modules if name.startswith("bettong.drivers.postgres")]
assert len(registry.all()) > 8
heavy = {"adbc_driver_manager", "adbc_driver_postgresql", "duckdb", "pymysql", "obstore", "httpcore", "pandas"}
heavy |= {"redis", "nats", "confluent_kafka", "grpc", "google.protobuf", "google.cloud.bigquery_storage_v1"}
heavy |= {"paho.mqtt"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""

    subprocess.run([sys.executable, "-c", code], check=True)


def test_nobody_takes_over_a_type_of_ours(tmp_path: Path) -> None:
    distribution(tmp_path, "intruder", "postgres = intruder:Driver\nMINE = intruder:Driver")
    registry = Registry(folders=(str(tmp_path),))

    assert "MINE" in registry.types()
    assert registry.driver("POSTGRES").__module__ == "bettong.drivers.postgres"


def test_a_driver_that_does_not_import_is_left_out_of_the_list_and_told_when_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    distribution(tmp_path, "broken", "BROKEN = no_such_module_anywhere:Driver")
    registry = Registry(folders=(str(tmp_path),))

    assert all("BROKEN" not in info.types for info in registry.all())
    assert "BROKEN" in caplog.text
    with pytest.raises(Unavailable, match="does not import"):
        registry.info("BROKEN")
