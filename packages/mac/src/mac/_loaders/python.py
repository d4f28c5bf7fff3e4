"""PYTHON: the one `process_data` of the files at the artifact's root."""

from __future__ import annotations

import typing
from typing import Any, Callable, Dict

from mac._step import find_step

if typing.TYPE_CHECKING:
    from mac._loaders import Fields


class PythonStep:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.predict = function


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> PythonStep:
    """Raises as `find_step` does."""
    return PythonStep(find_step(folder))
