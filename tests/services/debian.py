"""Programs of Debian's packages, unpacked into a folder of ours: nothing is installed, and nobody has to be root."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

from services.place import made_once, run

if TYPE_CHECKING:
    from pathlib import Path


def unpacked(name: str, *packages: str) -> Path:
    """A folder that holds the packages, and what they need beyond what this machine has, as `usr`, `etc` and so on."""

    def make(folder: Path) -> None:
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise RuntimeError(
                f"These tests need {', '.join(packages)}. The suite takes them from Debian's packages, and "
                "this machine has no apt-get: install the server yourself and put it on the PATH."
            )
        downloads = folder / "downloads"
        downloads.mkdir(parents=True)
        run(["apt-get", "download", *_missing(packages)], cwd=downloads)
        for archive in sorted(downloads.glob("*.deb")):
            run(["dpkg-deb", "-x", str(archive), str(folder)])
        shutil.rmtree(downloads)

    return made_once(name, packages, make)


def _missing(packages: tuple[str, ...]) -> list[str]:
    """The packages with their dependencies that are not installed; apt says it when it only pretends to install."""
    command = ["apt-get", "-s", "-o", "Debug::NoLocking=1", "install", "--no-install-recommends", *packages]
    try:
        said = run(command)
    except RuntimeError:
        if os.geteuid() != 0:
            raise
        run(["apt-get", "update"])  # a fresh machine has no lists yet
        said = run(command)
    found = re.findall(r"^Inst (\S+)", said, re.MULTILINE)
    return sorted({*found, *packages})
