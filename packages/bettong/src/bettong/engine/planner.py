"""Steps made into a plan. What can be wrong with steps and schemas is found here, and told by the column."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.steps import (
    Audit,
    Average,
    Check,
    ColumnsToRows,
    KeySplit,
    ModelStep,
    MultiOut,
    Nth,
    RandomSplit,
    RowsToModels,
    SelectColumns,
)
from bettong.engine.arrow_lists import is_list
from bettong.engine.checks import Checks
from bettong.engine.joints import check_joint, fits, shown
from bettong.engine.plan import (
    REQUEST,
    Idle,
    Infer,
    Key,
    Mark,
    Mean,
    Other,
    Pick,
    Plan,
    Reshape,
    Route,
    Rowwise,
)
from bettong.engine.routing import Weights
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.domain.steps import ModelRef, Step
    from bettong.engine.plan import Part, Stage


def plan_of(pipeline: str, steps: Sequence[Step], parts: Sequence[Part], *, waits: bool = True) -> Plan:
    """Compile the steps of a pipeline.

    Args:
        parts: the models that the steps name, each version once.
        waits: whether an answer waits for challengers; without, they run once it is given.

    Raises:
        BadInput: there is no model, one is not among the parts, or what a step gives does not fit what the next one
            takes; the text names step, model and column.
    """
    return _Planner(pipeline, parts, waits).plan(steps)


@dataclass(slots=True)
class _Source:
    """A result while a plan is made."""

    slot: int
    schema: pa.Schema
    name: str
    model: int | None
    origin: int
    step: int
    needed: bool = False
    audited: bool = False
    answered: bool = False
    label: str = ""


class _Planner:
    def __init__(self, pipeline: str, parts: Sequence[Part], waits: bool) -> None:
        self._pipeline, self._parts, self._waits = pipeline, tuple(parts), waits
        self._at_version = {part.version: at for at, part in enumerate(parts)}
        self._sources: list[_Source] = []
        self._current: list[_Source] = []
        self._stages: list[Stage] = []
        self._keys: list[str] = []
        self._inputs = pa.schema([])

    def plan(self, steps: Sequence[Step]) -> Plan:
        first = next((step for step in steps if step.models), None)
        if first is None:
            raise BadInput(
                f"Pipeline '{self._pipeline}' has no step with a model.", "Add one, such as add_model_step(model)."
            )
        self._inputs = self._together(steps.index(first), [self._at(ref) for ref in first.models])
        names = [v.name for step in steps if isinstance(step, Check) for v in step.validations]
        for at, step in enumerate(steps):
            self._stages.append(self._stage(at, step))
        final, *beside = self._current
        final.needed = True
        if not any(source.answered or source.audited for source in beside):
            for source in beside:
                source.answered = True
        for source in self._sources:
            source.needed = source.needed or (source.answered and not source.audited)
        kept = [s for s in self._sources if s is not final and (s.answered or s.audited)]
        others = [
            Other(s.slot, self._label(s), s.model or 0, s.schema, s.answered, not s.needed) for s in kept
        ]  # only steps of models give several results, so that each has its model
        aside = frozenset() if self._waits else frozenset(o.slot for o in others if o.challenger)
        self._check_marks(aside)
        return Plan(
            tuple(self._stages),
            self._inputs,
            tuple(self._keys),
            final.schema,
            final.slot,
            final.origin,
            final.model,
            tuple(others),
            tuple(dict.fromkeys(names)),
            aside,
        )

    # --- one step after another ---------------------------------------------------------------------------------------

    def _stage(self, at: int, step: Step) -> Stage:
        match step:
            case ModelStep(refs):
                return self._infer(at, [self._at(ref) for ref in refs])
            case RandomSplit(hash_key, weights):
                models = [self._at(ref) for ref in step.models]
                chances = Weights([weight for weight, _ in weights])
                return replace(self._route(at, models, hash_key), weights=chances)
            case KeySplit(split_key, control, routes):
                models = [self._at(ref) for ref in (control, *(ref for _, ref in routes))]
                found = {value: place for place, (value, _) in enumerate(routes, 1)}
                return replace(self._route(at, models, split_key), routes=found)
            case RowsToModels(rows):
                return self._rowwise(at, {row: self._at(ref) for row, ref in rows})
            case Check():
                return self._mark(step)
            case Audit(start, end):
                for source in self._current[start:end]:
                    source.audited = True
            case MultiOut():
                for source in self._current[1:]:
                    source.answered = True
            case Nth(index):
                self._current = [self._current[index]]
            case SelectColumns(columns):
                return self._pick(at, columns)
            case ColumnsToRows():
                return self._reshape(at)
            case Average():
                return self._mean(at)
        return Idle()

    def _infer(self, at: int, models: list[int]) -> Stage:
        takes = self._handed(at, models)
        self._current = [self._source(at, self._parts[m].outputs, self._parts[m].name, m) for m in models]
        return Infer(takes, tuple(models), tuple(source.slot for source in self._current))

    def _route(self, at: int, models: list[int], key: str | None) -> Route:
        found = None if key is None else self._key(key)
        takes = self._handed(at, models)
        schema = self._same_outputs(at, models)
        source = self._source(at, schema, self._parts[models[0]].name, None)
        self._current = [source]
        return Route(takes, tuple(models), source.slot, schema, found)

    def _rowwise(self, at: int, rows: dict[int, int]) -> Stage:
        models = list(dict.fromkeys(rows.values()))
        takes = self._handed(at, models)
        schema = self._same_outputs(at, models)
        source = self._source(at, schema, self._parts[models[0]].name, models[0])
        self._current = [source]
        return Rowwise(takes, rows, source.slot, schema)

    def _pick(self, at: int, columns: tuple[int, ...]) -> Stage:
        before = self._only(at)
        if beyond := [column for column in columns if column >= len(before.schema)]:
            raise BadInput(
                f"{self._where(at)} selects column {beyond[0]}, counted from 0, of {len(before.schema)}.",
                f"The columns before it are: {shown(before.schema)}.",
            )
        after = self._derived(at, before, pa.schema([before.schema.field(column) for column in columns]))
        return Pick(before.slot, after.slot, after.schema)

    def _reshape(self, at: int) -> Stage:
        before = self._only(at)
        kinds = {f.type for f in before.schema}
        if wrong := next((f for f in before.schema if not _is_number(f.type) or len(kinds) > 1), None):
            raise BadInput(
                f"{self._where(at)} makes rows of columns of one type of number; '{wrong.name}' is {wrong.type}.",
                f"The columns before it are: {shown(before.schema)}.",
            )
        inner = pa.field("inner", kinds.pop(), nullable=False)
        after = self._derived(at, before, pa.schema([pa.field("tensor", pa.list_(inner))]))
        return Reshape(before.slot, after.slot, after.schema)

    def _mean(self, at: int) -> Stage:
        first, *rest = self._current
        for source in rest:
            if source.schema != first.schema:
                raise BadInput(
                    f"{self._where(at)} averages '{first.name}', which gives {shown(first.schema)}, and "
                    f"'{source.name}', which gives {shown(source.schema)}.",
                    "Average models that give the same columns.",
                )
        for each in first.schema:
            if not _is_number(each.type.value_type if is_list(each.type) else each.type):
                raise BadInput(
                    f"{self._where(at)} averages the column '{each.name}', which is {each.type}.",
                    "Average numbers, or lists of them.",
                )
        takes = tuple(source.slot for source in self._current)
        for source in self._current:
            source.needed = True
        after = self._derived(at, first, pa.schema([f.with_type(_mean_type(f.type)) for f in first.schema]))
        return Mean(takes, after.slot, after.schema)

    def _mark(self, step: Check) -> Stage:
        visible: dict[str, tuple[int, str]] = {f"in.{name}": (REQUEST, name) for name in self._inputs.names}
        kinds: dict[str, Any] = {f"in.{f.name}": f.type for f in self._inputs}
        for at, source in enumerate(self._current):
            group = f"out_{self._label(source)}" if at else "out"
            for each in source.schema:
                visible[f"{group}.{each.name}"] = (source.slot, each.name)
                kinds[f"{group}.{each.name}"] = each.type
        checks = Checks(step.validations, kinds)
        places = {name: visible[name] for name in checks.columns}
        return Mark(checks, tuple(v.name for v in step.validations), places)

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _at(self, ref: ModelRef) -> int:
        if (found := self._at_version.get(ref.version)) is None:
            raise BadInput(
                f"Pipeline '{self._pipeline}' names model '{ref.name}', which it was not given.", "Deploy it again."
            )
        return found

    def _where(self, at: int) -> str:
        return f"Step {at + 1} of pipeline '{self._pipeline}'"

    def _place(self, at: int, model: int) -> str:
        return f"{self._where(at)}, model '{self._parts[model].name}'"

    def _source(self, at: int, schema: pa.Schema, name: str, model: int | None, origin: int | None = None) -> _Source:
        slot = len(self._sources)
        made = _Source(slot, schema, name, model, slot if origin is None else origin, at)
        self._sources.append(made)
        return made

    def _derived(self, at: int, before: _Source, schema: pa.Schema) -> _Source:
        after = self._source(at, schema, before.name, before.model, before.origin)
        self._current = [after]
        return after

    def _only(self, at: int) -> _Source:
        """The result that goes on: of several, the first."""
        self._current[0].needed = True
        return self._current[0]

    def _handed(self, at: int, models: list[int]) -> int:
        """The slot whose rows go to these models, which must fit them."""
        if not self._current:
            self._together(at, models)
            return REQUEST
        before = self._only(at)
        giver = f"Step {before.step + 1} of pipeline '{self._pipeline}', model '{before.name}'"
        for model in models:
            part = self._parts[model]
            check_joint(before.schema, part.inputs, (giver, self._place(at, model)), native=part.native)
        return before.slot

    def _together(self, at: int, models: list[int]) -> pa.Schema:
        """The columns of a request that goes to these models: all that one of them takes, in the first one's types."""
        fields: dict[str, tuple[Any, int]] = {}
        for model in models:
            part = self._parts[model]
            for each in part.inputs:
                if each.name not in fields:
                    fields[each.name] = (each, model)
                    continue
                known, giver = fields[each.name]
                if not fits(known.type, each.type, native=part.native):
                    raise BadInput(
                        f"{self._place(at, model)} takes the column '{each.name}' as {each.type}, and model "
                        f"'{self._parts[giver].name}' beside it as {known.type}.",
                        "Models of one step get the same rows: make their input schemas agree.",
                    )
        return pa.schema([known for known, _ in fields.values()])

    def _same_outputs(self, at: int, models: list[int]) -> pa.Schema:
        """What any one of the models gives: they must agree, so that the next step and the log have one schema."""
        first = self._parts[models[0]]
        for model in models[1:]:
            part = self._parts[model]
            missing = [name for name in first.outputs.names if name not in part.outputs.names]
            extra = [name for name in part.outputs.names if name not in first.outputs.names]
            if missing or extra:
                raise BadInput(
                    f"{self._place(at, model)} gives {shown(part.outputs)}, and model '{first.name}' beside it "
                    f"{shown(first.outputs)}: they differ in '{(missing or extra)[0]}'.",
                    "Models among which a step chooses give the same columns: configure their output schemas.",
                )
            for each in first.outputs:
                given = part.outputs.field(each.name).type
                if not fits(given, each.type, native=True):
                    raise BadInput(
                        f"{self._place(at, model)} gives the column '{each.name}' as {given}, and model "
                        f"'{first.name}' beside it as {each.type}.",
                        "Models among which a step chooses give the same columns: configure their output schemas.",
                    )
        return first.outputs

    def _key(self, column: str) -> Key:
        """Where a decision finds its column: in the rows as they are, else in the request."""
        if self._current and column in self._current[0].schema.names:
            self._current[0].needed = True
            return Key(self._current[0].slot, column, optional=False)
        if column in self._inputs.names:
            return Key(REQUEST, column, optional=False)
        if column not in self._keys:
            self._keys.append(column)
        return Key(REQUEST, column, optional=True)

    def _label(self, source: _Source) -> str:
        """What its columns are called by: the model's name, numbered when it comes again."""
        if not source.label:
            taken = {other.label for other in self._sources}
            source.label, number = source.name, 2
            while source.label in taken:
                source.label, number = f"{source.name}-{number}", number + 1
        return source.label

    def _check_marks(self, aside: frozenset[int]) -> None:
        for stage in self._stages:
            if not isinstance(stage, Mark):
                continue
            for column, (slot, _) in stage.places.items():
                if slot in aside:
                    raise BadInput(
                        f"A validation looks at the column '{column}' of a challenger, for which answers do not wait.",
                        "Leave shadow_wait(False) out of the deployment config, or look at the champion's columns.",
                    )


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _mean_type(kind: Any) -> Any:
    if is_list(kind):
        leaf = _mean_type(kind.value_type)
        return kind if leaf == kind.value_type else pa.list_(pa.field("inner", leaf, nullable=False))
    return kind if pa.types.is_floating(kind) else pa.float64()
