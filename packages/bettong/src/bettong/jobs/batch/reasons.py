"""Why the pipeline refused a row that it was asked about alone, in words that hold for every row with that fault."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bettong.errors import ModelFailed

if TYPE_CHECKING:
    from bettong.errors import BettongError

# The only row of a request is its row 0, which says nothing to whoever knows the row by its keys.
_ALONE = re.compile(r", row 0(?=[,:])")
# What a model says itself may hold values of the row; the kind of its error does not.
_RAISED = re.compile(r"(?P<failed>.*?Model '[^']*' failed)(?:: (?P<kind>[^\W\d]\w*)(?=: |\.))?", re.DOTALL)


def reason_of(refused: BettongError) -> str:
    """No number of a row, and no value of it."""
    said = str(refused)
    if isinstance(refused, ModelFailed) and (raised := _RAISED.match(said)):
        kind = f" with {raised['kind']}" if raised["kind"] else ""
        return f"{raised['failed']}{kind}. Infer the row to see what the model says."
    return _ALONE.sub("", said)
