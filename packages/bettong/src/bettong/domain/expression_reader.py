"""The JSON of a validation, in the dialect of spec 5.5, read once into values.

The dialect is what polars 0.18 writes, and what the SDK translates every other polars into: a tree of objects with one
key each. What is not read here is refused by its name, so that nothing is stored that no engine could evaluate.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bettong.domain.expressions import (
    AGGREGATES,
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    KINDS,
    LOGIC,
    NUMBERS,
    Aggregate,
    Binary,
    Call,
    Cast,
    Column,
    Explode,
    Filter,
    Listed,
    Literal,
    RowCount,
    Ternary,
    Validation,
)
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.domain.expressions import Node

MAX_TEXT, MAX_NODES, MAX_DEPTH, MAX_NAME = 64 * 2**10, 1000, 64, 128
_FAMILIES = frozenset(name.partition(".")[0] for name in FUNCTIONS if "." in name)


def parse_validation(text: object) -> Validation:
    """One item of a Check step's tree.

    Raises:
        BadInput: it is no expression of the dialect that gives one value per row; names the node, or the function.
    """
    if not isinstance(text, str) or len(text) > MAX_TEXT:
        raise BadInput(f"A validation is not a text of at most {MAX_TEXT} characters.", "Send the expression as JSON.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadInput("A validation is not JSON.", "Send what the SDK's add_validations makes of it.") from None
    body = document.get("Alias") if isinstance(document, dict) and len(document) == 1 else None
    if not isinstance(body, list) or len(body) != 2 or not isinstance(body[1], str):
        raise BadInput("A validation has no name.", 'Its outermost node is {"Alias": [expression, name]}.')
    name = check_name(body[1])
    reader = _Reader(name)
    expression, shape = reader.node(body[0], 0)
    if shape is Shape.OTHER:
        raise BadInput(
            f"Validation '{name}' gives another number of values than there are rows.",
            "Reduce what filter() or explode() give, for instance with max().",
        )
    return Validation(name, expression, text)


def check_name(name: str) -> str:
    """Raises BadInput when a validation cannot be called so."""
    if name == "count":
        raise BadInput("A validation is called 'count', as the column with their number is.", "Call it otherwise.")
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise BadInput(f"A validation's name is not 1 to {MAX_NAME} printable characters.", "Call it otherwise.")
    return name


class Shape(Enum):
    """How many values a node gives."""

    ROWS = "one per row"
    ONE = "one"
    OTHER = "another number"


class _Reader:
    """Reads one tree. Every method gives a node and how many values it has."""

    def __init__(self, name: str) -> None:
        self._name, self._nodes = name, 0
        self._readers: dict[str, Callable[[Any, int], tuple[Node, Shape]]] = {
            "Alias": self._alias,
            "Column": self._column,
            "Literal": self._literal,
            "BinaryExpr": self._binary,
            "Function": self._function,
            "Cast": self._cast,
            "Ternary": self._ternary,
            "Agg": self._aggregate,
            "Filter": self._filter,
            "Explode": self._explode,
        }

    def node(self, document: object, depth: int) -> tuple[Node, Shape]:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            raise self._wrong(f"is nested deeper than {MAX_DEPTH}, or has more than {MAX_NODES} nodes", "Split it up.")
        if document in ("Count", "Len"):
            return RowCount(), Shape.ONE
        if isinstance(document, str):
            raise self._unknown(document)
        if not isinstance(document, dict) or len(document) != 1:
            raise self._wrong("has a node that is not an object with one key", "See docs/howto/steps.md.")
        ((kind, body),) = document.items()
        if (read := self._readers.get(kind)) is None:
            raise self._unknown(kind)
        try:
            return read(body, depth + 1)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            raise self._wrong(f"has a node '{_shown(kind)}' of another form", "Write it as polars 0.18 does.") from None

    def _alias(self, body: Any, depth: int) -> tuple[Node, Shape]:
        inner, _ = body
        return self.node(inner, depth)

    def _column(self, body: Any, depth: int) -> tuple[Node, Shape]:
        if not isinstance(body, str):
            raise TypeError
        return Column(body), Shape.ROWS

    def _literal(self, body: Any, depth: int) -> tuple[Node, Shape]:
        if body == "Null":
            return Literal("Null", None), Shape.ONE
        ((kind, value),) = body.items()
        if kind == "Series":
            values = value["values"]
            listed = _kind(value["datatype"]) if values else "Null"
            if listed is None:
                raise self._unknown(f"Literal Series of {value['datatype']}")
            return Listed(listed, tuple(None if v is None else _checked(listed, v) for v in values)), Shape.ONE
        known = _kind(kind)
        if known is None or known == "Date":
            raise self._unknown(f"Literal {kind}")
        return Literal(known, _checked(known, value)), Shape.ONE

    def _binary(self, body: Any, depth: int) -> tuple[Node, Shape]:
        op = body["op"]
        if op not in COMPARISONS | LOGIC | ARITHMETIC:
            raise self._unknown(f"BinaryExpr {op}")
        left, right = self.node(body["left"], depth), self.node(body["right"], depth)
        return Binary(op, left[0], right[0]), self._together(left[1], right[1])

    def _function(self, body: Any, depth: int) -> tuple[Node, Shape]:
        name, given = _named(body["function"])
        if name not in FUNCTIONS:
            raise self._unknown(f"Function {name}")
        count, wanted = FUNCTIONS[name]
        inputs = [self.node(each, depth) for each in body["input"]]
        if not inputs or (count and len(inputs) != count):
            raise ValueError
        nodes = tuple(node for node, _ in inputs)
        _check_inputs(name, nodes)
        parameters = tuple((key, _parameter(name, key, given)) for key in wanted)
        return Call(name, nodes, parameters), self._together(*(shape for _, shape in inputs))

    def _cast(self, body: Any, depth: int) -> tuple[Node, Shape]:
        inner, shape = self.node(body["expr"], depth)
        kind = body["data_type"]
        if isinstance(kind, dict) and set(kind) == {"Datetime"}:
            unit, zone = kind["Datetime"]
            if zone is not None:
                raise self._unknown("Cast to a Datetime with a time zone")
            return Cast(
                inner, "Datetime", {"Milliseconds": "ms", "Microseconds": "us", "Nanoseconds": "ns"}[unit]
            ), shape
        if (known := _kind(kind)) is None:
            raise self._unknown(f"Cast to {kind}")
        return Cast(inner, known), shape

    def _ternary(self, body: Any, depth: int) -> tuple[Node, Shape]:
        parts = [self.node(body[key], depth) for key in ("predicate", "truthy", "falsy")]
        predicate, truthy, falsy = (node for node, _ in parts)
        return Ternary(predicate, truthy, falsy), self._together(*(shape for _, shape in parts))

    def _aggregate(self, body: Any, depth: int) -> tuple[Node, Shape]:
        ((kind, given),) = body.items()
        if kind not in AGGREGATES:
            raise self._unknown(f"Agg {kind}")
        ddof = 1
        if kind in ("Std", "Var"):
            given, ddof = given
            if type(ddof) is not int or not 0 <= ddof <= 255:
                raise ValueError
        elif kind in ("Min", "Max"):
            if given["propagate_nans"]:
                raise self._unknown(f"Agg {kind} with propagate_nans")
            given = given["input"]
        inner, _ = self.node(given, depth)
        return Aggregate(kind, inner, ddof), Shape.ONE

    def _filter(self, body: Any, depth: int) -> tuple[Node, Shape]:
        inner, by = self.node(body["input"], depth), self.node(body["by"], depth)
        self._together(inner[1], by[1])
        return Filter(inner[0], by[0]), Shape.OTHER

    def _explode(self, body: Any, depth: int) -> tuple[Node, Shape]:
        empty_as_null = True
        if isinstance(body, dict) and "input" in body:  # polars 2 leaves empty lists out, and says so
            empty_as_null = bool(body["options"]["empty_as_null"])
            body = body["input"]
        inner, _ = self.node(body, depth)
        return Explode(inner, empty_as_null), Shape.OTHER

    def _together(self, *shapes: Shape) -> Shape:
        if Shape.OTHER in shapes and (Shape.ROWS in shapes or shapes.count(Shape.OTHER) > 1):
            raise self._wrong(
                "puts together columns of different lengths", "Reduce what filter() or explode() give first."
            )
        return Shape.OTHER if Shape.OTHER in shapes else Shape.ROWS if Shape.ROWS in shapes else Shape.ONE

    def _unknown(self, what: str) -> BadInput:
        return self._wrong(
            f"has the node '{_shown(what)}', which no engine here evaluates", "docs/howto/steps.md lists those that do."
        )

    def _wrong(self, what: str, next_step: str) -> BadInput:
        return BadInput(f"Validation '{self._name}' {what}.", next_step)


def _shown(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


def _kind(given: object) -> str | None:
    """A data type by its name; texts are called Utf8 or String."""
    kind = {"String": "Utf8"}.get(given, given) if isinstance(given, str) else None
    return kind if kind in KINDS else None


def _checked(kind: str, value: object) -> object:
    """A literal of a kind. Raises TypeError or ValueError when it is none, as for NaN, which JSON cannot hold."""
    if kind in ("Utf8", "Boolean"):
        if type(value) is not (str if kind == "Utf8" else bool):
            raise TypeError
        return value
    if kind.startswith("Float"):
        if type(value) not in (int, float):
            raise TypeError
        return float(value)  # type: ignore[arg-type]
    if type(value) is not int:
        raise TypeError
    bits = int(kind.removeprefix("U").removeprefix("Int") or 32) if kind != "Date" else 32
    least, most = (0, 2**bits - 1) if kind.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if not least <= value <= most:
        raise ValueError
    return value


def _named(function: Any) -> tuple[str, dict[str, Any]]:
    """A function's name and its parameters: "Abs", {"Boolean": "IsNull"}, {"Round": {…}}, {"ListExpr": {"Get": …}}."""
    if isinstance(function, str):
        return function, {}
    ((family, body),) = function.items()
    if family not in _FAMILIES:
        return family, body if isinstance(body, dict) else {}
    if isinstance(body, str):
        return f"{family}.{body}", {}
    ((name, parameters),) = body.items()
    return f"{family}.{name}", parameters if isinstance(parameters, dict) else {"name": parameters}


