"""Finding the model's file in an artifact, and reading pickles with words for what they lack."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, List, Tuple

PICKLES = (".pkl", ".pickle", ".joblib")
READ_BYTES = 1 << 28
_SKLEARN = re.compile(rb"_sklearn_version[^0-9]{1,12}?(\d+\.\d+(?:\.\w+)*)")


def content_folder(folder: str) -> str:
    """`folder`, or the one folder in it when there is nothing beside that one. `packaging` looks the same way."""
    while True:
        inside = os.listdir(folder)
        if len(inside) != 1 or not os.path.isdir(os.path.join(folder, inside[0])):
            return folder
        folder = os.path.join(folder, inside[0])


def only_file(folder: str, suffixes: Tuple[str, ...]) -> str:
    """The one file with such a suffix at the root of the artifact's content."""
    folder = content_folder(folder)
    found: List[str] = sorted(
        name
        for name in os.listdir(folder)
        if os.path.splitext(name)[1].lower() in suffixes and os.path.isfile(os.path.join(folder, name))
    )
    if len(found) != 1:
        raise ValueError(
            "The artifact has %d files with one of %s; expected one: %s."
            % (len(found), ", ".join(suffixes), ", ".join(found) or "none is there")
        )
    return os.path.join(folder, found[0])


def read_pickle(path: str) -> Any:
    """The object in a file of pickle, cloudpickle or joblib. Code beside the file can be imported by it.

    Raises:
        ModuleNotFoundError: unpickling imports what is not installed.
        ValueError: the file was written by other versions of its libraries than are installed here.
    """
    sys.path.insert(0, os.path.dirname(path))
    name = os.path.basename(path)
    try:
        return _load(path)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "%s cannot be loaded: %s. Zip it with a requirements.txt that names what provides it, in the version that "
            "wrote the model." % (name, missing),
            name=missing.name,
        ) from missing
    except Exception as failed:
        raise ValueError(
            "%s does not load with the installed versions (%s): %s: %s. %sZip it with a requirements.txt that pins the "
            "versions that wrote it." % (name, _installed(), type(failed).__name__, failed, _written_with(path))
        ) from failed


def _load(path: str) -> Any:
    try:
        import joblib
    except ImportError:
        import pickle

        with open(path, "rb") as file:
            return pickle.load(file)
    return joblib.load(path)


def _written_with(path: str) -> str:
    """The release of scikit-learn that a pickle names as its own; "" where none is seen: it may be compressed."""
    with open(path, "rb") as file:
        match = _SKLEARN.search(file.read(READ_BYTES))
    return "It was written with scikit-learn %s. " % match.group(1).decode() if match else ""


def _installed() -> str:
    """The libraries that unpickling has imported, with their versions."""
    known = ("numpy", "pandas", "scipy", "sklearn", "xgboost", "lightgbm", "catboost")
    found = ["%s %s" % (name, getattr(sys.modules[name], "__version__", "?")) for name in known if name in sys.modules]
    return ", ".join(["Python %d.%d" % sys.version_info[:2], *found])
