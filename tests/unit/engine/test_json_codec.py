from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.engine.json_codec import decode_columns, decode_records
from bettong.errors import BadInput

COUNT = pa.schema([pa.field("count", pa.list_(pa.int32()))])
UTC = dt.UTC


def one(kind: Any, *values: Any) -> list[Any]:
    """The decoded column `x` of these JSON values."""
    schema = pa.schema([pa.field("x", kind)])
    table = decode_records(orjson.dumps([{"x": value} for value in values]), schema)
    table.validate(full=True)
    assert table.schema == schema
    return table.column("x").to_pylist()


def refusal(schema: pa.Schema, body: bytes) -> str:
    with pytest.raises(BadInput) as refused:
        decode_records(body, schema)
    return str(refused.value)


@pytest.mark.parametrize(
    ("kind", "sent", "kept"),
    [
        (pa.bool_(), True, True),
        (pa.int8(), -128, -128),
        (pa.uint64(), 2**64 - 1, 2**64 - 1),
        (pa.int64(), -(2**63), -(2**63)),
        (pa.float16(), 1.5, 1.5),
        (pa.float32(), 3, 3.0),
        (pa.float32(), 2**60 + 1, float(2**60)),
        (pa.float64(), 2**64 - 1, float(2**64 - 1)),
        (pa.float64(), -0.1, -0.1),
        (pa.string(), "grüß\u0000", "grüß\u0000"),
        (pa.large_string(), "", ""),
        (pa.binary(), "AAEC", b"\x00\x01\x02"),
        (pa.large_binary(), "", b""),
        (pa.timestamp("ms"), 1_752_681_130_155, dt.datetime(2025, 7, 16, 15, 52, 10, 155000)),
        (pa.timestamp("us", "UTC"), 1000, dt.datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        (pa.timestamp("s"), -2000, dt.datetime(1969, 12, 31, 23, 59, 58)),
        (pa.timestamp("us"), "2025-07-16T15:52:10.155", dt.datetime(2025, 7, 16, 15, 52, 10, 155000)),
        (pa.timestamp("us"), "2025-07-16T15:52:10+02:00", dt.datetime(2025, 7, 16, 13, 52, 10)),
        (pa.timestamp("ms", "UTC"), "2025-07-16T15:52:10", dt.datetime(2025, 7, 16, 15, 52, 10, tzinfo=UTC)),
        (pa.timestamp("ms"), "2025-07-16", dt.datetime(2025, 7, 16)),
        (pa.date32(), "2025-07-16", dt.date(2025, 7, 16)),
        (pa.date64(), 86_400_000, dt.date(1970, 1, 2)),
        (pa.decimal128(6, 2), "1234.5", Decimal("1234.50")),
        (pa.decimal128(6, 2), 0.1, Decimal("0.10")),
        (pa.decimal128(6, 2), 7, Decimal("7.00")),
        (pa.decimal128(3, -2), "12300", Decimal("1.23E+4")),
        (pa.list_(pa.int32()), [], []),
        (pa.list_(pa.list_(pa.float32())), [[1], [], [2.5, 3]], [[1.0], [], [2.5, 3.0]]),
        (pa.list_(pa.float32(), 2), [1, 2.5], [1.0, 2.5]),
        (pa.large_list(pa.string()), ["a", "b"], ["a", "b"]),
        (pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))]), {"b": ["x"], "a": 1}, {"a": 1, "b": ["x"]}),
        (pa.list_(pa.struct([("a", pa.bool_())])), [{"a": True}], [{"a": True}]),
    ],
    ids=str,
)
def test_values_of_every_type_arrive_as_that_type(kind: Any, sent: Any, kept: Any) -> None:
    assert one(kind, sent) == [kept]


def test_times_with_and_without_an_offset_may_stand_side_by_side() -> None:
    assert one(pa.timestamp("ms"), "2025-01-01T00:00:00Z", "2025-01-01T01:00:00") == [
        dt.datetime(2025, 1, 1),
        dt.datetime(2025, 1, 1, 1),
    ]


