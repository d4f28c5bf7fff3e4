"""Where the suite keeps the programs that it talks to: each in a folder of its own, made when it is first needed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.packaging.index import from_pip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SERVICES = Path(__file__).parents[2] / "build" / "services"


def made_once(name: str, recipe: Sequence[str], make: Callable[[Path], None]) -> Path:
    """The folder that `make` filled by this recipe, now or in an earlier run. Another recipe makes it anew."""
    folder = SERVICES / name
    stamp = folder / ".made"
    wanted = hashlib.sha256("\n".join(recipe).encode()).hexdigest()
    with _alone(name):
        if not stamp.is_file() or stamp.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            make(folder)
            stamp.write_text(wanted)
    return folder


def environment(name: str, *requirements: str) -> Path:
    """The `bin` folder of a virtual environment with these packages, apart from ours: emulators do not go together."""

    def make(folder: Path) -> None:
        uv = str(Path(sys.executable).with_name("uv"))
        index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
        run([uv, "venv", "-q", "--python", sys.executable, str(folder / "venv")])
        python = str(folder / "venv" / "bin" / "python")
        run(
            [
                *(uv, "pip", "install", "-q", "--python", python, "--compile-bytecode", *index.arguments),
                *("--index-strategy", "unsafe-best-match", *requirements),
            ],
            {"SSL_CERT_FILE": index.certificates} if index.certificates else {},
        )

    return made_once(name, requirements, make) / "venv" / "bin"


def run(command: Sequence[str], more: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    """What the command printed. Raises RuntimeError with all of it when it fails: a service that cannot be had is an
    error, not a reason to skip."""
    done = subprocess.run(
        command,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", **(more or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


@contextmanager
def _alone(name: str) -> Iterator[None]:
    SERVICES.mkdir(parents=True, exist_ok=True)
    with (SERVICES / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
