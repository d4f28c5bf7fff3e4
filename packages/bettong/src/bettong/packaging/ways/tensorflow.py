"""TENSORFLOW: a zipped SavedModel."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder
from bettong.packaging.saved_model import FILE, read_saved_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HOW = "Zip the folder that model.export(folder) or tf.saved_model.save made."


def single(archive: Path, head: bytes) -> str:
    if head.startswith(ZIP_MAGIC):
        return ""
    if head.startswith(HDF5_MAGIC):
        raise BadInput("The file is HDF5, as Keras writes it, and not a zip.", "Upload it as Framework.KERAS.")
    raise BadInput("Not a valid ZIP file.", HOW)


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    content = content_folder(folder)
    if not (content / FILE).is_file():
        deeper = next((p.parent.relative_to(folder).as_posix() for p in sorted(content.rglob(FILE))), "")
        where = f"; there is one in '{deeper}/', which is not the only folder" if deeper else ""
        raise BadInput(f"The zip has no {FILE} at its root or in its one folder{where}.", HOW)
    return saved_model_needs(content)


def saved_model_needs(content: Path) -> Needs:
    """What a SavedModel needs, whichever framework it was uploaded as."""
    saved = read_saved_model(content / FILE)
    saved.serving()
    written = f", written by TensorFlow {saved.version}" if saved.version else ""
    return needs(f"Found a SavedModel{written}; its signatures: {', '.join(saved.signatures)}.")


def needs(*found: str, version: str = "") -> Needs:
    """TensorFlow in this version. The CPU build, a third of the size, exists for x86-64 Linux alone;
    elsewhere the other one is for CPUs."""
    if platform.machine() == "x86_64" and sys.platform == "linux":
        return Needs((f"tensorflow-cpu{version}",), {"tensorflow": "tensorflow-cpu"}, found=found)
    return Needs((f"tensorflow{version}",), {"tensorflow-cpu": "tensorflow"}, found=found)