SMALL = pa.decimal128(4, 2)
REFUSED = [
    # type, value in row 1, what the refusal says
    (pa.int32(), 1.0, "number with a decimal point"),
    (pa.int32(), 1.5, "number with a decimal point"),
    (pa.int32(), True, "found a boolean, expected an integer"),
    (pa.int32(), "7", "found a text, expected an integer"),
    (pa.int32(), None, "tensor values may not be null"),
    (pa.int32(), [7], "found a list"),
    (pa.int32(), {"a": 7}, "found an object"),
    (pa.int8(), 128, "out of the range of int8"),
    (pa.uint8(), -1, "Send integers from 0 to 255"),
    (pa.float32(), True, "found a boolean, expected a number"),
    (pa.float32(), "7.0", "found a text, expected a number"),
    (pa.float32(), None, "tensor values may not be null"),
    (pa.float32(), 1e300, "out of the range of float"),
    (pa.float16(), 70000, "out of the range of halffloat"),
    (pa.bool_(), 1, "expected true or false"),
    (pa.string(), 7, "found an integer, expected a text"),
    (pa.binary(), "§", "base64"),
    (pa.binary(), "AAE", "base64"),
    (pa.timestamp("ms"), 1.5, "milliseconds since the epoch"),
    (pa.timestamp("ms"), "2025-01-01", "all rows alike"),
    (pa.timestamp("us"), "yesterday", "no timestamp[us]"),
    (pa.timestamp("us"), "2025-13-01", "ISO-8601"),
    (pa.timestamp("ns"), 2**62, "cannot hold"),
    (pa.timestamp("s"), 1500, "cannot hold"),
    (pa.timestamp("ms"), 2**64 - 1, "cannot hold"),
    (pa.date32(), "16.7.2025", "ISO text"),
    (pa.date32(), 1, "midnight"),
    (pa.date32(), 86_400_000 * 10**10, "midnight"),
    (SMALL, "100", "without rounding"),
    (SMALL, "0.001", "without rounding"),
    (SMALL, "NaN", "without rounding"),
    (SMALL, "1e9999999", "without rounding"),
    (SMALL, "abc", "without rounding"),
    (pa.list_(pa.int32()), 7, "found an integer, expected a list"),
    (pa.list_(pa.string()), "abc", "found a text, expected a list"),
    (pa.list_(pa.int32()), [1, 2, None], "item 2: tensor values may not be null"),
    (pa.list_(pa.int32()), [1, [2]], "item 1: found a list"),
    (pa.list_(pa.float32(), 3), [1, 2], "found a list of 2 values, expected exactly 3"),
    (pa.list_(pa.list_(pa.int8())), [[1], [2, 300]], "item 1, item 1: found an integer out of the range"),
    (pa.struct([("a", pa.int32())]), {}, "lacks the field 'a'"),
    (pa.struct([("a", pa.int32())]), {"a": 1, "b": 2}, "a field too many"),
    (pa.struct([("a", pa.int32())]), {"a": None}, "field 'a': tensor values may not be null"),
    (pa.struct([("a", pa.int32())]), [1], "found a list, expected an object with a"),
]
GOOD: dict[Any, Any] = {
    pa.bool_(): True,
    pa.string(): "a",
    pa.binary(): "AAEC",
    pa.timestamp("us"): "2025-07-16T00:00:00",
    pa.date32(): "2025-07-16",
    SMALL: "1.5",
    pa.list_(pa.int32()): [4, 5, 6],
    pa.list_(pa.string()): ["a"],
    pa.list_(pa.float32(), 3): [1, 2, 3],
    pa.list_(pa.list_(pa.int8())): [[1], [2, 3]],
    pa.struct([("a", pa.int32())]): {"a": 1},
}


@pytest.mark.parametrize(("kind", "value", "words"), REFUSED, ids=str)
def test_a_value_that_does_not_fit_is_named_by_column_and_row(kind: Any, value: Any, words: str) -> None:
    good = GOOD.get(kind, 1000)
    if pa.types.is_integer(kind):
        good = 1
    body = orjson.dumps([{"x": good}, {"x": value}, {"x": good}])

    text = refusal(pa.schema([pa.field("x", kind)]), body)

    assert text.startswith("Column 'x', row 1")
    assert words in text


