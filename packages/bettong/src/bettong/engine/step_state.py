"""What a request has while it goes through steps, and what its answer then has beside `out.*`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.engine.plan import REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    import numpy as np
    import pyarrow as pa

    from bettong.domain.deployments import ModelSpec
    from bettong.engine.plan import Infer

    NDArray = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Failure:
    """A challenger that gave nothing for a request."""

    model: ModelSpec
    reason: str


@dataclass(frozen=True, slots=True)
class Beside:
    """What an answer of such steps has beside `out.*`.

    Args:
        model: the one that gave `out.*`.
        splits: JSON texts, one per split.
        marks: anomalies by validation, each of shape (rows,), in the order of the plan's validations.
        anomalies: how many validations mark each row; None without validations.
        others: a table for each of the plan's others, None for a challenger that failed or still is to run.
        failures: challengers that failed.
        models_ns: how long each model took, by its position; 0 for one that did not run.
        later: runs the challengers that the answer does not wait for; None when there are none.
    """

    model: ModelSpec
    splits: tuple[str, ...]
    marks: tuple[NDArray, ...]
    anomalies: NDArray | None
    others: tuple[pa.Table | None, ...]
    failures: tuple[Failure, ...]
    models_ns: tuple[int, ...]
    later: Callable[[], Coroutine[Any, Any, Later]] | None


@dataclass(frozen=True, slots=True)
class Later:
    """What challengers gave once the answer was out: a table for each of the plan's others that runs aside."""

    others: tuple[pa.Table | None, ...]
    failures: tuple[Failure, ...]


class State:
    """What a request has so far."""

    __slots__ = (
        "_began_ns",
        "aside",
        "elapsed_ns",
        "failures",
        "marks",
        "models",
        "models_ns",
        "patient_until",
        "request",
        "splits",
        "tables",
    )

    def __init__(self, request: pa.Table, patient_until: float, models_ns: list[int]) -> None:
        self.request, self.patient_until, self.models_ns = request, patient_until, models_ns
        self.tables: dict[int, pa.Table | None] = {}
        self.models: dict[int, int] = {}  # by slot, of routes
        self.splits: list[str] = []
        self.marks: list[tuple[str, NDArray]] = []
        self.failures: list[Failure] = []
        self.aside: list[tuple[int, Infer, pa.Table]] = []
        self.elapsed_ns: list[int] = []
        self._began_ns = time.perf_counter_ns()

    def tick(self) -> None:
        """A stage is done."""
        now = time.perf_counter_ns()
        self.elapsed_ns.append(now - self._began_ns)
        self._began_ns = now

    def of(self, slot: int) -> pa.Table:
        table = self.request if slot == REQUEST else self.tables[slot]
        assert table is not None  # a plan takes nothing of what may fail
        return table
