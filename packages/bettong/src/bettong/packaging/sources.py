"""Building a requirement that has no wheel runs its author's code, so it happens in the sandbox of a model worker.

A sandboxed uv resolves, downloads and builds with a cache of its own in a scratch folder; all that is taken from there
are the wheels it built. They are then installed as any index's wheels are: nothing of them runs.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bettong.packaging import _build_child
from bettong.packaging.uv import Outcome, Uv, run_reported
from bettong.packaging.wheels import package_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def build_wheels(
    uv: Uv,
    arguments: Sequence[str],
    *,
    scratch: Path,
    venv: Path,
    readable: Sequence[str],
    report: Callable[[str], None],
    timeout_s: float,
) -> tuple[Outcome, Path]:
    """Run `uv pip install arguments` in the sandbox; (what it came to, the folder of the wheels that it built).

    The sandboxed uv dies with the thread that started it (the launcher asks for that), so nothing is left to wait for;
    it is not handed the builder's lock, which the code it runs could hold for ever.

    The sandbox reads the system, the venv's interpreter, `scratch` and `readable`, and writes one folder of `scratch`.
    """
    work, wheels = scratch / "build", scratch / "wheels"
    work.mkdir(mode=0o700)
    wheels.mkdir(mode=0o755)
    order = {
        "launcher": str(package_folder("bettong-mac") / "_launch.py"),
        "plan": {"environment": str(venv), "artifact": str(scratch), "temporary": str(work)},
        "readable": [str(uv.program.parent), *readable],
        "command": [
            *(str(uv.program), "pip", "install", "--python", str(venv / "bin" / "python")),
            *("--target", str(work / "target"), "--cache-dir", str(work / "cache"), "--link-mode", "copy"),
            *arguments,
        ],
        "variables": uv.variables | {"TMPDIR": str(work / "tmp"), "HOME": str(work)},
    }
    outcome = run_reported(
        [sys.executable, "-I", "-S", str(Path(_build_child.__file__))],
        {"PATH": uv.variables.get("PATH", os.defpath)},
        cwd=scratch,
        report=report,
        timeout_s=timeout_s,
        stdin=json.dumps(order).encode(),
    )
    if outcome.ok:
        _take_wheels(work / "cache", wheels)
    return outcome, wheels


def _take_wheels(cache: Path, wheels: Path) -> None:
    """Copy the built wheels. What was built is not trusted: links are not followed."""
    for folder, _, files in os.walk(cache):
        for name in files:
            path = Path(folder, name)
            if path.suffix == ".whl" and stat.S_ISREG(path.lstat().st_mode):
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                with os.fdopen(fd, "rb") as source, (wheels / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
