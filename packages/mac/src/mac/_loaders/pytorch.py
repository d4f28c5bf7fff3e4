"""PYTORCH: TorchScript, and whole modules that were pickled by `torch.save(model, …)`, on the CPU.

Loading a pickle runs code of its author's choice. That is so of every model, and why it happens in the sandbox.
"""

from __future__ import annotations

import inspect
import os
import sys
import typing
import warnings
import zipfile
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch

from mac._loaders._files import only_file
from mac._loaders._tensors import answer, in_position, is_stacked, numbers, stacked

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

ENDINGS = (".pt", ".pth", ".pt2")
HOW_TO_SAVE = "Save the whole model: torch.jit.script(model).save(path), or torch.save(model, path)."
_WIDER = {np.dtype("u2"): np.int64, np.dtype("u4"): np.int64, np.dtype("u8"): np.int64}  # torch hardly knows these


class TorchModel:
    """A module in eval mode. Floating inputs take the type of its parameters, as schemas mostly say float64."""

    def __init__(self, module: Any, inputs: Fields, outputs: Fields) -> None:
        self._module, self._inputs, self._outputs = module, inputs, outputs
        self._order = in_position(inputs)
        self._by_name, self._stacked = False, False
        self._float = _float_of(module)
        required, known = _parameters(module)
        if known is None:
            return
        named = all(name in known for name in self._order)
        if named:
            self._order.sort(key=known.index)
        self._by_name = named and self._order != known[: len(inputs)]  # else by position: exported programs want it so
        self._stacked = not named and is_stacked(inputs, len(known))
        count = 1 if self._stacked else len(inputs)
        mixed = not named and any(name in known for name in self._order)
        if mixed or not len(required) <= count <= len(known) or (named and not set(required) <= set(self._order)):
            raise ValueError(
                "The model's forward takes (%s); the input schema has %d fields: %s. Declare one field per parameter, "
                "in that order or with those names." % (", ".join(known), len(inputs), ", ".join(self._order))
            )

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        with torch.no_grad():
            if self._stacked:
                result = self._module(self._tensor(stacked(columns, self._inputs), "inputs"))
            else:
                tensors = {name: self._tensor(columns[name], name) for name in self._order}
                result = self._module(**tensors) if self._by_name else self._module(*tensors.values())
        return {name: _array(value) for name, value in answer(result, self._outputs).items()}

    def _tensor(self, values: np.ndarray, name: str) -> Any:
        values = numbers(values, name)
        values = values.astype(_WIDER.get(values.dtype, values.dtype), copy=False)
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.to(self._float) if values.dtype.kind == "f" and self._float is not None else tensor


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> TorchModel:
    """Raises ValueError when the file holds no model, and ImportError when a pickle's class is not installed."""
    path = only_file(folder, ENDINGS)
    sys.path.insert(0, os.path.dirname(path))  # the file of a pickle's class may lie beside it
    entries = _entries(path)
    if any(entry[:1] == ["code"] for entry in entries):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        module = torch.jit.load(path, map_location="cpu")
    elif ["archive_format"] in entries:
        return TorchModel(torch.export.load(path).module(), inputs, outputs)  # exported as it was, in eval mode or not
    else:
        module = _unpickled(path)
    module.eval()
    return TorchModel(module, inputs, outputs)


def _entries(path: str) -> List[List[str]]:
    """The names in torch's own zip, in parts and without its top folder; [] for what older releases wrote."""
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return [name.split("/")[1:] for name in archive.namelist()]


def _unpickled(path: str) -> Any:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    except AttributeError as missing:  # a class of a notebook, looked for in this program
        raise ValueError(
            "The pickled module needs a class that is not there: %s. Only its name is in the file. Save TorchScript "
            "instead: torch.jit.script(model).save(path)." % missing
        ) from missing
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "The pickled module needs the Python module '%s', which its environment has not. Name what provides it in "
            "the upload's requirements, or save TorchScript: torch.jit.script(model).save(path)." % missing.name,
            name=missing.name,
        ) from missing
    if not isinstance(loaded, torch.nn.Module):
        weights = isinstance(loaded, dict) and all(isinstance(value, torch.Tensor) for value in loaded.values())
        found = "a state_dict, weights without their model" if weights else "a %s" % type(loaded).__name__
        raise ValueError("The file holds %s. %s" % (found, HOW_TO_SAVE))
    return loaded


def _parameters(module: Any) -> Tuple[List[str], Optional[List[str]]]:
    """(the parameters of `forward` without a default, all of them); None where it takes any number."""
    schema = getattr(module.forward, "schema", None)
    if schema is not None:
        arguments = schema.arguments[1:]
        return [a.name for a in arguments if not a.has_default_value()], [a.name for a in arguments]
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        return [], None
    return [p.name for p in parameters if p.default is p.empty], [p.name for p in parameters]


def _float_of(module: Any) -> Any:
    """The type of the model's floating parameters; None when it has none, then inputs stay as they are declared."""
    return next((p.dtype for p in module.parameters() if p.dtype.is_floating_point), None)


def _array(value: Any) -> Any:
    """A tensor as numpy; what numpy has no type for as float32. Lists of tensors, one per row, as lists of arrays."""
    if isinstance(value, (list, tuple)):
        return [_array(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    value = value.detach().cpu()
    return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
