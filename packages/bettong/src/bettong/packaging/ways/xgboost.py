"""XGBOOST: a Booster or a wrapper as a pickle, or what save_model wrote (JSON, UBJSON, the binary form of old)."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder, head_of, only_file
from bettong.packaging.pickled import SKLEARN, SUFFIXES, look_at_pickle, version_of_booster, xgboost_lines
from bettong.packaging.pickles import looks_like_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from packaging.version import Version

SAVED = (".json", ".ubj", ".bin", ".model")
LAST_WITH_BINARY = "xgboost-cpu<3.1,>=2.1.1"  # later ones do not read the form that was written before JSON


def single(archive: Path, head: bytes) -> str:
    if head.startswith(ZIP_MAGIC):
        return ""
    if kind := _kind(head):
        return f"model{kind}"
    if looks_like_pickle(head):
        return "model.pkl"
    raise BadInput(
        "The file is no XGBoost model: neither a pickle, nor JSON or UBJSON of save_model, nor a zip of one.",
        "Write it with model.save_model('model.json') or pickle.dump, and upload that file.",
    )


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    file = only_file(content_folder(folder), (*SUFFIXES, *SAVED), "XGBoost model")
    kind = _kind(head_of(file))
    if not kind:
        return look_at_pickle(file).needs
    if kind == ".bin":
        return Needs((LAST_WITH_BINARY, SKLEARN), found=(f"{file.name} has the binary form of old releases.",))
    version = _written(file)
    lines = xgboost_lines(version, exactly=False)
    written = f", written by XGBoost {version}" if version else ""
    return Needs(tuple(lines), found=(f"Read {file.name} without running it: a saved XGBoost model{written}.",))


def _kind(head: bytes) -> str:
    """What save_model wrote, by its first bytes: ".json", ".ubj" or ".bin"; "" when it was not save_model."""
    text = head.lstrip()
    if text.startswith(b"{") and text[1:].lstrip().startswith(b'"'):
        return ".json"
    if head.startswith(b"{L\x00"):
        return ".ubj"
    return ".bin" if head.startswith((b"binf", b"bs64")) else ""


def _written(file: Path) -> Version | None:
    """The version that stands in the file."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return version_of_booster(content)
