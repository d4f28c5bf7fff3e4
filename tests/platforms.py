"""Platforms for tests: started, used, looked at and stopped as a person would."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[1] / "examples" / "forecast"


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
            (environment == str(home) and "bettong" in " ".join(process.cmdline()))
            or any(str(home) in p for p in places)
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