def _parameter(function: str, key: str, given: dict[str, Any]) -> Any:
    """A parameter, checked. Raises KeyError, TypeError or ValueError when it is none."""
    match function, key:
        case "Round", "decimals":
            if type(given[key]) is not int or not 0 <= given[key] <= 15:
                raise ValueError
            return given[key]
        case "Round", "mode":
            mode = given.get(key, "HalfAwayFromZero")  # polars 0.18 has no other
            if mode not in ("HalfAwayFromZero", "HalfToEven"):
                raise ValueError
            return mode
        case "Log", "base":
            if type(given[key]) not in (int, float) or not given[key] > 0:
                raise ValueError
            return float(given[key])
        case "Clip", _:
            if given.get(key) is None:
                return None
            ((kind, value),) = given[key].items()
            return _checked(kind if kind in NUMBERS else "Int64", value)
        case "StringExpr.Contains", "literal":
            return bool(given[key])
    if not isinstance(given[key], str):
        raise TypeError
    return given[key]


def _check_inputs(function: str, inputs: tuple[Node, ...]) -> None:
    """What some functions take as a value only. Raises BadInput for a pattern that is none."""
    if function == "Boolean.IsIn" and not isinstance(inputs[1], Listed):
        raise ValueError
    if not function.startswith("StringExpr") or len(inputs) != 2:
        return
    pattern = inputs[1]
    if not isinstance(pattern, Literal) or pattern.kind != "Utf8":
        raise ValueError
    if function == "StringExpr.Contains":
        try:
            pc.match_substring_regex(pa.array([""]), str(pattern.value))
        except pa.ArrowInvalid:
            raise BadInput(
                "A validation looks for a pattern that is no regular expression.", "Correct it, or pass literal=True."
            ) from None
