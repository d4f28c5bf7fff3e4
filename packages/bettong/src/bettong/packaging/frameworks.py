"""Per framework: which files a model of it may be, what is looked for in them, and what its environment needs.

Nothing of an artifact is run here. A module of `packaging.ways` has one `WAY` per framework (or family of them), with
the two questions that packaging asks: under which name is an uploaded file kept, and what does the folder need.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

from bettong.errors import BadInput, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bettong.packaging.interpreters import Wish

ZIP_MAGIC = b"PK\x03\x04"
HEAD_BYTES = 64
_WAYS = {
    "python": "python",
    "custom": "custom",
    "sklearn": "sklearn",
    "xgboost": "xgboost",
    "mlflow": "mlflow",
    "pytorch": "pytorch",
    "keras": "keras",
    "tensorflow": "tensorflow",
    "hugging-face-automatic-speech-recognition": "hugging_face",
    "hugging-face-feature-extraction": "hugging_face",
    "hugging-face-image-classification": "hugging_face",
    "hugging-face-image-segmentation": "hugging_face",
    "hugging-face-image-to-text": "hugging_face_before_5",
    "hugging-face-object-detection": "hugging_face",
    "hugging-face-question-answering": "hugging_face_before_5",
    "hugging-face-sentiment-analysis": "hugging_face",
    "hugging-face-stable-diffusion-text-2-img": "diffusers",
    "hugging-face-summarization": "hugging_face_before_5",
    "hugging-face-text-classification": "hugging_face",
    "hugging-face-text-generation": "hugging_face",
    "hugging-face-translation": "hugging_face_before_5",
    "hugging-face-zero-shot-classification": "hugging_face",
    "hugging-face-zero-shot-image-classification": "hugging_face",
    "hugging-face-zero-shot-object-detection": "hugging_face",
}  # framework on the wire -> module below packaging.ways


@dataclass(frozen=True, slots=True)
class Needs:
    """What an artifact needs, as its files say.

    `requirements` are lines for distributions that the artifact's own requirements do not name. `instead` are
    distributions that are taken for others, by name: the same code in a smaller build. `python` limits the
    interpreters, and `found` is told in the upload log.
    """

    requirements: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    python: Wish | None = None
    found: tuple[str, ...] = ()


class Way(Protocol):
    """How models of one framework come; a module of `packaging.ways` is one."""

    def single(self, archive: Path, head: bytes) -> str:
        """The name under which an uploaded single file is kept in its folder; "" when it is a zip to be unpacked.

        `head` are its first HEAD_BYTES bytes. Raises BadInput when it is neither: says what was expected.
        """

    def look(self, folder: Path, config: Mapping[str, object]) -> Needs:
        """Check what lies in `folder`, the unpacked zip or the folder of the single file, and say what it needs.

        `config` is the upload's framework_config. Raises BadInput naming what is missing or wrong.
        """


def family_of(framework: str) -> str:
    """The family that looks at artifacts of this framework: what it makes of a file is kept under its name.

    Raises UnsupportedFormat for frameworks that do not run in an environment of their own."""
    if (family := _WAYS.get(framework)) is None:
        raise UnsupportedFormat(
            f"Framework '{framework}' is not one that this release runs in an environment.",
            f"It runs so: {', '.join(sorted(_WAYS))}.",
        )
    return family


def way_of(framework: str) -> Way:
    """Raises as `family_of` does."""
    return cast("Way", importlib.import_module(f"bettong.packaging.ways.{family_of(framework)}"))


def head_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES)


def content_folder(folder: Path) -> Path:
    """`folder`, or the one folder in it when there is nothing beside that one: a zip of a folder. The loaders in `mac`
    look the same way."""
    while True:
        inside = list(folder.iterdir())
        if len(inside) != 1 or not inside[0].is_dir():
            return folder
        folder = inside[0]


def only_file(folder: Path, suffixes: tuple[str, ...], what: str) -> Path:
    """The one file with such a suffix at the root of `folder`. Raises BadInput when there is none, or several."""
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in suffixes)
    if len(found) == 1:
        return found[0]
    if not found:
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise BadInput(
            f"The zip holds no {what} ({', '.join(suffixes)}) at its root; found: {there}.",
            f"Upload the {what} itself, or a zip of it and its requirements.txt.",
        )
    raise BadInput(
        f"The zip holds {len(found)} files that may be the {what}: {', '.join(p.name for p in found[:8])}.",
        "Leave one of them.",
    )
