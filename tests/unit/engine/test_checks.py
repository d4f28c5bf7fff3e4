"""Validations give what polars gives, whichever polars wrote them down."""

from __future__ import annotations

import datetime
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from fixtures.polars.expressions import ROWS, expressions
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bettong.domain.expression_reader import parse_validation
from bettong.engine.checks import Checks, Rows
from bettong.errors import BadInput
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


# --- what the tables above do not have --------------------------------------------------------------------------------

DAYS = [datetime.date(2024, 1, 1), None, datetime.date(1969, 12, 31), datetime.date(2024, 2, 29)]
MOMENTS = [None if day is None else datetime.datetime(day.year, day.month, day.day, 12, 30, 0, 250_000) for day in DAYS]
OTHERS: dict[str, list[Any]] = {
    "day": DAYS,
    "moment": MOMENTS,
    "text": ["1.5", None, "-7", "x"],
    "struct": [{"a": 1, "b": "u"}, {"a": None, "b": "v"}, {"a": 3, "b": None}, {"a": 4, "b": "w"}],
    "nested": [[[1, 2], [3]], [], None, [[], [9]]],
    "number": [1.25, 2.5, None, -3.75],
    "count": [3, 250, None, -4],
}


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("day") > datetime.date(2024, 1, 1),
        pl.col("day") == datetime.date(2024, 1, 1),
        pl.col("moment") >= datetime.datetime(2024, 1, 1, 12),
        pl.col("moment") > pl.col("day"),
        pl.col("moment") < datetime.date(2024, 1, 2),
        pl.col("moment").cast(pl.Date) == pl.col("day"),
        pl.col("day").cast(pl.Datetime("ms")) < pl.col("moment"),
        pl.col("day").is_in([datetime.date(2024, 2, 29)]),
        pl.col("day") == pl.col("day").max(),
        pl.col("text").cast(pl.Float64, strict=False) > 1,
        pl.col("text").cast(pl.Int32, strict=False) < 0,
        pl.col("count").cast(pl.String) == "250",
        pl.col("count").cast(pl.UInt8, strict=False).is_null(),
        pl.col("number").cast(pl.Int8) == 2,
        pl.col("number").cast(pl.Boolean),
        pl.col("struct").struct.field("a") > 2,
        pl.col("struct").struct.field("b").is_in(["u", "w"]),
        pl.col("nested").list.get(0, null_on_oob=True).list.get(-1, null_on_oob=True) == 2,
        pl.col("nested").list.len() > 1,
        pl.col("number").round(1, mode="half_away_from_zero") == 1.3,
        pl.col("number").round(0) == 2.0,
        pl.col("number").std() > pl.col("number").abs(),
        pl.col("number").var() > pl.col("number"),
        pl.col("number").median() < pl.col("number"),
        pl.col("number").log(2) > 1,
        pl.col("number").log1p() > 1,
        pl.col("number").cbrt() < 0,
        pl.col("number").is_not_nan(),
        pl.col("count") ** 3 > 0,
        pl.col("number") ** pl.col("count") > 1,
        pl.lit(2) ** pl.col("count").abs() == 8,
        pl.col("text").str.to_lowercase() == "x",
        pl.col("number").clip(0, 2) == 2.0,
        pl.col("count").clip(upper_bound=5) == 5,
        pl.col("nested").explode().list.len().max() > 1,
        pl.lit(5, dtype=pl.Int8) < pl.col("count"),
        pl.lit(None) == pl.col("count"),
        pl.when(pl.lit(True)).then(pl.col("count") > 3).otherwise(None),
        pl.col("text").max() == pl.col("text"),
        pl.col("text") + "!" == "x!",
        pl.col("count").first() < pl.col("count").last() + 10,
    ],
    ids=str,
)
def test_dates_texts_structs_and_nested_lists_as_well(expression: pl.Expr) -> None:
    table = pl.DataFrame(OTHERS)
    answer = table.select(expression.alias("odd"))["odd"].to_list()

    assert marked(
        translate("odd", expression), {name: pa.array(values) for name, values in OTHERS.items()}
    ) == as_marks(answer)


