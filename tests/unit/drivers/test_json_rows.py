"""JSON is taken apart the same way wherever the pieces are cut."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bettong.drivers import json_rows
from bettong.errors import BadInput

TEXT = st.text(max_size=8)
RECORD = st.fixed_dictionaries(
    {"a": TEXT, "b": st.lists(TEXT, min_size=1, max_size=3), "c": st.fixed_dictionaries({"d": TEXT})}
)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[n : n + size] for n in range(0, len(data), size)]


def rows(data: bytes, size: int = 10_000, *, lines: bool = False, batch_rows: int = 100) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        json_rows.read(pieces(data, size), batch_rows, None, lines=lines).read_all().to_pylist()
    )
    return found


@settings(deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=8), size=st.integers(1, 40), indent=st.sampled_from([None, 2]))
def test_an_array_of_objects_is_the_same_rows_however_it_is_cut(
    records: list[dict[str, Any]], size: int, indent: int | None
) -> None:
    data = json.dumps(records, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    if b"\xed" in data:  # lone surrogates are no JSON text
        return

    assert rows(data, size, batch_rows=3) == records


@settings(deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=8), size=st.integers(1, 40))
def test_lines_are_the_same_rows_however_they_are_cut(records: list[dict[str, Any]], size: int) -> None:
    data = b"\n".join(json.dumps(record).encode() for record in records)

    assert rows(data, size, lines=True) == records


@pytest.mark.parametrize(
    "data", [b'{"a": 1}', b'{"a": 1}\n{"a": 2}', b'[{"a": 1},{"a": 2}]\n', b' [ {"a":1} , {"a":2} ] ']
)
def test_one_object_and_objects_in_a_row_are_rows_too(data: bytes) -> None:
    assert [row["a"] for row in rows(data)] in ([1], [1, 2])


@pytest.mark.parametrize("data", [b"", b"[]", b" [ ] "])
def test_nothing_is_no_rows(data: bytes) -> None:
    assert rows(data) == []


@pytest.mark.parametrize(
    "data", [b"[", b'[{"a": 1}', b'[{"a": 1}, {"a', b"hello", b"[1, 2]", b'["a"]', b'[{"a": 1}}', b"]"]
)
def test_what_is_no_array_of_objects_is_an_error(data: bytes) -> None:
    for size in (1, 1000):
        with pytest.raises(BadInput):
            rows(data, size)


def test_texts_that_look_like_dates_stay_texts_in_every_batch() -> None:
    data = b"".join(b'{"at": "2024-01-01 00:00:00"}\n' for _ in range(10))

    table = json_rows.read([data], 3, None, lines=True).read_all()

    assert table.schema.field("at").type == pa.string()
    assert table.num_rows == 10


def test_a_field_that_comes_later_is_told_and_not_dropped() -> None:
    data = b'{"a": 1}\n' * 5 + b'{"a": 1, "late": 2}\n'

    with pytest.raises(BadInput, match="After 5 records"):
        json_rows.read([data], 5, None, lines=True).read_all()
