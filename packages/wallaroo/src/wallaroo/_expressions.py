"""Validations as they go over the wire: the user's polars expression, in the dialect of polars 0.18.

Every polars writes its expressions as JSON, and each generation in a way of its own. They are told apart by what they
wrote, not by version numbers. What this does not know is sent as it is: the platform refuses it by its name.
"""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Node = Any  # a piece of JSON

_CLOSED = {"Both": ("GtEq", "LtEq"), "Left": ("GtEq", "Lt"), "Right": ("Gt", "LtEq"), "None": ("Gt", "Lt")}
_RENAMED = {
    ("Boolean", "Not"): "IsNot",
    ("ListExpr", "Get"): "Get",
    ("ListExpr", "Contains"): "Contains",
    ("StringExpr", "LenChars"): "NChars",
}


def translate(name: str, expression: object) -> str:
    """The text of one validation.

    Raises:
        TypeError: it is no polars expression.
        ValueError: this polars cannot write it down, or it says something that the dialect has no word for.
    """
    if not _is_expression(expression):
        raise TypeError(
            f"Validation '{name}' is a {type(expression).__name__}, not a polars expression. "
            "Pass one that is True for an anomaly, such as pl.col('out.variable').list.get(0) > 1_500_000."
        )
    return in_dialect(name, _written(name, expression))


def in_dialect(name: str, text: str) -> str:
    """The same of what a polars wrote. Raises ValueError as above."""
    tree = json.loads(text)
    try:
        return json.dumps({"Alias": [_node(tree), name]}, separators=(",", ":"))
    except _NoWord as missing:
        raise ValueError(f"Validation '{name}' uses {missing}, which validations cannot. Say it another way.") from None


class _NoWord(Exception):
    """Something that the dialect cannot say."""


def _is_expression(value: object) -> bool:
    """Without importing polars: whoever made one has it."""
    return any(kind.__name__ == "Expr" and kind.__module__.split(".")[0] == "polars" for kind in type(value).__mro__)