LISTS = [[1.0, 2.0], None, [3.0, 4.0], [5.0, 6.0]]


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.large_list(pa.float64()), pa.list_(pa.float32(), 2)])
@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        (pl.col("l").list.get(1) > 3, [False, False, True, True]),
        (pl.col("l").list.sum() > 3, [False, False, True, True]),
        (pl.col("l").list.max() == 4, [False, False, True, False]),
        (pl.col("l").list.mean() == 1.5, [True, False, False, False]),
        (pl.col("l").list.contains(6.0), [False, False, False, True]),
        (pl.col("l").list.len() == 2, [True, False, True, True]),
        (pl.col("l").explode().count() == 6, [True] * 4),
        (pl.col("l").is_null(), [False, True, False, False]),
    ],
    ids=str,
)
def test_lists_of_every_kind_whole_or_sliced(kind: Any, expression: pl.Expr, answer: list[bool]) -> None:
    text = translate("odd", expression)
    whole = pa.array([[9.0, 9.0], *LISTS, [9.0, 9.0]], kind)

    assert marked(text, {"l": pa.array(LISTS, kind)}) == answer
    assert marked(text, {"l": whole.slice(1, 4)}) == answer
    assert marked(text, {"l": pa.array([], kind)}, rows=0) == []


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.float16(), [1.0, 3.0]),
        (pa.decimal128(5, 2), [1, 3]),
        (pa.uint64(), [1, 2**63]),
        (pa.int8(), [1, 3]),
        (pa.large_string(), ["1", "3"]),
        (pa.date64(), [0, 86_400_000 * 30_000]),
        (pa.timestamp("s"), [0, 2**33]),
        (pa.timestamp("ns", "UTC"), [0, 2**62]),
    ],
)
def test_columns_of_every_type_that_models_give_can_be_looked_at(kind: Any, values: list[Any]) -> None:
    limit: Any = "2" if pa.types.is_large_string(kind) else 2
    limit = datetime.date(2030, 1, 1) if pa.types.is_temporal(kind) else limit

    assert marked(translate("odd", pl.col("c") > limit), {"c": pa.array(values, kind)}, 2) == [False, True]


@pytest.mark.parametrize(
    ("expression", "marks"),
    [
        (pl.col("out.variable").list.get(2) < 0, [False, False, False, True]),
        ((pl.col("in.count") * 100).cast(pl.UInt8).is_null(), [True, False, True, True]),
        ((pl.col("in.count") ** (pl.col("in.count") - 6)).is_null(), [False, True, True, False]),
        (pl.col("in.text").cast(pl.Int64).is_null(), [True] * 4),
    ],
    ids=str,
)
def test_where_polars_raises_there_is_a_null_and_no_row_is_kept_from_its_answer(
    expression: pl.Expr, marks: list[bool]
) -> None:
    with pytest.raises(pl.exceptions.PolarsError):
        pl.DataFrame(ROWS).select(expression)

    assert marked(translate("odd", expression)) == marks


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (pl.col("out.gone") > 1, "looks at the column 'out.gone', which is not there. The columns at its step are: in"),
        (pl.col("out.score"), "gives Float64 values. Compare them"),
        (pl.col("in.text") > 1, "A Utf8 meets a Int64. Cast one of them"),
        (pl.col("in.text").abs() > 1, "Abs is asked of Utf8 values"),
        (pl.col("out.score").list.get(0) > 1, "A Float64 is taken for a list. Leave .list out"),
        (pl.col("out.variable") > 1, "A List is compared with a Int64. Compare its items, as .list.get"),
        (pl.col("out.score").str.contains("a"), "Float64 values are taken for texts"),
        (~pl.col("out.score"), "NOT is asked of Float64 values"),
        (pl.col("out.score") & pl.col("in.flag"), "And is asked of Float64 values. Compare them first"),
        (pl.col("in.flag") - pl.col("in.flag") > 0, "Minus is asked of two Boolean values"),
        (pl.col("out.score").struct.field("a") > 1, "A Float64 is asked for its field 'a'"),
        (pl.col("out.score").cast(pl.String) == "1", "A Float64 is cast to Utf8"),
        (pl.col("in.text").mean() > 1, "Mean is asked of Utf8 values"),
        (pl.when(pl.col("out.score")).then(True).otherwise(False), "Float64 values stand where True or False"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_columns_is_told_before_any_row_comes(expression: pl.Expr, words: str) -> None:
    with pytest.raises(BadInput, match=f"Validation 'odd'.*{re.escape(words)}"):
        marked(translate("odd", expression))


def test_a_column_of_bytes_is_refused_and_a_number_of_the_expression_takes_the_type_of_the_column() -> None:
    with pytest.raises(BadInput, match="looks at a column of type binary"):
        marked(translate("odd", pl.col("c") == "a"), {"c": pa.array([b"a"])}, 1)
    tenth = {"c": pa.array([0.1], pa.float32())}
    assert marked(translate("odd", pl.col("c") == 0.1), tenth, 1) == [True]
    assert marked(translate("odd", pl.col("c") == pl.lit(0.1, dtype=pl.Float64)), tenth, 1) == [False]
