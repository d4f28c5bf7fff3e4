"""CUSTOM: a zip with an inference and its builder in Python files, and whatever files they read."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.custom_contract import check_custom
from bettong.packaging.frameworks import Needs

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MODEL_FOLDER = "model"  # what the default './model/' stands for: the unzipped artifact itself


def single(archive: Path, head: bytes) -> str:
    return ""


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    _check_model_path(folder, str(config.get("model_path", MODEL_FOLDER)))
    return Needs(found=tuple(check_custom(folder)))


def _check_model_path(folder: Path, asked: str) -> None:
    """The config's model_path is the artifact ('./model/') or something in it."""
    path = PurePosixPath(asked)
    parts = path.parts[1:] if path.parts[:1] == (MODEL_FOLDER,) else path.parts
    if path.is_absolute() or ".." in parts or not folder.joinpath(*parts).exists():
        raise BadInput(
            "The config's model_path names nothing in the zip.",
            "Leave it out: the builder then gets the folder of the unzipped files.",
        )
