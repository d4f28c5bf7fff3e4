"""HUGGING_FACE_*: the zipped folder that a pipeline's `save_pretrained` wrote, run by transformers on PyTorch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from bettong.errors import BadInput
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CONFIG = "config.json"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
FOREIGN_WEIGHTS = {"tf_model.h5": "TensorFlow", "flax_model.msgpack": "Flax"}
PREPARING = (
    "tokenizer_config.json",
    "tokenizer.json",
    "preprocessor_config.json",
    "processor_config.json",
    "vocab.txt",
)
OTHERS_SAY = ("*.spm", "spiece.model", "sentencepiece*.model", "tokenizer.model")
MAX_JSON_BYTES = 2**20
BEFORE_FIVE = "transformers<5"
HOW = "Zip the folder that pipeline.save_pretrained(folder) made."


def single(archive: Path, head: bytes) -> str:
    if head.startswith(ZIP_MAGIC):
        return ""
    raise BadInput("Not a valid ZIP file.", HOW)


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    content, version = checked(folder)
    five = version is not None and version.major >= 5
    library = f"transformers>={version.major}.{version.minor},<{version.major + 1}" if five and version else BEFORE_FIVE
    return needs(content, library, version)


def checked(folder: Path) -> tuple[Path, Version | None]:
    """The folder of the model, and the version of transformers that wrote it.

    Raises:
        BadInput: there is no config, no weights that PyTorch reads, or neither tokenizer nor image processor.
    """
    content = content_folder(folder)
    said = read_json(content, CONFIG).get("transformers_version")
    if not any(file for pattern in WEIGHTS for file in content.glob(pattern)):
        if others := [library for name, library in FOREIGN_WEIGHTS.items() if (content / name).is_file()]:
            raise BadInput(
                f"The zip holds weights of {others[0]} and none of PyTorch.",
                "Load the model with PyTorch (from_tf=True or from_flax=True), save it, and zip that.",
            )
        raise BadInput(f"The zip holds no weights ({', '.join(WEIGHTS)}) beside {CONFIG}.", HOW)
    if not any((content / name).is_file() for name in PREPARING):
        raise BadInput(
            "The zip holds a model without its tokenizer or image processor.",
            "Save the whole pipeline: pipeline.save_pretrained(folder), not model.save_pretrained.",
        )
    try:
        return content, Version(said) if isinstance(said, str) else None
    except InvalidVersion:
        return content, None


def read_json(content: Path, name: str) -> dict[str, Any]:
    """Raises BadInput when the file is not there or holds no object."""
    path = content / name
    if not path.is_file():
        there = ", ".join(sorted(p.name for p in content.iterdir())[:8])
        raise BadInput(f"The zip has no {name} at its root or in its one folder; found: {there}.", HOW)
    try:
        document = json.loads(path.read_bytes()[:MAX_JSON_BYTES])
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise BadInput(f"{name} holds no JSON object.", HOW)
    return document


def needs(content: Path, library: str, version: Version | None) -> Needs:
    """What transformers needs to run the model. Pillow is always there, so that all tasks share an environment."""
    lines = [library, "torch", "pillow"]
    if not (content / "tokenizer.json").is_file() and any(p for name in OTHERS_SAY for p in content.glob(name)):
        lines += ["sentencepiece", "sacremoses", "protobuf"]
    config = read_json(content, CONFIG)
    found = [
        f"Found a model of type '{config.get('model_type', 'unknown')}'"
        + (f", written by transformers {version}." if version else ".")
    ]
    if config.get("use_timm_backbone"):
        found.append("Its backbone is one of timm: name timm in the upload's requirements.")
    if (content / "adapter_config.json").is_file():
        lines.append("peft")
    return Needs(tuple(lines), found=tuple(found))
