"""Two answers to the same rows: what counts as equal, and statistics beside those of all rows at once by numpy."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from bettong.domain.agreement import Agreement

if TYPE_CHECKING:
    from collections.abc import Sequence

NAN, INF = float("nan"), float("inf")


def same(before: Any, after: Any, tolerance: float = 1e-6) -> list[bool]:
    """Which rows of one column are equal."""
    found = Agreement(tolerance).add(pa.table({"x": before}), pa.table({"x": after}))
    return [bool(each) for each in found]


def column(agreement: Agreement, name: str = "x") -> dict[str, Any]:
    document = json.loads(json.dumps(agreement.document(), allow_nan=False))
    (found,) = [each for each in document["columns"] if each["column"] == name]
    return dict(found)


def in_parts(before: pa.Table, after: pa.Table, rows: int) -> Agreement:
    agreement = Agreement(1e-6)
    for start in range(0, before.num_rows, rows):
        agreement.add(before.slice(start, rows), after.slice(start, rows))
    return agreement


# --- equal ----------------------------------------------------------------------------------------------------------


def test_floats_are_equal_within_an_absolute_and_a_relative_tolerance() -> None:
    before = pa.array([0.0, 0.0, 1e9, 1e9, NAN, NAN, INF, INF, -INF])
    after = pa.array([9e-7, 2e-6, 1e9 + 999, 1e9 + 1001, NAN, 1.0, INF, -INF, -INF])

    assert same(before, after) == np.isclose(after, before, rtol=1e-6, atol=1e-6, equal_nan=True).tolist()
    assert same(before, after) == [True, False, True, False, True, False, True, False, True]
    assert same(pa.array([1.0]), pa.array([1.0 + 1e-12]), tolerance=0) == [False]


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (pa.int8(), 1, 2),
        (pa.uint64(), 2**64 - 1, 2**64 - 2),
        (pa.bool_(), True, False),
        (pa.string(), "a", "b"),
        (pa.large_string(), "a", "A"),
        (pa.binary(), b"a", b"b"),
        (pa.date32(), date(2026, 1, 1), date(2026, 1, 2)),
        (pa.timestamp("ms"), datetime(2026, 1, 1), datetime(2026, 1, 2)),
        (pa.timestamp("us", "UTC"), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)),
        (pa.decimal128(5, 2), Decimal("1.00"), Decimal("1.01")),
    ],
    ids=str,
)
def test_all_else_is_equal_when_it_is_the_same(kind: Any, one: object, other: object) -> None:
    before, after = pa.array([one, one, None, one], kind), pa.array([one, other, None, None], kind)

    assert same(before, after) == [True, False, True, False]


def test_numbers_of_other_widths_are_compared_as_numbers() -> None:
    assert same(pa.array([1, -1], pa.int8()), pa.array([1, -1], pa.int64())) == [True, True]
    assert same(pa.array([-1, 2**63 - 1]), pa.array([2**64 - 1, 2**63 - 1], pa.uint64())) == [False, True]
    assert same(pa.array([1, 2]), pa.array([1.0, 2.5])) == [True, False]
    assert same(pa.array([0.1], pa.float32()), pa.array([0.1])) == [True]
    assert same(pa.array(["a"]), pa.array(["a"], pa.large_string())) == [True]


def test_what_is_of_another_kind_is_never_equal() -> None:
    assert same(pa.array([1]), pa.array(["1"])) == [False]
    assert same(pa.array([1]), pa.array([True])) == [False]
    assert same(pa.array([[1]]), pa.array([1])) == [False]


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())], ids=str)
def test_lists_are_equal_when_all_their_items_are(kind: Any) -> None:
    before = pa.array([[1, 2], [1, 2], [1, 2], [], None, None, [NAN], [None]], kind)
    after = pa.array([[1, 2], [1, 3], [1], [], None, [], [NAN], [None]], kind)

    assert same(before, after) == [True, False, False, True, True, False, True, True]


def test_lists_in_lists_and_those_of_fixed_size_are_compared_to_their_items() -> None:
    fixed = pa.list_(pa.list_(pa.int32(), 2), 2)
    before = pa.array([[[1, 2], [3, 4]], [[1, 2], [3, 4]], [[5, 6], [7, 8]]], fixed)
    after = pa.array([[[1, 2], [3, 4]], [[1, 2], [3, 5]], [[5, 6], [7, 8]]], pa.list_(pa.list_(pa.int64())))

    assert same(before, after) == [True, False, True]
    assert same(before.slice(1), after.slice(1)) == [False, True]


def test_structs_are_equal_when_their_fields_are_wherever_they_stand() -> None:
    before = pa.array([{"a": 1.0, "b": "x"}, {"a": 1.0, "b": "x"}, None])
    after = pa.array([{"b": "x", "a": 1.0 + 1e-9}, {"b": "y", "a": 1.0}, None])

    assert same(before, after) == [True, False, True]
    assert same(before, pa.array([{"a": 1.0}, {"a": 1.0}, None])) == [False, False, True]


def test_empty_columns_of_lists_are_compared() -> None:
    for kind in (
        pa.list_(pa.float32()),
        pa.large_list(pa.string()),
        pa.list_(pa.int8(), 3),
        pa.struct([pa.field("a", pa.int8())]),
    ):
        assert same(pa.array([], kind), pa.array([], kind)) == []
    assert same(pa.array([[], []], pa.list_(pa.int8())), pa.array([[], [1]], pa.list_(pa.int8()))) == [True, False]


NESTED: list[Any] = [
    pa.list_(pa.int16()),
    pa.list_(pa.list_(pa.float64())),
    pa.list_(pa.float32(), 2),
    pa.large_list(pa.string()),
    pa.list_(pa.struct([pa.field("a", pa.int8()), pa.field("b", pa.list_(pa.bool_()))])),
    pa.struct([pa.field("a", pa.list_(pa.float64(), 3)), pa.field("b", pa.string())]),
]


@pytest.mark.parametrize("kind", NESTED, ids=str)
@pytest.mark.parametrize("seed", range(10))
def test_whatever_is_nested_is_equal_as_its_values_in_python_are(kind: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = [made_up(kind, rng) for _ in range(40)]
    after = [b if rng.random() < 0.5 else made_up(kind, rng) for b in before]

    found = same(pa.array([None, *before], kind).slice(1), pa.array([*after, None], kind).slice(0, 40))

    assert found == [b == a for b, a in zip(before, after, strict=True)]
    assert any(found)
    assert not all(found)


def made_up(kind: Any, rng: np.random.Generator) -> Any:
    """A value of a type, out of few: nulls, empty lists and equal ones come up often."""
    if rng.random() < 0.2:
        return None
    if pa.types.is_fixed_size_list(kind):
        return [made_up(kind.value_type, rng) for _ in range(kind.list_size)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return [made_up(kind.value_type, rng) for _ in range(int(rng.integers(0, 3)))]
    if pa.types.is_struct(kind):
        return {kind.field(i).name: made_up(kind.field(i).type, rng) for i in range(kind.num_fields)}
    return {"string": "ab", "bool": [False, True]}.get(str(kind), [0, 1])[int(rng.integers(0, 2))]


def test_a_row_is_equal_when_all_columns_are_that_both_have() -> None:
    agreement = Agreement(1e-6)

    found = agreement.add(
        pa.table({"x": [1, 2, 3], "y": [1, 1, 1]}), pa.table({"y": [1, 1, 2], "x": [1, 0, 3], "z": [0] * 3})
    )

    assert found.tolist() == [True, False, False]
    document = agreement.document()
    assert (document["rows"], document["equal"]) == (3, 1)
    assert {c["column"]: c["equal"] for c in document["columns"]} == {"x": 2, "y": 2}
    assert (document["only_before"], document["only_after"]) == ({}, {"z": 3})


def test_without_a_column_that_both_have_no_row_is_equal() -> None:
    agreement = Agreement(1e-6)

    assert agreement.add(pa.table({"x": [1]}), pa.table({"y": [1]})).tolist() == [False]
    assert (agreement.document()["only_before"], agreement.document()["only_after"]) == ({"x": 1}, {"y": 1})


# --- statistics -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_statistics_of_numbers_are_those_of_all_rows_at_once(offset: float) -> None:
    rng = np.random.default_rng(5)
    before = rng.normal(size=9_000) + offset
    after = before + rng.normal(scale=0.1, size=9_000) * (rng.random(9_000) < 0.3)

    found = column(in_parts(pa.table({"x": pa.array(before)}), pa.table({"x": pa.array(after)}), 700))

    apart = after - before
    assert found["rows"] == found["values"] == 9_000
    assert found["equal"] == np.isclose(after, before, rtol=1e-6, atol=1e-6).sum()
    assert found["mean_abs"] == pytest.approx(np.abs(apart).mean(), rel=1e-9)
    assert found["max_abs"] == np.abs(apart).max()
    assert found["pearson"] == pytest.approx(np.corrcoef(before, after)[0, 1], rel=1e-7)
    for q, estimated in found["quantiles"].items():
        true = np.quantile(apart, float(q), method="lower")
        assert abs(estimated - true) <= 0.01 * abs(true) + 1e-12


def test_items_of_lists_are_values() -> None:
    rng = np.random.default_rng(6)
    lengths = rng.integers(0, 4, 500)
    before = [rng.normal(size=n).tolist() for n in lengths]
    after = [[value + 0.5 for value in row] for row in before]

    found = column(in_parts(pa.table({"x": before}), pa.table({"x": after}), 60))

    assert found["values"] == lengths.sum()
    assert found["mean_abs"] == pytest.approx(0.5)
    assert found["equal"] == (lengths == 0).sum()


def test_what_is_not_finite_stays_out_of_the_statistics_of_numbers() -> None:
    before, after = pa.table({"x": [1.0, NAN, INF, 2.0, None]}), pa.table({"x": [2.0, NAN, 1.0, 2.0, 3.0]})

    found = column(in_parts(before, after, 2))

    assert (found["rows"], found["values"], found["not_finite"]) == (5, 2, 2)
    assert (found["mean_abs"], found["max_abs"]) == (0.5, 1.0)


def test_numbers_too_large_for_their_squares_have_no_correlation() -> None:
    huge = pa.table({"x": [1.7e308, -1.7e308, 1.0]})

    found = column(in_parts(huge, pa.table({"x": [-1.7e308, 1.7e308, 1.0]}), 2))

    assert found["pearson"] is None
    assert found["max_abs"] is None


def kappa(before: Sequence[object], after: Sequence[object]) -> float:
    """Cohen's kappa as his paper has it, of all pairs at once."""
    classes = sorted({*before, *after}, key=str)
    table = np.array(
        [
            [sum(b == one and a == other for b, a in zip(before, after, strict=True)) for other in classes]
            for one in classes
        ]
    )
    shares = table / table.sum()
    by_chance = (shares.sum(0) * shares.sum(1)).sum()
    return float((np.trace(shares) - by_chance) / (1 - by_chance))


