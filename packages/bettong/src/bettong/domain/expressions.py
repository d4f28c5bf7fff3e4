"""Validations: expressions over the columns of an inference. `expression_reader` makes them of their JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

COMPARISONS = frozenset({"Eq", "NotEq", "Lt", "LtEq", "Gt", "GtEq", "EqValidity", "NotEqValidity"})
LOGIC = frozenset({"And", "Or", "Xor"})
ARITHMETIC = frozenset({"Plus", "Minus", "Multiply", "TrueDivide", "FloorDivide", "Modulus"})
NUMBERS = ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64")
KINDS = frozenset({*NUMBERS, "Utf8", "Boolean", "Date"})  # besides Datetime, which has a unit
AGGREGATES = frozenset({"Min", "Max", "Mean", "Median", "Sum", "Count", "NUnique", "First", "Last", "Std", "Var"})


@dataclass(frozen=True, slots=True)
class Column:
    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """One value; None for the kind "Null"."""

    kind: str
    value: object


@dataclass(frozen=True, slots=True)
class Listed:
    """The values that membership is asked for; None among them is a null. Of kind "Null" when there is none."""

    kind: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Binary:
    op: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Call:
    """`function` is one of FUNCTIONS, `parameters` what it takes besides columns, by name."""

    function: str
    inputs: tuple[Node, ...]
    parameters: tuple[tuple[str, Any], ...] = ()

    def parameter(self, name: str) -> Any:
        return dict(self.parameters)[name]


@dataclass(frozen=True, slots=True)
class Cast:
    """`kind` is one of KINDS, or "Datetime" with a unit: "ms", "us" or "ns"."""

    inner: Node
    kind: str
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Ternary:
    predicate: Node
    truthy: Node
    falsy: Node


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One value of all rows. `ddof` is for Std and Var."""

    kind: str
    inner: Node
    ddof: int = 1


@dataclass(frozen=True, slots=True)
class Filter:
    inner: Node
    by: Node


@dataclass(frozen=True, slots=True)
class Explode:
    """Every value of every list; an empty list gives a null if `empty_as_null`."""

    inner: Node
    empty_as_null: bool = True


@dataclass(frozen=True, slots=True)
class RowCount:
    """How many rows there are."""


Node: TypeAlias = Column | Literal | Listed | Binary | Call | Cast | Ternary | Aggregate | Filter | Explode | RowCount


@dataclass(frozen=True, slots=True)
class Validation:
    """True marks an anomaly. `text` is the expression as it was sent."""

    name: str
    expression: Node
    text: str


# Takes so many inputs, and these parameters.
FUNCTIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    **dict.fromkeys(("Abs", "Exp", "Floor", "Ceil", "Log1p", "Negate", "Pow.Sqrt", "Pow.Cbrt"), (1, ())),
    "Round": (1, ("decimals", "mode")),
    "Log": (1, ("base",)),
    "Clip": (1, ("min", "max")),
    "Pow.Generic": (2, ()),
    "FillNull": (2, ()),
    **{f"Boolean.{name}": (1, ()) for name in ("IsNot", "IsNull", "IsNotNull", "IsNan", "IsNotNan", "IsFinite")},
    "Boolean.IsInfinite": (1, ()),
    "Boolean.IsIn": (2, ()),
    "Boolean.AnyHorizontal": (0, ()),  # any number
    "Boolean.AllHorizontal": (0, ()),
    **{f"ListExpr.{name}": (1, ()) for name in ("Sum", "Length", "Min", "Max", "Mean")},
    "ListExpr.Get": (2, ()),
    "ListExpr.Contains": (2, ()),
    "StringExpr.Contains": (2, ("literal",)),
    "StringExpr.StartsWith": (2, ()),
    "StringExpr.EndsWith": (2, ()),
    **{f"StringExpr.{name}": (1, ()) for name in ("NChars", "Lowercase", "Uppercase")},
    "StructExpr.FieldByName": (1, ("name",)),
}


def columns_of(node: Node) -> Iterator[str]:
    """The columns that an expression looks at, in the order in which they stand, repeated as they are."""
    match node:
        case Column(name):
            yield name
        case Binary(_, left, right):
            yield from columns_of(left)
            yield from columns_of(right)
        case Call(_, inputs):
            for each in inputs:
                yield from columns_of(each)
        case Ternary(predicate, truthy, falsy):
            for each in (predicate, truthy, falsy):
                yield from columns_of(each)
        case Filter(inner, by):
            yield from columns_of(inner)
            yield from columns_of(by)
        case Cast(inner) | Aggregate(_, inner) | Explode(inner):
            yield from columns_of(inner)


def computes_on_all_rows(node: Node) -> bool:
    """Whether what an expression says of a row hangs on other rows."""
    match node:
        case Aggregate() | Filter() | Explode() | RowCount():
            return True
        case Binary(_, left, right):
            return computes_on_all_rows(left) or computes_on_all_rows(right)
        case Call(_, inputs):
            return any(computes_on_all_rows(each) for each in inputs)
        case Ternary(predicate, truthy, falsy):
            return any(computes_on_all_rows(each) for each in (predicate, truthy, falsy))
        case Cast(inner):
            return computes_on_all_rows(inner)
    return False
