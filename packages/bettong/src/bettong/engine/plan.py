"""What a pipeline's steps come to: for each step, what it takes and what it fills.

Every result of a step has a number, its slot; REQUEST stands for the rows as they came. A plan is made by `planner`
before any model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from bettong.engine.checks import Checks
    from bettong.engine.routing import Weights

REQUEST = -1


@dataclass(frozen=True, slots=True)
class Part:
    """A model as a plan sees it."""

    name: str
    version: str
    native: bool
    inputs: pa.Schema
    outputs: pa.Schema


@dataclass(frozen=True, slots=True)
class Infer:
    """Run models, by their position among the parts, on the rows of one slot."""

    takes: int
    models: tuple[int, ...]
    gives: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """The column that decides, and the slot that has it; a request may come without it when `optional`."""

    slot: int
    column: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Route:
    """Run one of the models: by `weights`, or without any by `routes` of the key's value, else `models[0]`."""

    takes: int
    models: tuple[int, ...]
    gives: int
    schema: pa.Schema
    key: Key | None
    weights: Weights | None = None
    routes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rowwise:
    """Run a model on each row: row number → position in `models`."""

    takes: int
    rows: Mapping[int, int]
    gives: int
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Pick:
    """Take columns out of a slot."""

    takes: int
    gives: int
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Reshape:
    """Make one column of lists of all columns of a slot."""

    takes: int
    gives: int
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of several slots."""

    takes: tuple[int, ...]
    gives: int
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class Mark:
    """Run validations; `places` says in which slot each of their columns is, and what it is called there."""

    checks: Checks
    names: tuple[str, ...]
    places: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Idle:
    """A step that only says how results go on."""


Stage: TypeAlias = Infer | Route | Rowwise | Pick | Reshape | Mean | Mark | Idle


@dataclass(frozen=True, slots=True)
class Other:
    """Columns of an answer beside `out.*`: `out_<label>.*`. Those not `answered` are in the log alone.

    A `challenger` may fail: then its columns are nulls.
    """

    slot: int
    label: str
    model: int
    schema: pa.Schema
    answered: bool
    challenger: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """`keys` are columns that a request may have beside `inputs`. `final` is the slot of the answer's `out.*`, and
    `model` the position of the model that gave it, None where a route decides: it is the one that filled `origin`."""

    stages: tuple[Stage, ...]
    inputs: pa.Schema
    keys: tuple[str, ...]
    outputs: pa.Schema
    final: int
    origin: int
    model: int | None
    others: tuple[Other, ...]
    validations: tuple[str, ...]  # each name once
    aside: frozenset[int]  # slots that are filled once the answer is given

    @property
    def first_model(self) -> int:
        """The model that gives `out.*`; of several among which a step chooses, the first."""
        routes = {stage.gives: stage.models[0] for stage in self.stages if isinstance(stage, Route)}
        return routes[self.origin] if self.model is None else self.model

    @property
    def late(self) -> tuple[Other, ...]:
        """Those of the others for which no answer waits."""
        return tuple(other for other in self.others if other.slot in self.aside)

    @property
    def splits(self) -> bool:
        return any(isinstance(stage, Route) for stage in self.stages)

    @property
    def chain(self) -> tuple[int, ...] | None:
        """The models in order, when each step is one of them; None when there is more to it."""
        plain = all(isinstance(stage, Infer) and len(stage.models) == 1 for stage in self.stages)
        return tuple(s.models[0] for s in self.stages if isinstance(s, Infer)) if plain else None
