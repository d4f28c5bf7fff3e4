"""Validations: which rows of an answer are anomalies. polars is not asked; the tree is evaluated here, as it would.

Where polars raises for a value (an item that a list does not have, a cast that does not hold), there is a null here,
and a null is no anomaly: a validation marks rows, it never keeps one from its answer.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from bettong.domain.expressions import (
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
    columns_of,
)
from bettong.engine import check_aggregates as aggregates
from bettong.engine import check_lists as lists
from bettong.engine import check_numbers as numbers
from bettong.engine.check_values import DTYPES, FLOATS, NDArray, Value, as_kind, cast, load, nulls
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bettong.domain.expressions import Node, Validation
    from bettong.engine.arrow_types import Array

_DYNAMIC = frozenset({"Int32", "Int64", "UInt64", "Float64"})  # how plain numbers of Python are written


class Checks:
    """Validations that look at columns of known types.

    Raises:
        BadInput: one looks at a column that is not there, does not fit its type, or gives something else than True or
            False; names the validation.
    """

    def __init__(self, validations: Sequence[Validation], columns: Mapping[str, pa.DataType]) -> None:
        self._validations = tuple(validations)
        known = ", ".join(sorted(columns))
        for validation in validations:
            if missing := [name for name in columns_of(validation.expression) if name not in columns]:
                raise BadInput(
                    f"Validation '{validation.name}' looks at the column '{missing[0]}', which is not there.",
                    f"The columns at its step are: {known}.",
                )
        self.columns = frozenset(name for v in validations for name in columns_of(v.expression))
        nothing = Rows({name: pa.array([], columns[name]) for name in self.columns}, 0)
        for validation in validations:
            try:
                with np.errstate(all="ignore"):
                    kind = nothing.value(validation.expression).kind
            except BadInput as wrong:
                raise BadInput(f"Validation '{validation.name}': {wrong.problem}", wrong.next_step) from None
            if kind not in ("Boolean", "Null"):
                raise BadInput(
                    f"Validation '{validation.name}' gives {kind} values.", "Compare them: it is to be True or False."
                )

    def marks(self, columns: Mapping[str, Array], rows: int) -> list[NDArray]:
        """For each validation, which rows are anomalies; each of shape (rows,).

        `columns` has at least `self.columns`.
        """
        at_hand, found = Rows(columns, rows), []
        with np.errstate(all="ignore"):
            for validation in self._validations:
                value = at_hand.value(validation.expression)
                marked = np.zeros(len(value), bool) if value.kind == "Null" else value.data
                if value.valid is not None and value.kind != "Null":
                    marked = marked & value.valid
                found.append(np.broadcast_to(marked, (rows,)) if len(marked) != rows else marked)
        return found


class Rows:
    """The columns of one request, each read at most once."""

    def __init__(self, columns: Mapping[str, Array], count: int) -> None:
        self._columns, self._count = columns, count
        self._loaded: dict[str, Value] = {}

    def value(self, node: Node) -> Value:
        match node:
            case Column(name):
                if (known := self._loaded.get(name)) is None:
                    known = self._loaded[name] = load(self._columns[name])
                return known
            case Literal(kind, given):
                return _literal(kind, given)
            case Binary(op, left, right):
                return numbers.binary(op, self.value(left), self.value(right))
            case Call():
                return self._called(node)
            case Cast(inner, kind, unit):
                return cast(self.value(inner), kind, unit)
            case Ternary(predicate, truthy, falsy):
                return numbers.chosen(self.value(predicate), self.value(truthy), self.value(falsy))
            case Aggregate(kind, inner, ddof):
                return aggregates.aggregate(kind, self.value(inner), ddof)
            case Filter(inner, by):
                return aggregates.kept(self.value(inner), self.value(by))
            case Explode(inner, empty_as_null):
                return lists.exploded(self.value(inner), empty_as_null=empty_as_null)
            case RowCount():
                return Value("UInt32", np.array([self._count], np.uint32))
            case Listed():
                raise BadInput("A list of values stands where a column is needed.", "Use it with is_in() only.")

    def _called(self, call: Call) -> Value:
        family, _, name = call.function.rpartition(".")
        if family == "Boolean":
            return self._boolean(call, name)
        if family == "ListExpr":
            return self._list(call, name)
        first = self.value(call.inputs[0])
        if family == "StringExpr":
            if len(call.inputs) == 1:
                return numbers.text_function(name, first)
            pattern = call.inputs[1]
            assert isinstance(pattern, Literal)  # the parser takes no other
            literal = name == "Contains" and bool(call.parameter("literal"))
            return numbers.text_test(name, first, str(pattern.value), literal=literal)
        match call.function:
            case "StructExpr.FieldByName":
                return lists.field_of(first, call.parameter("name"))
            case "Pow.Generic":
                return numbers.power(first, self.value(call.inputs[1]))
            case "FillNull":
                return numbers.filled(first, self.value(call.inputs[1]))
            case "Round":
                return numbers.rounded(first, call.parameter("decimals"), call.parameter("mode"))
            case "Log":
                return numbers.logarithm(first, call.parameter("base"))
            case "Clip":
                return numbers.clipped(first, call.parameter("min"), call.parameter("max"))
        return numbers.unary(call.function, first)

    def _boolean(self, call: Call, name: str) -> Value:
        first = self.value(call.inputs[0])
        match name:
            case "IsNull":
                return Value("Boolean", ~first.there)
            case "IsNotNull":
                return Value("Boolean", first.there)
            case "IsNot":
                return numbers.inverted(first)
            case "IsIn":
                listed = call.inputs[1]
                assert isinstance(listed, Listed)  # the parser takes no other
                return numbers.is_in(first, listed.kind, listed.values)
            case "AnyHorizontal" | "AllHorizontal":
                values = [first, *(self.value(each) for each in call.inputs[1:])]
                return numbers.any_of(values, "Or" if name == "AnyHorizontal" else "And")
        return numbers.number_test(name, first)

    def _list(self, call: Call, name: str) -> Value:
        first = self.value(call.inputs[0])
        match name:
            case "Get":
                return lists.item_of(first, self.value(call.inputs[1]))
            case "Contains":
                return lists.contains(first, self.value(call.inputs[1]), numbers.equal)
            case "Length":
                return lists.length_of(first)
            case "Sum":
                return lists.sum_of(first)
            case "Mean":
                return lists.mean_of(first)
        return lists.extreme_of(first, np.fmax if name == "Max" else np.fmin)


@lru_cache(maxsize=1024)
def _literal(kind: str, given: Any) -> Value:
    if kind == "Null":
        return nulls(1)
    dtype = DTYPES[kind]
    if kind in _DYNAMIC:
        wide = np.float64 if kind in FLOATS else np.uint64 if kind == "UInt64" else np.int64
        return Value("Int64" if kind == "Int32" else kind, np.array([given], wide), dynamic=True)
    return as_kind(Value(kind, np.array([given], dtype)), kind)
