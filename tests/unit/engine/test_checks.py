"""Validations give what polars gives, whichever polars wrote them down."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from fixtures.polars.expressions import ROWS, expressions
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bettong.domain.expressions import parse_validation
from bettong.engine.checks import Checks, Rows
from wallaroo._expressions import in_dialect, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FIXTURES = sorted((Path(__file__).parents[2] / "fixtures" / "polars").glob("*.json"))
COLUMNS: dict[str, Any] = {name: pa.array(values) for name, values in ROWS.items()}


def marked(text: str, columns: Mapping[str, Any] = COLUMNS, rows: int = 4) -> list[bool]:
    checks = Checks([parse_validation(text)], {name: array.type for name, array in columns.items()})
    (marks,) = checks.marks(columns, rows)
    found: list[bool] = marks.tolist()
    return found


def as_marks(answer: list[bool | None], rows: int = 4) -> list[bool]:
    """What polars answered, as marks: a null is none, and one value stands for all rows."""
    return [bool(value) for value in (answer * rows if len(answer) == 1 else answer)]


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_what_each_polars_wrote_gives_what_that_polars_answered(path: Path) -> None:
    fixture = json.loads(path.read_text())

    assert fixture["polars"] == path.stem
    assert len(fixture["expressions"]) > 50
    for name, found in fixture["expressions"].items():
        text = in_dialect(name, json.dumps(found["tree"]))
        assert marked(text) == as_marks(found["answer"]), (name, text)


def test_the_fixtures_are_of_three_generations_and_of_the_same_expressions() -> None:
    fixtures = [json.loads(path.read_text()) for path in FIXTURES]

    assert {fixture["polars"].split(".")[0] for fixture in fixtures} == {"0", "1", "2"}
    assert all(fixture["expressions"].keys() == expressions(pl).keys() for fixture in fixtures)


def test_what_polars_018_wrote_is_the_dialect_itself() -> None:
    fixture = json.loads((FIXTURES[0].parent / "0.18.15.json").read_text())

    for name, found in fixture["expressions"].items():
        assert marked(json.dumps(found["tree"])) == as_marks(found["answer"]), name


# --- any expression against polars itself -----------------------------------------------------------------------------

FLOATS = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 0.5, -2.5, 1e30, 3.0]), st.floats(width=32))
TYPES: dict[str, tuple[Any, Any, st.SearchStrategy[Any]]] = {
    "i8": (pa.int8(), pl.Int8, st.one_of(st.none(), st.integers(-128, 127))),
    "i32": (pa.int32(), pl.Int32, st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1))),
    "i64": (pa.int64(), pl.Int64, st.one_of(st.none(), st.integers(-(2**40), 2**40))),
    "u8": (pa.uint8(), pl.UInt8, st.one_of(st.none(), st.integers(0, 255))),
    "u32": (pa.uint32(), pl.UInt32, st.one_of(st.none(), st.integers(0, 2**32 - 1))),
    "f32": (pa.float32(), pl.Float32, FLOATS),
    "f64": (pa.float64(), pl.Float64, FLOATS),
    "b": (pa.bool_(), pl.Boolean, st.one_of(st.none(), st.booleans())),
    "s": (pa.string(), pl.String, st.one_of(st.none(), st.sampled_from(["", "a", "b", "ab", "ä", "A"]))),
    "li": (pa.list_(pa.int64()), pl.List(pl.Int64), st.none() | st.lists(st.none() | st.integers(-9, 9), max_size=4)),
    "lf": (pa.list_(pa.float32()), pl.List(pl.Float32), st.none() | st.lists(FLOATS, max_size=4)),
}
NUMBERS = ("i8", "i32", "i64", "u8", "u32", "f32", "f64")


def plain_zero(total: pl.Expr) -> pl.Expr:
    """The sum of nothing is 0 in one place of polars and -0.0 in another, which shows when it divides something."""
    return pl.when(total != 0).then(total).otherwise(0)


def numbers(depth: int) -> st.SearchStrategy[pl.Expr]:
    """Expressions that give numbers."""
    columns = st.sampled_from([pl.col(name) for name in NUMBERS])
    from_lists = st.one_of(
        st.tuples(st.sampled_from(["li", "lf"]), st.integers(-5, 4)).map(
            lambda t: pl.col(t[0]).list.get(t[1], null_on_oob=True)
        ),
        st.sampled_from(["li", "lf"]).flatmap(
            lambda n: st.sampled_from(
                [plain_zero(pl.col(n).list.sum()), pl.col(n).list.max(), pl.col(n).list.min(), pl.col(n).list.len()]
            )
        ),
    )
    if depth == 0:
        return st.one_of(columns, columns, from_lists, st.just(pl.col("s").str.len_chars()))
    inner = numbers(depth - 1)
    literal = st.one_of(st.integers(-300, 70_000), st.sampled_from([0, 1, 2, 0.5, -1.5, 3.0]))
    operators: list[Callable[[Any, Any], pl.Expr]] = [
        lambda a, b: a + b,
        lambda a, b: a - b,
        lambda a, b: a * b,
        lambda a, b: a / b,
        lambda a, b: a // b,
        lambda a, b: a % b,
        lambda a, b: a.fill_null(b),
    ]
    applied = st.sampled_from(operators)
    functions: list[Callable[[pl.Expr], pl.Expr]] = [
        lambda a: a.abs(),
        lambda a: a.floor(),
        lambda a: a.ceil(),
        lambda a: -a,
        lambda a: a.max(),
        lambda a: a.min(),
        lambda a: plain_zero(a.sum()),
        lambda a: a.count(),
        lambda a: a.n_unique(),
        lambda a: a.first(),
        lambda a: a.last(),
        lambda a: a.filter(pl.col("b")).max(),
        lambda a: a.clip(-3, 5),
        lambda a: a.cast(pl.Int16, strict=False),
        lambda a: a.cast(pl.UInt32, strict=False),
        lambda a: a.cast(pl.Float32, strict=False),
        lambda a: a**2,
        lambda a: a.round(0),
    ]
    return st.one_of(
        inner,
        st.tuples(applied, inner, inner).map(lambda t: t[0](t[1], t[2])),
        st.tuples(applied, inner, literal).map(lambda t: t[0](t[1], t[2])),
        st.tuples(st.sampled_from(functions), inner).map(lambda t: t[0](t[1])),
        st.tuples(truths(0), inner, inner).map(lambda t: pl.when(t[0]).then(t[1]).otherwise(t[2])),
    )


def truths(depth: int) -> st.SearchStrategy[pl.Expr]:
    """Expressions that give True or False."""
    texts = st.sampled_from(
        [
            pl.col("s") == "a",
            pl.col("s") > "a",
            pl.col("s").is_in(["a", "ä"]),
            pl.col("s").str.contains("[ab]$"),
            pl.col("s").str.contains(".", literal=True),
            pl.col("s").str.ends_with("b"),
            pl.col("s").str.to_uppercase() == "A",
            pl.col("li").list.contains(2),
            pl.col("li").list.get(0, null_on_oob=True).is_in([1, 2, None]),
            pl.col("lf").is_null(),
            pl.col("b"),
            pl.col("b").eq_missing(None),
        ]
    )
    if depth == 0:
        return texts
    compare: list[Callable[[Any, Any], pl.Expr]] = [
        lambda a, b: a > b,
        lambda a, b: a >= b,
        lambda a, b: a < b,
        lambda a, b: a <= b,
        lambda a, b: a == b,
        lambda a, b: a != b,
        lambda a, b: a.eq_missing(b),
    ]
    inner, amounts = truths(depth - 1), numbers(depth - 1)
    literal = st.one_of(st.integers(-300, 70_000), st.sampled_from([0, 1, 0.5, -2.5, 2**33]))
    logic: list[Callable[[pl.Expr, pl.Expr], pl.Expr]] = [
        lambda a, b: a & b,
        lambda a, b: a | b,
        lambda a, b: a ^ b,
        lambda a, b: pl.any_horizontal(a, b),
        lambda a, b: pl.all_horizontal(a, b),
    ]
    return st.one_of(
        st.tuples(st.sampled_from(compare), amounts, amounts).map(lambda t: t[0](t[1], t[2])),
        st.tuples(st.sampled_from(compare), amounts, literal).map(lambda t: t[0](t[1], t[2])),
        st.tuples(st.sampled_from(logic), inner, inner).map(lambda t: t[0](t[1], t[2])),
        inner.map(lambda a: ~a),
        amounts.map(lambda a: a.is_null()),
        amounts.map(lambda a: a.is_between(-1, 100)),
        amounts.map(lambda a: a.is_nan()),
        inner,
    )


def tables() -> st.SearchStrategy[dict[str, list[Any]]]:
    return st.integers(1, 6).flatmap(
        lambda rows: st.fixed_dictionaries(
            {name: st.lists(values, min_size=rows, max_size=rows) for name, (_, _, values) in TYPES.items()}
        )
    )


GENEROUS = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def polars_answer(values: dict[str, list[Any]], expression: pl.Expr) -> pl.Series:
    """What polars makes of it; the example does not count where polars raises, for there a row has no mark."""
    table = pl.DataFrame({name: pl.Series(values[name], dtype=kind) for name, (_, kind, _) in TYPES.items()})
    try:
        return table.select(expression.alias("any"))["any"]
    except pl.exceptions.PolarsError:
        assume(False)
        raise


def arrow_columns(values: dict[str, list[Any]]) -> dict[str, Any]:
    return {name: pa.array(values[name], kind) for name, (kind, _, _) in TYPES.items()}


@GENEROUS
@given(tables(), truths(3))
def test_any_validation_marks_the_rows_that_polars_marks(values: dict[str, list[Any]], expression: pl.Expr) -> None:
    rows = len(values["b"])
    text = translate("any", expression)
    answer = polars_answer(values, expression)

    assert marked(text, arrow_columns(values), rows) == as_marks(answer.to_list(), rows), (text, values)


@GENEROUS
@given(tables(), st.one_of(numbers(1), numbers(1), numbers(2), truths(1), truths(2)))
def test_every_part_of_a_validation_has_the_type_and_the_values_that_polars_gives_it(
    values: dict[str, list[Any]], expression: pl.Expr
) -> None:
    answer = polars_answer(values, expression)
    assume(answer.dtype not in (pl.Int128, pl.UInt128))  # these mixtures are floats here
    text = translate("any", expression)

    with np.errstate(all="ignore"):
        found = Rows(arrow_columns(values), len(values["b"])).value(parse_validation(text).expression)

    if len(answer) == 1:  # polars makes one null of a comparison with a lone null, whatever stands beside it
        answer = pl.concat([answer] * len(found))
    assert found.kind == str(answer.dtype), text
    assert found.there.tolist() == answer.is_not_null().to_list(), text
    for ours, theirs in zip(found.data[found.there].tolist(), answer.drop_nulls().to_list(), strict=True):
        same = ours == theirs or (isinstance(theirs, float) and math.isclose(ours, theirs, rel_tol=1e-5))
        assert same or (ours != ours and theirs != theirs), (text, ours, theirs)