@pytest.mark.parametrize("classes", [[0, 1, 2], ["cat", "dog"], [False, True]], ids=str)
def test_classes_have_kappa_and_a_confusion_table(classes: list[Any]) -> None:
    rng = np.random.default_rng(7)
    before = [classes[n] for n in rng.integers(0, len(classes), 400)]
    after = [
        classes[n] if changed else b
        for n, changed, b in zip(rng.integers(0, len(classes), 400), rng.random(400) < 0.3, before, strict=True)
    ]

    found = column(in_parts(pa.table({"x": before}), pa.table({"x": after}), 33))

    assert found["kappa"] == pytest.approx(kappa(before, after))
    assert found["confusion"]["values"] == sorted(classes)
    pairs = list(zip(before, after, strict=True))
    assert found["confusion"]["counts"] == [
        [pairs.count((one, other)) for other in sorted(classes)] for one in sorted(classes)
    ]


def test_one_class_alone_has_no_kappa() -> None:
    found = column(in_parts(pa.table({"x": [1, 1]}), pa.table({"x": [1, 1]}), 2))

    assert found["kappa"] is None
    assert found["confusion"] == {"values": [1], "counts": [[2]]}


def test_beyond_twenty_values_there_is_kappa_and_no_table() -> None:
    before, after = pa.table({"x": list(range(21)) * 2}), pa.table({"x": [*range(21), *[0] * 21]})

    found = column(in_parts(before, after, 10))

    assert found["kappa"] == pytest.approx(kappa(before["x"].to_pylist(), after["x"].to_pylist()))
    assert "confusion" not in found


def test_ids_and_long_texts_are_no_classes() -> None:
    ids = pa.table({"x": list(range(10_001)), "text": ["x" * 201] * 10_001})

    agreement = in_parts(ids, ids, 3_000)

    assert "kappa" not in column(agreement)
    assert "kappa" not in column(agreement, "text")
    assert column(agreement)["max_abs"] == 0


def test_classes_in_lists_of_one_are_classes() -> None:
    found = column(in_parts(pa.table({"x": [[1], [0], [1]]}), pa.table({"x": [[1], [1], [1]]}), 2))

    assert found["confusion"] == {"values": [0, 1], "counts": [[0, 1], [0, 2]]}


def test_a_column_of_another_kind_says_both_types() -> None:
    agreement = Agreement(1e-6)
    agreement.add(pa.table({"x": [1]}), pa.table({"x": ["1"]}))

    assert column(agreement) == {"column": "x", "types": [["int64", "string"]], "rows": 1, "equal": 0, "share": 0.0}


def test_nothing_compared_is_no_share() -> None:
    document = Agreement(1e-6).document()

    assert (document["rows"], document["share"], document["columns"]) == (0, None, [])
