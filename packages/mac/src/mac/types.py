"""The types of model code.

A Python step is a module with one function::

    from mac.types import InferenceData

    def process_data(input_data: InferenceData) -> InferenceData:
        return {"total": input_data["amounts"].sum(axis=1)}
"""

from typing import Dict

import numpy

InferenceData = Dict[str, numpy.ndarray]
"""One array per column; the first axis of each is the rows."""

__all__ = ["InferenceData"]
