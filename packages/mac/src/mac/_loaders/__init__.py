"""How the worker turns an artifact into something that predicts: one module per framework, imported when it loads.

A module has one function, `load(framework, folder, inputs, outputs, config)`, and needs numpy and its framework alone:

    framework  the framework's name on the wire, such as "sklearn" or "hugging-face-summarization"
    folder     the unpacked artifact, absolute; it is the current folder too, and cannot be written
    inputs     fields of the input schema in their order: [{"name": …, "type": type tree}], as `_frames` has them
    outputs    the same of the output schema
    config     what the upload gave as framework_config: {"model_path": "./model/"}; {} for none

What it returns has `predict(columns)`: a dict with one numpy array per input field to one with an array per output
field, or an awaitable of that. Rows are the first axis. Arrays are cast to the schema's types afterwards. Whatever
`load` raises ends the worker, and its words are what people read: name what was found and what to do.
"""

from __future__ import annotations

import importlib
import typing
from typing import Any, Dict, List

if typing.TYPE_CHECKING:
    import numpy as np

Fields = List[Dict[str, Any]]

HUGGING_FACE = "hugging-face-"


class Model:
    """What `load` returns, for readers; a class with this method is one, whatever it inherits from."""

    def predict(self, columns: Dict[str, np.ndarray]) -> Any:
        raise NotImplementedError


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> Model:
    """The model in `folder`. Raises whatever its framework or its own code raises."""
    name = "hugging_face" if framework.startswith(HUGGING_FACE) else framework
    if not name.isidentifier():
        raise ValueError("The worker knows no framework %r." % framework)
    loader = importlib.import_module("mac._loaders." + name)
    model: Model = loader.load(framework, folder, inputs, outputs, config)
    return model
