"""SKLEARN: a model pickled by pickle, joblib or cloudpickle, alone or in a zip with its requirements.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder, only_file
from bettong.packaging.pickled import SUFFIXES, look_at_pickle
from bettong.packaging.pickles import looks_like_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def single(archive: Path, head: bytes) -> str:
    if head.startswith(ZIP_MAGIC):
        return ""
    if looks_like_pickle(head):
        return "model.pkl"
    raise BadInput(
        "The file is neither a pickle nor a zip.",
        "Upload what pickle.dump, joblib.dump or cloudpickle.dump wrote, or a zip of it and its requirements.txt.",
    )


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    return look_at_pickle(only_file(content_folder(folder), SUFFIXES, "pickled model")).needs
