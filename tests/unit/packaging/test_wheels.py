"""The wheel of bettong-mac, made from whatever is installed here."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from typing import TYPE_CHECKING

import pytest

from bettong.errors import Unavailable
from bettong.packaging.wheels import carried_wheel, package_folder

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("name", "top"), [("bettong-mac", "mac"), ("bettong-sdk", "wallaroo")])
def test_it_holds_the_packages_files_and_a_record_that_is_true(tmp_path: Path, name: str, top: str) -> None:
    wheel = carried_wheel(name, tmp_path)

    with zipfile.ZipFile(wheel.path) as archive:
        content = {n: archive.read(n) for n in archive.namelist()}
    sources = {p.relative_to(package_folder(name).parent).as_posix() for p in package_folder(name).rglob("*.py")}
    assert sources <= content.keys()
    assert f"{top}/__init__.py" in content
    assert not [n for n in content if n.endswith(".pyc")]
    record = next(n for n in content if n.endswith("RECORD"))
    rows = {row[0]: row[1] for row in csv.reader(io.StringIO(content[record].decode()))}
    assert rows.keys() == content.keys()
    for path, claimed in rows.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content[path]).digest()).rstrip(b"=").decode()
        assert claimed in (f"sha256={digest}", "" if path == record else None)


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = carried_wheel("bettong-mac", tmp_path / "a"), carried_wheel("bettong-mac", tmp_path / "b")

    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.digest == second.digest
    assert first.path.name == second.path.name


def test_it_is_made_once(tmp_path: Path) -> None:
    made = carried_wheel("bettong-mac", tmp_path).path.stat().st_mtime_ns
    assert carried_wheel("bettong-mac", tmp_path).path.stat().st_mtime_ns == made


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="bettong-nothing is not installed"):
        carried_wheel("bettong-nothing", tmp_path)