def test_a_refusal_repeats_no_value() -> None:
    for value in (123456789123, "my secret", ["my secret"], {"my secret": 123456789123}):
        text = refusal(pa.schema([pa.field("x", pa.int32())]), orjson.dumps([{"x": value}]))
        assert "secret" not in text
        assert "123456789123" not in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'[{"count": [1, oops]}]', "line 1, column 16"),
        (b'[{"count": [NaN]}]', "knows no NaN"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON"),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "not JSON"),
        (b"null", "The body is null. Send a non-empty list of objects, one per row, each with: count."),
        (b"7", "The body is an integer."),
        (b'{"count": [1]}', "The body is an object."),
        (b"[]", "The body has no row."),
        (b"[[1]]", "Row 0 of the body is a list."),
        (b'[{"count": [1]}, null]', "Row 1 of the body is null."),
        (b"[{}]", "Row 0 of the body lacks the column 'count'. The expected columns are: count."),
        (b'[{"count": [1]}, {"coumt": [1]}]', "Row 1 of the body lacks the column 'count'."),
        (b'[{"count": [1], "extra": 2}]', "Row 0 of the body has the extra column 'extra'."),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_is_no_list_of_rows_is_told_what_is_expected(body: bytes, words: str) -> None:
    assert words in refusal(COUNT, body)


def test_many_extra_columns_do_not_make_an_endless_message() -> None:
    body = orjson.dumps([{"count": [1], **{f"c{i}" * 50: 1 for i in range(1000)}}])

    assert len(refusal(COUNT, body)) < 3000


def test_columns_of_the_old_form_are_rows_too() -> None:
    schema = pa.schema([pa.field("a", pa.float32()), pa.field("b", pa.list_(pa.int8(), 2))])

    table = decode_columns(b'{"b": [[1, 2], [3, 4]], "a": [1, 2.5]}', schema)

    assert table.to_pylist() == [{"a": 1.0, "b": [1, 2]}, {"a": 2.5, "b": [3, 4]}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "The body is a list"),
        (b"{}", "lacks the columns 'a', 'b'"),
        (b'{"a": [], "b": []}', "no row"),
        (b'{"a": [1], "b": [1, 2]}', "different lengths: [1, 2]"),
        (b'{"a": 1, "b": [1]}', "Column 'a' is an integer"),
        (b'{"a": [1], "b": [1], "c": [1]}', "extra column 'c'"),
        (b'{"a": [1], "b": [null]}', "Column 'b', row 0: tensor values may not be null"),
    ],
)
def test_bad_columns_of_the_old_form_are_refused(body: bytes, words: str) -> None:
    schema = pa.schema([pa.field("a", pa.int8()), pa.field("b", pa.int8())])
    with pytest.raises(BadInput) as refused:
        decode_columns(body, schema)
    assert words in str(refused.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["", "1", "2025-01-01", "2025-01-01T00:00:00Z", "AAEC", "1e5", "NaN", "\ud800"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "x"]), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.recursive(
    st.sampled_from(
        [
            pa.bool_(), pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string(), pa.binary(),
            pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.date32(), pa.date64(),
            pa.decimal128(5, 2), pa.decimal128(38, 10),
        ]
    ),
    lambda inner: inner.map(pa.list_)
    | inner.map(lambda kind: pa.list_(kind, 2))
    | inner.map(lambda kind: pa.struct([("a", kind)])),
    max_leaves=3,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(kind=KINDS, values=st.lists(JSON, min_size=1, max_size=3))
def test_whatever_json_comes_it_fits_or_is_bad_input(kind: Any, values: list[Any]) -> None:
    import json

    schema = pa.schema([pa.field("x", kind)])
    body = json.dumps([{"x": value} for value in values]).encode()
    try:
        table = decode_records(body, schema)
    except BadInput:
        return
    table.validate(full=True)
    assert table.schema == schema
    assert table.column("x").null_count == 0
    assert table.num_rows == len(values)
