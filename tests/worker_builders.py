"""Real artifacts, environments and runners for tests of workers."""

from __future__ import annotations

import base64
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import pyarrow as pa

from bettong.domain.deployments import ModelSpec
from bettong.engine.runners.python import PythonRunner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAC_SOURCE = Path(__file__).parents[1] / "packages" / "mac" / "src" / "mac"


def environment_of_this_python(folder: Path) -> Path:
    """A virtual environment of the running interpreter with numpy and mac in it, made without the network."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    source = Path(numpy.__file__).parent
    ignored = shutil.ignore_patterns("tests", "__pycache__", "include")
    shutil.copytree(source, packages / "numpy", ignore=ignored)
    if (libraries := source.parent / "numpy.libs").is_dir():
        shutil.copytree(libraries, packages / "numpy.libs")
    install_mac(packages)
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(packages / "mac")], check=True)
    return folder


def install_mac(site_packages: Path) -> None:
    """What installing the wheel does, without building it."""
    shutil.copytree(MAC_SOURCE, site_packages / "mac", ignore=shutil.ignore_patterns("__pycache__"))


def artifact(folder: Path, code: str, more: Mapping[str, str] | None = None) -> Path:
    """An unpacked artifact with `code` as step.py."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"step.py": code, **(more or {})}.items():
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def schema_text(fields: Mapping[str, pa.DataType]) -> str:
    return base64.b64encode(pa.schema(list(fields.items())).serialize()).decode()


def model_spec(
    folder: Path,
    environment: Path,
    inputs: Mapping[str, pa.DataType],
    outputs: Mapping[str, pa.DataType],
    *,
    load_timeout_s: float = 60.0,
    env: Mapping[str, str] | None = None,
) -> ModelSpec:
    return ModelSpec(
        uid="tried-1",
        id=1,
        name="tried",
        version="00000000-0000-0000-0000-000000000001",
        sha="0" * 64,
        framework="python",
        folder=str(folder),
        environment=str(environment),
        input_schema=schema_text(inputs),
        output_schema=schema_text(outputs),
        load_timeout_s=load_timeout_s,
        env=dict(env or {}),
    )


def runner_of(model: ModelSpec, folder: Path, **more: Any) -> PythonRunner:
    return PythonRunner(model, log_file=folder / "worker.log", scratch=folder / "scratch", threads=1, **more)


def table(fields: Mapping[str, pa.DataType], columns: Mapping[str, Sequence[object]]) -> pa.Table:
    return pa.table({name: pa.array(columns[name], kind) for name, kind in fields.items()})
