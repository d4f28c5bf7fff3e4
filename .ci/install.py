"""Install requirements into a virtual environment, made if it is not there: `python .ci/install.py FOLDER WORD…`

pip brings uv, and uv does the rest in a third of pip's time. What pip is told about indexes is handed on. Where uv
finds no way, pip goes it. Old Pythons can read this file, to be told what is missing.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ["-c", str(ROOT / "constraints.txt")]
OLDEST = (3, 11)
OLDEST_PIP = (22, 3)  # the first with --python
ANOTHER = "Another Python is named like this: make demo PYTHON=python3.12"


def main(folder: str, *requirements: str) -> None:
    if sys.version_info < OLDEST:
        sys.exit(f"bettong needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. {ANOTHER}")
    python = Path(folder).absolute() / "bin" / "python"
    if not python.exists():
        _make_environment(folder)
    pip = _pip(python)
    print(f"Installing into {folder}; the first time takes a minute.", flush=True)
    # pip itself too: who activates the environment and types `pip install` means this one, and would reach another.
    subprocess.run([*pip, "install", "-q", *CONSTRAINTS, "uv", "pip"], check=True)
    if not _by_uv(python, requirements):
        print("uv could not install them; trying again with pip.", flush=True)
        subprocess.run([*pip, "install", "-q", *CONSTRAINTS, *requirements], check=True)
    # What is installed by reference is compiled by nobody else, and some machines forbid to do it at the first import.
    sources = [str(path) for path in sorted((ROOT / "packages").glob("*/src"))]
    subprocess.run([str(python), "-m", "compileall", "-q", *sources], check=True)


def _make_environment(folder: str) -> None:
    if importlib.util.find_spec("venv") is None:
        sys.exit(
            f"{sys.executable} has no module 'venv'. Install it (Debian, Ubuntu: apt install python3-venv). {ANOTHER}"
        )
    # Without pip: Debian's Python has no ensurepip, and pip can install from outside.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)


def _pip(python: Path) -> list[str]:
    """The command of a pip that installs into the environment of `python`: this Python's, or one made in there."""
    if _version_of_pip() >= OLDEST_PIP:
        return [sys.executable, "-m", "pip", "--python", str(python)]
    if importlib.util.find_spec("ensurepip") is not None:
        subprocess.run([str(python), "-m", "ensurepip", "--default-pip"], check=True, stdout=subprocess.DEVNULL)
        return [str(python), "-m", "pip"]
    sys.exit(
        f"{sys.executable} has no pip of version 22.3 or newer, and no ensurepip to make one. "
        f"Install it (Debian, Ubuntu: apt install python3-pip). {ANOTHER}"
    )


def _version_of_pip() -> tuple[int, int]:
    """(0, 0) when there is none."""
    try:
        major, minor = re.findall(r"\d+", metadata.version("pip"))[:2]
    except metadata.PackageNotFoundError:
        return 0, 0
    return int(major), int(minor)


def _by_uv(python: Path, requirements: tuple[str, ...]) -> bool:
    """Whether uv installed `requirements`; it has said why not."""
    sys.path.insert(0, str(ROOT / "packages" / "bettong" / "src"))
    from bettong.packaging.index import from_pip

    index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
    environment = {"UV_PYTHON_DOWNLOADS": "never", **os.environ}
    if index.certificates:
        environment.setdefault("SSL_CERT_FILE", index.certificates)
    return (
        subprocess.run(
            [
                *(str(python.parent / "uv"), "pip", "install", "-q", "--python", str(python), "--compile-bytecode"),
                *(*index.arguments, "--index-strategy", "unsafe-best-match", *CONSTRAINTS, *requirements),
            ],
            env=environment,
            check=False,
        ).returncode
        == 0
    )


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(
            f"Usage: {sys.executable} .ci/install.py FOLDER WORD…, where the words are requirements as pip takes them"
        )
    try:
        main(*sys.argv[1:])
    except subprocess.CalledProcessError as failed:
        sys.exit(f"This command failed, as it says above: {shlex.join(map(str, failed.cmd))}")
