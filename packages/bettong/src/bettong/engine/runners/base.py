"""What a program step needs of whatever runs its model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pyarrow as pa

    NDArray = np.ndarray[Any, np.dtype[Any]]

    from bettong.domain.deployments import ObservedWorker


class Runner(Protocol):
    """One model, ready to take rows. Lives on one event loop and never blocks it."""

    @property
    def input_schema(self) -> pa.Schema: ...
    @property
    def output_schema(self) -> pa.Schema: ...

    async def start(self) -> None:
        """Load the model. Raises ModelFailed with its last words; then nothing is left running."""

    async def predict(self, rows: pa.Table) -> pa.Table:
        """Outputs in the output schema, as many rows as came in, in their order.

        `rows` has exactly the columns of the input schema, already of its types, without nulls.

        Raises:
            ModelFailed: the model raised, or its worker died under this request; the next request may work.
            Unavailable: there is no worker at the moment; one is being started.
        """

    async def close(self) -> None:
        """Stop; requests in flight fail. Twice is no error."""

    def observed(self) -> ObservedWorker: ...


@runtime_checkable
class Staffed(Protocol):
    """A runner with several workers, which run as many requests at once."""

    def workers(self) -> Sequence[ObservedWorker]: ...


def workers_of(runner: Runner) -> Sequence[ObservedWorker]:
    """Every worker of a runner, as it is now."""
    return runner.workers() if isinstance(runner, Staffed) else [runner.observed()]


@runtime_checkable
class Queueing(Protocol):
    """A runner whose requests may have to wait for each other."""

    @property
    def waiting(self) -> int:
        """How many have come and do not run yet."""


@runtime_checkable
class PromptRow(Protocol):
    """A runner that takes one row of numbers as numpy arrays."""

    def predict_row(self, inputs: Sequence[NDArray]) -> Sequence[NDArray] | None:
        """An array per field of the output schema, of its type.

        A field of lists is an array of shape (1, values), one of numbers of shape (1,); so are `inputs`, which are of
        the input schema's types. None when `predict` has to be asked; it will also tell what is wrong.
        """


@runtime_checkable
class Prompt(Protocol):
    """A runner that can often answer at once, without a task for the request: what that saves is more than a small
    model takes."""

    def predict_now(self, rows: pa.Table) -> pa.Table | None:
        """What `predict` gives and raises; None when it would keep the event loop too long, and nothing was done."""
