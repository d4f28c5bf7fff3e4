"""HUGGING_FACE_STABLE_DIFFUSION_TEXT_2_IMG: the zipped folder that a pipeline of diffusers wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.packaging.frameworks import Needs, content_folder
from bettong.packaging.ways.hugging_face import BEFORE_FIVE, read_json, single

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["look", "single"]

INDEX = "model_index.json"


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    index = read_json(content_folder(folder), INDEX)
    kind, version = index.get("_class_name", "unknown"), index.get("_diffusers_version", "")
    return Needs(
        ("diffusers", BEFORE_FIVE, "torch", "pillow"),
        found=(f"Found a pipeline '{kind}'{f', written by diffusers {version}' if version else ''}.",),
    )
