"""KERAS: a .keras or .h5 file, or a zipped SavedModel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from packaging.version import InvalidVersion, Version

from bettong.errors import BadInput
from bettong.packaging.artifact import looked_into
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder, head_of, only_file
from bettong.packaging.hdf5 import MAGIC, has_attribute, text_attribute
from bettong.packaging.saved_model import FILE
from bettong.packaging.ways.tensorflow import needs, saved_model_needs

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SUFFIXES = (".keras", ".h5", ".hdf5")
METADATA, CONFIG = "metadata.json", "config.json"  # of a .keras file, which is a zip
MAX_JSON_BYTES = 8 * 2**20
LAST_WITH_KERAS_2 = "==2.15.*"
NOTEBOOK = "__main__"
HOW = "Write the whole model: model.save('model.keras')."


def single(archive: Path, head: bytes) -> str:
    if head.startswith(MAGIC):
        return "model.h5"
    if not head.startswith(ZIP_MAGIC):
        raise BadInput(
            "The file is neither .keras nor .h5, nor a zip.",
            "Upload what model.save('model.keras') writes, or the zipped folder that model.export(folder) makes.",
        )
    with looked_into(archive) as opened:
        names = set(opened.namelist())
    return "model.keras" if {METADATA, CONFIG} <= names else ""


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    content = content_folder(folder)
    if (content / FILE).is_file():
        return saved_model_needs(content)
    file = only_file(content, SUFFIXES, "Keras model")
    return _of_hdf5(file) if head_of(file).startswith(MAGIC) else _of_archive(file)


def _of_hdf5(file: Path) -> Needs:
    if not has_attribute(file, "model_config"):
        raise BadInput(f"{file.name} holds weights without their model.", HOW)
    return _needs(file, text_attribute(file, "keras_version"))


def _of_archive(file: Path) -> Needs:
    try:
        with looked_into(file) as opened:
            metadata, config = (_json(opened, name) for name in (METADATA, CONFIG))
    except (KeyError, ValueError, RecursionError):
        raise BadInput(f"{file.name} is not a file that Keras writes, or a damaged one.", HOW) from None
    if own := sorted(set(_of_notebook(config))):
        raise BadInput(
            f"{file.name} has layers or functions of your own, {', '.join(own[:8])}; only their names are in the file.",
            "Zip and upload the SavedModel that model.export(folder) makes: it holds what they compute.",
        )
    said = metadata.get("keras_version") if isinstance(metadata, dict) else None
    return _needs(file, said if isinstance(said, str) else "")


def _json(opened: zipfile.ZipFile, name: str) -> Any:
    with opened.open(name) as entry:
        return json.loads(entry.read(MAX_JSON_BYTES))


def _of_notebook(config: Any) -> Iterator[str]:
    """Names of classes and functions that were defined in the program that saved the model."""
    if isinstance(config, dict):
        if config.get("module", "keras") in (None, NOTEBOOK) and config.get("registered_name"):
            yield str(config.get("class_name"))
        elif config.get("module") == "builtins" and config.get("class_name") == "function":
            yield str(config.get("config"))
        for value in config.values():
            yield from _of_notebook(value)
    elif isinstance(config, list):
        for value in config:
            yield from _of_notebook(value)


def _needs(file: Path, said: str) -> Needs:
    """Keras 2 came with TensorFlow until 2.15, and Keras 3 does not read all that it wrote."""
    try:
        version = Version(said)
    except InvalidVersion:
        return needs(f"Found {file.name}, which does not say which Keras wrote it.")
    found = f"Found {file.name}, written by Keras {version}."
    if version.major < 3:
        return needs(f"{found} TensorFlow 2.15 is the last that came with Keras 2.", version=LAST_WITH_KERAS_2)
    return needs(found)  # without a bound for Keras: what is newer reads it, and all such models share an environment
