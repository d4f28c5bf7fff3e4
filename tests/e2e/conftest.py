"""A real platform, started and used as a person would: `wallaroo.Client()` with nothing configured but its home."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "forecast"
sys.path.insert(0, str(EXAMPLES))

if TYPE_CHECKING:
    from collections.abc import Iterator

    import wallaroo


def bettong(*words: str, home: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Type a command of ours."""
    return subprocess.run(
        [sys.executable, "-m", "bettong", *words],
        env={**os.environ, "BETTONG_HOME": str(home)},
        capture_output=True,
        text=True,
        check=check,
        timeout=90,
    )


def processes_of(home: Path) -> list[psutil.Process]:
    """Every living process that has to do with this home: by its command line, its folder or its open log."""
    found = []
    for process in psutil.process_iter():
        try:
            places = [*process.cmdline(), process.cwd(), *(f.path for f in process.open_files())]
            environment = process.environ().get("BETTONG_HOME", "")
        except psutil.Error:
            continue
        if process.pid != os.getpid() and (
            environment == str(home) and "bettong" in " ".join(process.cmdline()) or any(str(home) in p for p in places)
        ):
            found.append(process)
    return found


@contextmanager
def new_home() -> Iterator[Path]:
    """A fresh platform home; whatever runs in it at the end is stopped."""
    home = Path(tempfile.mkdtemp(prefix="bettong-test-"))
    before = os.environ.get("BETTONG_HOME")
    os.environ["BETTONG_HOME"] = str(home)
    try:
        yield home
    finally:
        bettong("stop", home=home)
        if before is None:
            del os.environ["BETTONG_HOME"]
        else:
            os.environ["BETTONG_HOME"] = before
        subprocess.run(["chmod", "-R", "u+w", str(home)], check=True)  # environments and models are read-only
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def shared_home() -> Iterator[Path]:
    """One platform for the tests that do not break it."""
    with new_home() as home:
        yield home


@pytest.fixture
def own_home() -> Iterator[Path]:
    """A platform of the test's own, to break."""
    with new_home() as home:
        yield home


@pytest.fixture
def wl(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    import wallaroo

    monkeypatch.setenv("BETTONG_HOME", str(shared_home))
    return wallaroo.Client()


@pytest.fixture(scope="session")
def source() -> Iterator[str]:
    """The base URL of the sample data on a web server of this machine."""
    from serve_data import serve

    with serve() as url:
        yield url


@pytest.fixture(scope="session")
def zips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The forecast models as zips, by name: standard, alternate01, alternate02."""
    from bundle import bundle

    return {p.stem.removeprefix("forecast_"): str(p) for p in bundle(tmp_path_factory.mktemp("zips"))}
