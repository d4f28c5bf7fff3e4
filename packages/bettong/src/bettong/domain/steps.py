"""The steps of a pipeline, read once from the documents that define them (spec 5.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from bettong.domain.expression_reader import parse_validation
from bettong.domain.expressions import computes_on_all_rows
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bettong.domain.expressions import Validation

MAX_STEPS, MAX_MODELS = 64, 64


@dataclass(frozen=True, slots=True)
class ModelRef:
    name: str
    version: str
    sha: str


@dataclass(frozen=True, slots=True)
class ModelStep:
    """Run the models on the current rows, each on the same; their results go on side by side, in this order."""

    models: tuple[ModelRef, ...]


@dataclass(frozen=True, slots=True)
class RandomSplit:
    """One of the models takes a whole request: by chance, weighted, or by the value of the column `hash_key`."""

    hash_key: str | None
    weights: tuple[tuple[float, ModelRef], ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return tuple(model for _, model in self.weights)


@dataclass(frozen=True, slots=True)
class KeySplit:
    """One of the models takes a whole request: the one for the value of the column `split_key`, else `control`."""

    split_key: str
    control: ModelRef
    routes: tuple[tuple[str, ModelRef], ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return (self.control, *(model for _, model in self.routes))


@dataclass(frozen=True, slots=True)
class Audit:
    """The results from `start` up to `end`, which is excluded, are kept for the log; None keeps all from `start` on."""

    start: int
    end: int | None
    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectColumns:
    """Go on with these columns, by position."""

    columns: tuple[int, ...]
    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Nth:
    """Go on with one of the results."""

    index: int
    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiOut:
    """Answer all results: the first as it is, the others under their models' names."""

    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Average:
    """Go on with the mean of the results."""

    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class RowsToModels:
    """Each row of a request goes to a model of its own."""

    rows: tuple[tuple[int, ModelRef], ...]

    @property
    def models(self) -> tuple[ModelRef, ...]:
        return tuple(model for _, model in self.rows)


