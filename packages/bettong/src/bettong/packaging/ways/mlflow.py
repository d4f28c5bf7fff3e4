"""MLFLOW: a zipped model folder of MLflow, with the pyfunc flavour, run by mlflow's small distribution."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from bettong.errors import BadInput
from bettong.packaging.block_text import Block, read_blocks
from bettong.packaging.frameworks import Needs, content_folder
from bettong.packaging.interpreters import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

DESCRIPTION, CONDA, PYTHON_ENV = "MLmodel", "conda.yaml", "python_env.yaml"
FLAVOUR = "python_function"
MAX_BYTES = 2**20
INSTEAD = {"mlflow": "mlflow-skinny"}  # without the tracking server, which a model does not need
_RELEASE = re.compile(r"\d+(\.\d+)+")
_CONDA = re.compile(r"([A-Za-z0-9_.-]+)\s*=+\s*([0-9][^=\s]*)(=.*)?")
_NOT_PACKAGES = ("python", "pip")
_PYPI_NAMES = {"pytorch": "torch"}


def single(archive: Path, head: bytes) -> str:
    return ""


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    content = content_folder(folder)
    model = _description(content)
    python, more = _environment(content)
    version = model.at("mlflow_version").text
    pinned = f"=={version}" if _RELEASE.fullmatch(version) else ""
    listed = [] if (content / "requirements.txt").is_file() else more
    return Needs(
        (f"mlflow-skinny{pinned}", "pandas", *listed),
        INSTEAD,
        python,
        (
            f"Found an MLflow model of MLflow {version or 'unknown'}, "
            f"loaded by {model.at('flavors', FLAVOUR, 'loader_module').text}.",
        ),
    )


def _description(folder: Path) -> Block:
    """MLmodel. Raises BadInput when it is not there, or has no pyfunc flavour."""
    if not (folder / DESCRIPTION).is_file():
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8])
        raise BadInput(
            f"The zip has no file {DESCRIPTION}; found: {there}.", "Zip the folder that mlflow's save_model wrote."
        )
    model = _read(folder / DESCRIPTION)
    if not model.at("flavors", FLAVOUR, "loader_module").text:
        flavours = ", ".join(model.at("flavors").keys) or "none"
        raise BadInput(
            f"{DESCRIPTION} has no flavour {FLAVOUR}; its flavours are: {flavours}.",
            "Save the model with a flavour that has pyfunc, such as mlflow.sklearn or mlflow.pyfunc.",
        )
    return model


def _environment(folder: Path) -> tuple[Wish | None, list[str]]:
    """The Python that wrote the model, and what conda.yaml lists."""
    python = _read(folder / PYTHON_ENV).at("python").text
    lines: list[str] = []
    for item in _read(folder / CONDA).at("dependencies").items:
        if match := _CONDA.fullmatch(item.text):
            if match[1] == "python":
                python = python or match[2]
            elif match[1] not in _NOT_PACKAGES:
                lines.append(f"{_PYPI_NAMES.get(match[1], match[1])}=={match[2]}")
        elif item.text:
            lines.append(_PYPI_NAMES.get(item.text, item.text))
        lines += item.at("pip").texts
    return _wish(python), [answered for line in lines if (answered := _answered(line))]


def _wish(python: str) -> Wish | None:
    if not (match := re.match(r"(\d+)\.(\d+)", python)):
        return None
    return Wish(SpecifierSet(f"=={match[1]}.{match[2]}.*"), "The MLflow model", preferred=True)


def _answered(line: str) -> str:
    """A line of conda.yaml as a requirement; "" when it is none, or names what an environment has anyway."""
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return ""
    if requirement.name.lower() in _NOT_PACKAGES:
        return ""
    requirement.name = INSTEAD.get(requirement.name.lower(), requirement.name)
    return str(requirement)


def _read(path: Path) -> Block:
    """A file's blocks; none when it is not there. Raises BadInput when it is no text or too long."""
    if not path.is_file():
        return Block()
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path.name} has {path.stat().st_size} bytes, more than {MAX_BYTES}.", "Shorten it.")
    try:
        return read_blocks(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise BadInput(f"{path.name} is not text in UTF-8.", "Save it as UTF-8.") from None