def _written(name: str, expression: Any) -> str:
    """The JSON that the polars of `expression` writes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer ones warn that another version may not read it: we do
        try:
            if not hasattr(expression.meta, "serialize"):
                return str(expression.meta.write_json())
            try:
                return str(expression.meta.serialize(format="json"))
            except TypeError:
                return str(expression.meta.serialize())
        except Exception as refused:  # a ValueError in old ones, a ComputeError in new ones, without a common kind
            raise ValueError(
                f"Validation '{name}' has a part that the installed polars cannot write down: {refused}. "
                "Functions of Python and, before polars 1, list.max(), list.mean() and list.eval() are such parts."
            ) from None


def _node(node: Node) -> Node:
    if node == "Len":
        return "Count"
    if not isinstance(node, dict) or len(node) != 1:
        return node
    ((kind, body),) = node.items()
    if (change := _CHANGES.get(kind)) is not None:
        return change(body)
    return {kind: _inside(body)}


def _inside(body: Node) -> Node:
    """The same with every node in it changed."""
    if isinstance(body, dict):
        return {key: _node(value) if isinstance(value, (dict, str)) else _inside(value) for key, value in body.items()}
    return [_node(item) for item in body] if isinstance(body, list) else body


def _column(body: Node) -> Node:
    return {"Column": body}


def _alias(body: Node) -> Node:
    return _node(body[0])  # a name inside of an expression says nothing: the validation has its own


def _literal(body: Node) -> Node:
    if not isinstance(body, dict):
        return {"Literal": body}
    ((kind, value),) = body.items()
    if kind == "Dyn":
        ((kind, value),) = value.items()
    match kind:
        case "Int":
            return _integer(value)
        case "Float":
            return _float(value)
        case "Str" | "String":
            return {"Literal": {"Utf8": value}}
        case "Series":
            return _series(value)
        case "Scalar":
            return _scalar(value["value"] if isinstance(value, dict) and set(value) == {"dtype", "value"} else value)
        case "Float64":
            return _float(value)
    return {"Literal": {kind: value}}


def _integer(value: int) -> Node:
    kind = "Int32" if -(2**31) <= value < 2**31 else "Int64" if -(2**63) <= value < 2**63 else "UInt64"
    return {"Literal": {kind: value}}


def _float(value: float | None) -> Node:
    if value is None:
        raise _NoWord("NaN or an infinity as a value; use is_nan(), is_finite() or is_infinite()")
    return {"Literal": {"Float64": value}}


def _scalar(value: Node) -> Node:
    if not isinstance(value, dict):
        return {"Literal": "Null"}
    ((kind, given),) = value.items()
    match kind:
        case "Null":
            return {"Literal": "Null"}
        case "String":
            return {"Literal": {"Utf8": given}}
        case "Boolean":
            return {"Literal": {"Boolean": given}}
        case "List" | "Array":
            return _series(given)
        case "Date":
            return _cast_to({"Literal": {"Int32": given}}, "Date")
        case "Datetime" | "DatetimeOwned":
            moment, unit, zone = given
            if zone is not None:
                raise _NoWord("a time with a time zone")
            return _cast_to({"Literal": {"Int64": moment}}, {"Datetime": [unit, None]})
    if kind.startswith(("Int", "UInt")):  # the user gave it this type: it does not take that of the column
        return _cast_to(_integer(given), kind)
    if kind.startswith("Float"):
        return _cast_to(_float(given), kind)
    return {"Literal": {kind: given}}


def _series(given: Node) -> Node:
    if isinstance(given, list):
        given = _from_arrow(given)
    kind = {"String": "Utf8"}.get(given["datatype"], given["datatype"]) if isinstance(given["datatype"], str) else None
    if kind is None:
        raise _NoWord(f"a list of {given['datatype']}")
    if any(value is None for value in given["values"]) and kind.startswith("Float"):
        given = {**given, "values": [value for value in given["values"] if value is not None]}
    series = {"name": "", "datatype": kind, "bit_settings": "", "values": given["values"]}
    return {"Literal": {"Series": series}}


def _from_arrow(content: list[int]) -> Mapping[str, Any]:
    """The one column of an Arrow stream, which newer polars write for a list of values."""
    import pyarrow as pa

    column = pa.ipc.open_stream(bytes(content)).read_all().column(0)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or str(kind) == "string_view":
        name = "Utf8"
    elif pa.types.is_boolean(kind):
        name = "Boolean"
    elif pa.types.is_null(kind):
        name = "Null"
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        name = {"float": "Float32", "double": "Float64"}.get(str(kind)) or str(kind).replace("int", "Int").replace(
            "uI", "UI"
        )
    elif pa.types.is_date32(kind):
        name, column = "Date", column.cast(pa.int32())
    else:
        raise _NoWord(f"a list of {kind}")
    return {"datatype": name, "values": column.to_pylist()}


def _cast(body: Node) -> Node:
    kind = body.get("data_type", body.get("dtype"))
    if isinstance(kind, dict) and set(kind) == {"Literal"}:
        kind = kind["Literal"]
    return _cast_to(_node(body["expr"]), "Utf8" if kind == "String" else kind)


def _cast_to(inner: Node, kind: Node) -> Node:
    return {"Cast": {"expr": inner, "data_type": kind, "strict": True}}


def _aggregate(body: Node) -> Node:
    ((kind, given),) = body.items()
    if kind == "Count" and (isinstance(given, list) or set(given) == {"input", "include_nulls"}):
        inner, with_nulls = given if isinstance(given, list) else (given["input"], given["include_nulls"])
        if with_nulls:
            raise _NoWord("len() of a column; use count(), or pl.len()")
        return {"Agg": {"Count": _node(inner)}}
    if isinstance(given, list):  # Std and Var: the column and how many degrees of freedom are taken off
        return {"Agg": {kind: [_node(given[0]), *given[1:]]}}
    if isinstance(given, dict) and "propagate_nans" in given:
        return {"Agg": {kind: {**given, "input": _node(given["input"])}}}
    return {"Agg": {kind: _node(given) if isinstance(given, dict) and len(given) == 1 else _inside(given)}}


def _explode(body: Node) -> Node:
    if "input" not in body:
        return {"Explode": _node(body)}
    options = body.get("options", {})
    if not options.get("keep_nulls", True):
        raise _NoWord("explode(keep_nulls=False); filter with is_not_null() first")
    inner = _node(body["input"])
    if options.get("empty_as_null", not body.get("skip_empty", False)):
        return {"Explode": inner}
    return {"Explode": {"input": inner, "options": {"empty_as_null": False}}}


def _function(body: Node) -> Node:
    inputs = [_node(each) for each in body["input"]]
    function = body["function"]
    family, name, parameters = _parts(function)
    match family, name:
        case None, "Negate":
            return _binary({"Literal": {"Int32": 0}}, "Minus", inputs[0])
        case None, "Log" if len(inputs) == 2:
            return _call(inputs[:1], {"Log": {"base": float(_number(inputs[1]))}})
        case None, "Clip" if isinstance(parameters, dict) and "has_min" in parameters:
            bounds = [_bound(each) for each in inputs[1:]]
            least = bounds.pop(0) if parameters["has_min"] else None
            most = bounds.pop(0) if parameters["has_max"] else None
            return _call(inputs[:1], {"Clip": {"min": least, "max": most}})
        case None, "FillNull":
            return _call(inputs, {"FillNull": {"super_type": "Unknown"}})
        case "Boolean", "IsBetween":
            low, high = _CLOSED[parameters["closed"]]
            value, least, most = inputs
            return _binary(_binary(value, low, least), "And", _binary(value, high, most))
        case "Boolean", "IsIn":
            if isinstance(parameters, dict) and parameters.get("nulls_equal"):
                raise _NoWord("is_in(nulls_equal=True); add | ….is_null()")
            return _call(inputs, {"Boolean": "IsIn"})
    if (known := _RENAMED.get((family or "", name))) is not None:
        return _call(inputs, {family: known})
    return _call(inputs, function)


def _parts(function: Node) -> tuple[str | None, str, Any]:
    """Family, name and parameters of a function: {"Boolean": {"IsBetween": {…}}}, {"Boolean": "Not"}, "Abs"."""
    if isinstance(function, str):
        return None, function, None
    ((family, body),) = function.items()
    if family not in ("Boolean", "ListExpr", "StringExpr", "StructExpr", "Pow"):
        return None, family, body
    if isinstance(body, str):
        return family, body, None
    ((name, parameters),) = body.items()
    return family, name, parameters


def _call(inputs: list[Node], function: Node) -> Node:
    return {"Function": {"input": inputs, "function": function, "options": {}}}


def _binary(left: Node, op: str, right: Node) -> Node:
    return {"BinaryExpr": {"left": left, "op": op, "right": right}}


def _bound(node: Node) -> Node:
    number = _number(node)
    return {"Int64" if isinstance(number, int) else "Float64": number}


def _number(node: Node) -> int | float:
    literal = node.get("Literal") if isinstance(node, dict) else None
    value = next(iter(literal.values())) if isinstance(literal, dict) and len(literal) == 1 else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _NoWord("a function with another expression where a number is needed")
    return value


_CHANGES: dict[str, Callable[[Node], Node]] = {
    "Column": _column,
    "Alias": _alias,
    "Literal": _literal,
    "Cast": _cast,
    "Agg": _aggregate,
    "Explode": _explode,
    "Function": _function,
}
