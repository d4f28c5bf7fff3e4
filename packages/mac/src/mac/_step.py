"""Finds the one function of a Python step among the files of its artifact."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
import typing
from typing import Any, Callable, Dict, List

import numpy as np

if typing.TYPE_CHECKING:
    import types

FUNCTION = "process_data"
_DICT_OF_ARRAYS = re.compile(r"(\w+\.)*InferenceData|(typing\.|t\.)?[Dd]ict\[\s*str\s*,\s*(np\.|numpy\.)?ndarray\s*\]")


def find_step(folder: str) -> Callable[..., Any]:
    """Import every .py file in the root of `folder`; the `process_data` that they define.

    Raises:
        AttributeError: none of them defines it.
        ValueError: several do, or its parameter, name or annotations are others.
        ImportError: a file cannot be imported because a module it needs is not there.
        Exception: whatever else a file raised while it was imported.
    """
    files = sorted(name for name in os.listdir(folder) if name.endswith(".py"))
    if not files:
        raise AttributeError(
            "There is no Python file in the root of the archive. Put the .py file with %s there." % FUNCTION
        )
    sys.path.insert(0, folder)
    found: List[Callable[..., Any]] = []
    where: List[str] = []
    for name in files:
        function = getattr(_import_file(os.path.join(folder, name)), FUNCTION, None)
        if function is not None and not any(function is other for other in found):
            found.append(function)
            where.append(name)
    if not found:
        raise AttributeError(
            "No function '%s' found in the given files (%s). Define it at the top level of one of them."
            % (FUNCTION, ", ".join(files))
        )
    if len(found) > 1:
        raise ValueError(
            "Multiple pre/post-processing steps found in the given files. "
            "'%s' is defined in %s; keep one." % (FUNCTION, ", ".join(where))
        )
    _check(found[0], where[0])
    return found[0]


def _import_file(path: str) -> types.ModuleType:
    """The module of a file of the artifact, under its own name so that the files can import each other."""
    name = os.path.splitext(os.path.basename(path))[0]
    known = sys.modules.get(name)
    if known is not None and os.path.realpath(getattr(known, "__file__", None) or "") == os.path.realpath(path):
        return known  # a sibling has imported it
    spec = importlib.util.spec_from_file_location(name if known is None else "_artifact_" + name, path)
    if spec is None or spec.loader is None:
        raise ImportError("File %s cannot be imported." % os.path.basename(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the name was taken (by the standard library, say), the taker stays
    try:
        spec.loader.exec_module(module)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "%s cannot be loaded: %s. Add what provides it to requirements.txt." % (os.path.basename(path), missing),
            name=missing.name,
        ) from missing
    return module


def _check(function: object, file: str) -> None:
    title = "'%s' in %s" % (FUNCTION, file)
    should = "Write it as: def %s(input_data: InferenceData) -> InferenceData." % FUNCTION
    if not callable(function):
        raise ValueError("%s is not a function. %s" % (title, should))
    parameters = list(inspect.signature(function).parameters)
    if parameters != ["input_data"]:
        raise ValueError(
            "%s has the parameters (%s); expected one, input_data. %s" % (title, ", ".join(parameters), should)
        )
    hints = _annotations(function)
    for part, name in (("parameter input_data", "input_data"), ("return value", "return")):
        if name not in hints:
            raise ValueError("%s has no annotation for its %s; expected InferenceData. %s" % (title, part, should))
        if not _is_inference_data(hints[name]):
            raise ValueError("%s has another annotation than InferenceData for its %s. %s" % (title, part, should))


def _annotations(function: Any) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:
        # names that exist for type checkers only, or syntax newer than this interpreter: judge the text
        return dict(getattr(function, "__annotations__", {}))


def _is_inference_data(annotation: object) -> bool:
    if isinstance(annotation, str):
        return _DICT_OF_ARRAYS.fullmatch(annotation.strip().strip("\"'")) is not None
    if getattr(annotation, "__origin__", None) is not dict:
        return False
    key, value = getattr(annotation, "__args__", (None, None))
    return key is str and np.ndarray in (value, getattr(value, "__origin__", None))
