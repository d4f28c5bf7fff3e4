"""The fast way for numbers gives what the general way gives, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from number_texts import bodies, kinds, schema_of

from bettong.engine.json_codec import decode_any_records, decode_records
from bettong.engine.json_numbers import COUNTED, KEPT_BYTES, LARGE_BYTES, decode_numbers, takes
from bettong.errors import BadInput


def agree(body: bytes, schema: pa.Schema) -> bool:
    """Whether the fast way took a body; where it did, the general way gives exactly the same."""
    found = decode_numbers(body, schema)
    if found is None:
        return False
    found.validate(full=True)
    general = decode_any_records(body, schema)
    assert found.schema == general.schema
    for ours, theirs in zip(found.columns, general.columns, strict=True):
        # repr tells -0.0 from 0.0 and has all digits
        assert repr(ours.to_pylist()) == repr(theirs.to_pylist())
    return True


@settings(max_examples=600, deadline=None)
@given(data=st.data())
def test_what_the_fast_way_takes_is_what_the_general_way_gives(data: st.DataObject) -> None:
    schema = schema_of(*[data.draw(kinds()) for _ in range(data.draw(st.integers(1, 3)))])
    body = data.draw(bodies(schema, most_rows=3))

    event("taken" if agree(body, schema) else "left")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.sampled_from([repr, "{:.25e}".format])
)
def test_every_float_has_the_bits_that_the_general_way_gives(numbers: list[float], written: Any) -> None:
    body = f'[{{"x":[{",".join(map(written, numbers))}]}}]'.encode()

    assert agree(body, schema_of(pa.list_(pa.float64())))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1))
def test_every_integer_has_its_value(numbers: list[int]) -> None:
    body = orjson.dumps([{"x": numbers}])
    fits = {
        pa.int64(): max(numbers) < 2**63,
        pa.uint64(): min(numbers) >= 0,
        pa.float64(): True,
    }

    for kind, fit in fits.items():
        assert agree(body, schema_of(pa.list_(kind))) == fit


RAGGED = [
    ('[{"x":[[1],2]}]', pa.list_(pa.float32())),
    ('[{"x":[[1,2],[]]}]', pa.list_(pa.float32())),
    ('[{"x":[[]]}]', pa.list_(pa.float32())),
    ('[{"x":[[1],[2]]}]', pa.list_(pa.float32())),
    ('[{"x":[1,2]}]', pa.list_(pa.list_(pa.float32()))),
    ('[{"x":[[1],2]}]', pa.list_(pa.list_(pa.float32()))),
    ('[{"x":[[[1]],[2]]}]', pa.list_(pa.list_(pa.float32()))),
    ('[{"x":[[[1],[2]],[[3],[4]]]}]', pa.list_(pa.list_(pa.float32()))),
    ('[{"x":[1]},{"x":[[2]]}]', pa.list_(pa.int64())),
    ('[{"x":[1],"y":[[2]]},{"x":[1],"y":[]}]', pa.list_(pa.int64())),
    ('[[{"x":[1]}]]', pa.list_(pa.int64())),
    ('{"x":[1]}', pa.list_(pa.int64())),
    ('[{"x":[1],"x":[2]}]', pa.list_(pa.int64())),
    ("[]", pa.list_(pa.int64())),
    ("\ufeff" + '[{"x":[1]}]', pa.list_(pa.int64())),
]


@pytest.mark.parametrize(("body", "kind"), RAGGED, ids=str)
def test_what_a_flat_buffer_would_hide_is_left_to_the_general_way(body: str, kind: Any) -> None:
    assert decode_numbers(body.encode(), schema_of(kind)) is None


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([{"x": [1.5, 2]}, {"x": [3]}, {"x": []}], [pa.list_(pa.float32())]),
        ([{"x": [[1], [], [2, 3]]}, {"x": []}], [pa.list_(pa.list_(pa.int8()))]),
        ([{"x": [[[1, 2], [3, 4]]], "y": 1, "z": -0.0}], [pa.list_(pa.list_(pa.list_(pa.uint8(), 2))), pa.int32(),
                                                         pa.float16()]),
    ],
)  # fmt: skip
def test_lists_of_any_length_are_taken(rows: list[Any], kinds: list[Any]) -> None:
    assert agree(orjson.dumps(rows), schema_of(*kinds))


def test_a_large_body_goes_the_fast_way_and_its_faults_are_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from bettong.engine import json_codec

    schema = schema_of(pa.list_(pa.float32()))
    body = orjson.dumps([{"x": list(range(18))}] * 1000)
    assert len(body) > LARGE_BYTES
    taken = []

    def noted(*arguments: Any) -> Any:
        taken.append(decode_numbers(*arguments))
        return taken[-1]

    monkeypatch.setattr(json_codec, "decode_numbers", noted)

    assert decode_records(body, schema).num_rows == 1000
    with pytest.raises(BadInput, match="Column 'x', row 999, item 17: tensor values may not be null"):
        decode_records(body[:-5] + b"null]}]", schema)
    assert [table is not None for table in taken] == [True, False]


def test_a_body_that_failed_does_not_spoil_the_next() -> None:
    schema = schema_of(pa.list_(pa.int64()))
    for bad in ('[{"x":[1.5]}]', '[{"x":[1', '[{"x":[[1]]}]', '[{"y":[1]}]'):
        assert decode_numbers(bad.encode(), schema) is None
        assert agree(b'[{"x":[1]}]', schema)


def test_lists_longer_than_simdjson_counts_are_left_to_the_general_way() -> None:
    body = b'[{"x":[' + b"1," * COUNTED + b"1]}]"
    assert len(body) > KEPT_BYTES

    assert decode_numbers(body, schema_of(pa.list_(pa.int8()))) is None
    assert decode_numbers(body[:7] + body[9:-5] + b"]}]", schema_of(pa.list_(pa.int8()))) is not None


@pytest.mark.parametrize(
    ("kinds", "taken"),
    [
        ([pa.list_(pa.float32())], True),
        ([pa.int8(), pa.list_(pa.list_(pa.int8()), 2)], True),
        ([pa.float32()], False),
        ([pa.list_(pa.bool_())], False),
        ([pa.list_(pa.float32()), pa.string()], False),
        ([pa.list_(pa.timestamp("ms"))], False),
    ],
)
def test_only_numbers_go_the_fast_way(kinds: list[Any], taken: bool) -> None:
    assert takes(schema_of(*kinds)) is taken


def test_the_answer_does_not_keep_the_parser() -> None:
    schema = schema_of(pa.list_(pa.float64()))
    first = decode_numbers(b'[{"x":[1.5,2.5]}]', schema)
    assert first is not None
    decode_numbers(b'[{"x":[7,8]}]', schema)

    kept: Any = first.column("x").chunk(0)
    assert np.array_equal(kept.values, [1.5, 2.5])
