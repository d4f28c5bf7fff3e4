"""CUSTOM: the one inference that the one builder of the artifact's files creates.

`packaging` has read the same files without running them and told most of what may be wrong, with file and line. Here is
what only shows when they run: imports that fail, classes made in ways that cannot be read, and what `create` returns.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import typing
from typing import Any, Dict, Iterator, List, Type

from mac.config.inference import CustomInferenceConfig
from mac.inference import AsyncInference, Inference
from mac.inference.creation import InferenceBuilder

if typing.TYPE_CHECKING:
    import numpy as np

    from mac._loaders import Fields

ARTIFACTS = "artifacts"  # a folder of data; code in it is not the model's
MODEL_FOLDER = "model"  # what `./model/` of a config stands for: the unzipped artifact


class CustomModel:
    """An inference, its answers checked for the fields that the schema has."""

    def __init__(self, inference: Any, outputs: Fields) -> None:
        self._inference = inference
        self._title = type(inference).__name__
        self._fields = [field["name"] for field in outputs]

    def predict(self, columns: Dict[str, np.ndarray]) -> Any:
        answer = self._inference.predict(columns)
        return self._later(answer) if inspect.isawaitable(answer) else self._checked(answer)

    async def _later(self, answer: Any) -> Any:
        return self._checked(await answer)

    def _checked(self, answer: Any) -> Any:
        if not isinstance(answer, dict):
            raise TypeError(
                "%s._predict returned a %s. Return a dict with one numpy array per output field: %s."
                % (self._title, type(answer).__name__, ", ".join(self._fields))
            )
        if missing := [name for name in self._fields if name not in answer]:
            raise KeyError(
                "%s._predict returned no %s. It returned: %s. Return every field of the output schema."
                % (self._title, ", ".join(missing), ", ".join(sorted(map(str, answer))) or "an empty dict")
            )
        return answer


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> CustomModel:
    """Raises what the artifact's own code raises, and with words when its classes are not as they have to be."""
    sys.path.insert(0, folder)
    _import_all(folder)
    _one(folder, (Inference, AsyncInference), "Inference")
    builder_class = _one(folder, (InferenceBuilder,), "InferenceBuilder")
    _check_made(builder_class)
    inference = builder_class().create(_config(folder, config))
    if not isinstance(inference, (Inference, AsyncInference)):
        raise TypeError(
            "%s.create returned a %s. Return the inference that it made: a subclass of mac.inference.Inference."
            % (builder_class.__name__, type(inference).__name__)
        )
    return CustomModel(inference, outputs)


def _config(folder: str, config: Dict[str, Any]) -> CustomInferenceConfig:
    extra = dict(config)
    asked = os.path.normpath(extra.pop("model_path", MODEL_FOLDER))
    parts = asked.split(os.sep)
    inside = os.path.join(folder, *(parts[1:] if parts[0] == MODEL_FOLDER else parts))
    return CustomInferenceConfig(os.path.normpath(inside), **extra)


def _import_all(folder: str) -> None:
    """Import every module of the artifact, as the files of it import each other."""
    for name in _modules(folder):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as missing:
            raise ModuleNotFoundError(
                "%s cannot be loaded: the module '%s' is not found. Add what provides it to requirements.txt."
                % (_file(name), missing.name),
                name=missing.name,
            ) from missing
        except NameError as unknown:
            raise NameError("%s cannot be loaded: %s. Define or import it." % (_file(name), unknown)) from unknown


def _modules(folder: str) -> List[str]:
    """The root's modules, then those of its packages: folders with an __init__.py."""
    names = sorted(entry[:-3] for entry in os.listdir(folder) if entry.endswith(".py"))
    return names + sorted(_in_packages(folder, ""))


def _in_packages(folder: str, prefix: str) -> Iterator[str]:
    for entry in os.listdir(folder):
        below = os.path.join(folder, entry)
        if (prefix or entry != ARTIFACTS) and os.path.isfile(os.path.join(below, "__init__.py")):
            yield prefix + entry
            for name in os.listdir(below):
                if name.endswith(".py") and name != "__init__.py":
                    yield prefix + entry + "." + name[:-3]
            yield from _in_packages(below, prefix + entry + ".")


def _file(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _one(folder: str, bases: Any, what: str) -> Type[Any]:
    """The one class of the artifact that derives from one of `bases` and that nothing else derives from."""
    found: List[Type[Any]] = []
    for base in bases:
        found += [kind for kind in _below(base) if _is_of(kind, folder) and not _below(kind)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise TypeError("No subclass of %s is found in the artifact's Python files. Define one." % what)
    raise TypeError(
        "Several subclasses of %s are found: %s. Only one is allowed; keep one."
        % (what, ", ".join(sorted(kind.__name__ for kind in found)))
    )


def _below(base: Type[Any]) -> List[Type[Any]]:
    direct = base.__subclasses__()
    return direct + [kind for one in direct for kind in _below(one)]


def _is_of(kind: Type[Any], folder: str) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return file is not None and os.path.realpath(file).startswith(os.path.join(os.path.realpath(folder), ""))


def _check_made(kind: Type[Any]) -> None:
    lacking = sorted(getattr(kind, "__abstractmethods__", ()))
    if lacking:
        raise TypeError("The builder %s lacks %s. Define it in the class." % (kind.__name__, " and ".join(lacking)))