@dataclass(frozen=True, slots=True)
class ColumnsToRows:
    """Go on with one column, in which each row has a list of what its columns had."""

    models: tuple[ModelRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """Mark rows as anomalies."""

    validations: tuple[Validation, ...]
    models: tuple[ModelRef, ...] = ()


Step: TypeAlias = (
    ModelStep
    | RandomSplit
    | KeySplit
    | Audit
    | SelectColumns
    | Nth
    | MultiOut
    | Average
    | RowsToModels
    | ColumnsToRows
    | Check
)


def parse_steps(definition: dict[str, Any]) -> tuple[Step, ...]:
    """The steps of a definition document, in order; () for an empty one.

    Raises:
        BadInput: the document is not of the form of spec 5.1; names step and field.
    """
    steps = definition.get("steps", [])
    if not isinstance(steps, list):
        raise BadInput("Pipeline definition has 'steps' that is not a list.", "Send a list of step objects.")
    if len(steps) > MAX_STEPS:
        raise BadInput(f"Pipeline definition has {len(steps)} steps.", f"Send at most {MAX_STEPS}.")
    found = tuple(_parse_step(at, step) for at, step in enumerate(steps))
    _check_order(found)
    return found


def models_of(steps: Iterable[Step]) -> tuple[ModelRef, ...]:
    """The models that steps name, each version once, in the order in which they stand."""
    return tuple({model.version: model for step in steps for model in step.models}.values())


def first_models_of(steps: Iterable[Step]) -> tuple[str, ...]:
    """How a table shows steps: by the name of the first model of each step that has one."""
    return tuple(step.models[0].name for step in steps if step.models)


def looks_at_whole_requests(steps: Iterable[Step]) -> bool:
    """Whether an answer to a row hangs on the rows beside it: splits go by a request's first row, rows go to models by
    their number, and a validation may compute on all of them."""
    return any(
        isinstance(step, (RandomSplit, KeySplit, RowsToModels))
        or (isinstance(step, Check) and any(computes_on_all_rows(v.expression) for v in step.validations))
        for step in steps
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _parse_step(at: int, step: object) -> Step:
    if not isinstance(step, dict) or len(step) != 1:
        raise BadInput(f"Pipeline step {at} is not an object with exactly one key.", f"Its key is one of {_known()}.")
    ((kind, body),) = step.items()
    if kind not in _READERS:
        raise BadInput(f"Pipeline step {at} is of the kind '{str(kind)[:64]}'.", f"There are: {_known()}.")
    fields, read = _READERS[kind]
    where = f"Pipeline step {at} ({kind})"
    return read(where, _fields(where, body, fields))


def _fields(where: str, body: object, expected: tuple[str, ...]) -> dict[str, Any]:
    """An object that has exactly these fields."""
    hint = f"It has: {', '.join(expected)}." if expected else "It has none: {}."
    if not isinstance(body, dict):
        raise BadInput(f"{where} is not an object.", hint)
    if unknown := [str(name)[:64] for name in body if name not in expected]:
        raise BadInput(f"{where} has the unknown field '{unknown[0]}'.", hint)
    if missing := [name for name in expected if name not in body]:
        raise BadInput(f"{where} lacks the field '{missing[0]}'.", hint)
    return body


def _model(where: str, given: object) -> ModelRef:
    found = _fields(f"{where}, a model of it,", given, ("name", "version", "sha"))
    if not all(isinstance(value, str) for value in found.values()):
        raise BadInput(f"{where} has a model whose name, version or sha is no text.", "Send all three as texts.")
    return ModelRef(found["name"], found["version"], found["sha"])


def _items(where: str, field: str, given: object) -> list[Any]:
    if not isinstance(given, list) or not 0 < len(given) <= MAX_MODELS:
        raise BadInput(f"{where} has '{field}' that is not a list of 1 to {MAX_MODELS} items.", "Correct it.")
    return given


def _model_step(where: str, body: dict[str, Any]) -> ModelStep:
    return ModelStep(tuple(_model(where, each) for each in _items(where, "models", body["models"])))


def _random_split(where: str, body: dict[str, Any]) -> RandomSplit:
    key = body["hash_key"]
    if key is not None and (not isinstance(key, str) or not key):
        raise BadInput(f"{where} has a 'hash_key' that is no column's name.", "Send a text, or null.")
    weights = []
    for each in _items(where, "weights", body["weights"]):
        item = _fields(f"{where}, a weight of it,", each, ("model", "weight"))
        weight = item["weight"]
        number = type(weight) in (int, float) and math.isfinite(weight)
        if not number or weight < 0:
            raise BadInput(f"{where} has a weight that is not a number of 0 or more.", "Send numbers such as 2 and 1.")
        weights.append((float(weight), _model(where, item["model"])))
    total = sum(weight for weight, _ in weights)
    if total <= 0 or not math.isfinite(total):
        raise BadInput(f"{where} has weights whose sum is {total:g}.", "Give at least one model a weight above 0.")
    return RandomSplit(key, tuple(weights))


def _key_split(where: str, body: dict[str, Any]) -> KeySplit:
    key, routes = body["split_key"], body["routes"]
    if not isinstance(key, str) or not key:
        raise BadInput(f"{where} has a 'split_key' that is no column's name.", "Send a text.")
    if not isinstance(routes, dict) or len(routes) > MAX_MODELS:
        raise BadInput(f"{where} has 'routes' that are not an object of at most {MAX_MODELS} models.", "Correct it.")
    return KeySplit(
        key, _model(where, body["control"]), tuple((value, _model(where, ref)) for value, ref in routes.items())
    )


def _audit(where: str, body: dict[str, Any]) -> Audit:
    start, end = body["from"], body["to"]
    if not _index(start) or (end is not None and (not _index(end) or end <= start)):
        raise BadInput(f"{where} has no slice of results in 'from' and 'to'.", "Send 0 <= from < to, or null as to.")
    return Audit(start, end)


def _select_columns(where: str, body: dict[str, Any]) -> SelectColumns:
    columns = _items(where, "columns", body["columns"])
    if not all(map(_index, columns)) or len(set(columns)) != len(columns):
        raise BadInput(f"{where} has 'columns' that are not positions, each once.", "Send such as [0, 2].")
    return SelectColumns(tuple(columns))


def _nth(where: str, body: dict[str, Any]) -> Nth:
    if not _index(body["index"]):
        raise BadInput(f"{where} has an 'index' that is no position.", "Send 0 for the first model's result.")
    return Nth(body["index"])


def _rows_to_models(where: str, body: dict[str, Any]) -> RowsToModels:
    rows = []
    for each in _items(where, "rows_to_models", body["rows_to_models"]):
        item = _fields(f"{where}, an item of it,", each, ("row_index", "model"))
        if not _index(item["row_index"]):
            raise BadInput(f"{where} has a 'row_index' that is no position.", "Send 0 for the first row.")
        rows.append((item["row_index"], _model(where, item["model"])))
    if len({index for index, _ in rows}) != len(rows):
        raise BadInput(f"{where} has a 'row_index' twice.", "Give each row one model.")
    return RowsToModels(tuple(rows))


def _check(where: str, body: dict[str, Any]) -> Check:
    try:
        return Check(tuple(parse_validation(text) for text in _items(where, "tree", body["tree"])))
    except BadInput as wrong:
        raise BadInput(f"{where}: {wrong.problem}", wrong.next_step) from None


def _index(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**31


_READERS: dict[str, tuple[tuple[str, ...], Callable[[str, dict[str, Any]], Step]]] = {
    "ModelInference": (("models",), _model_step),
    "RandomSplit": (("hash_key", "weights"), _random_split),
    "MetaValueSplit": (("split_key", "control", "routes"), _key_split),
    "Check": (("tree",), _check),
    "AuditResults": (("from", "to"), _audit),
    "ColumnsSelect": (("columns",), _select_columns),
    "Nth": (("index",), _nth),
    "MultiOut": ((), lambda where, body: MultiOut()),
    "Average": ((), lambda where, body: Average()),
    "RowsToModels": (("rows_to_models",), _rows_to_models),
    "ColumnsToRows": ((), lambda where, body: ColumnsToRows()),
}


def _known() -> str:
    return ", ".join(_READERS)


# --- how they follow each other ---------------------------------------------------------------------------------------


def _check_order(steps: tuple[Step, ...]) -> None:
    """What can be told without models: steps that work on results have some, and as many as they name."""
    results = 0
    for at, step in enumerate(steps):
        if step.models:
            results = len(step.models) if isinstance(step, ModelStep) else 1
            continue
        if isinstance(step, Check):
            continue
        where = f"Pipeline step {at} ({type(step).__name__})"
        if not results:
            raise BadInput(f"{where} works on results and comes before the first model.", "Put a model before it.")
        match step:
            case Nth(index) if index >= results:
                raise BadInput(f"{where} picks result {index} of {results}.", "Count from 0.")
            case Audit(start) if start >= results:
                raise BadInput(f"{where} keeps results from {start} on; there are {results}.", "Count from 0.")
            case Nth() | Average():
                results = 1
