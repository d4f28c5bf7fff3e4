"""JSON texts of numbers that are usual, odd, or none, for tests that compare two ways of reading them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

NUMBERS = [
    "0", "-0", "1", "-1", "127", "128", "-129", "255", "65504", "65520", "70000", "2147483648", "9007199254740993",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "-0.0", "0.1", "1.0", "1e5", "-1E-5", "16777217.0", "3.4028235e38",
    "3.4028236e38", "1e39", "1e308", "1e309", "1e400", "1e-400", "5e-324", "2.2250738585072011e-308",
    "0.1234567890123456789012345", "123456789012345678901234567890.5", "NaN", "01", "+1", "1.", ".5", "-",
]  # fmt: skip
OTHERS = ["null", "true", '"1"', '"["', '"\\u005b"', "{}", '{"x":[1]}', "", "[]", "[[]]", "[1]", "[[1],2]"]
LEAVES: list[Any] = [pa.int8(), pa.int64(), pa.uint8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64()]


@st.composite
def kinds(draw: st.DrawFn, depth: int = 3) -> Any:
    kind = draw(st.sampled_from(LEAVES))
    for _ in range(draw(st.integers(0, depth))):
        form = draw(st.sampled_from(["list", "large", "fixed"]))
        kind = pa.list_(kind, 2) if form == "fixed" else pa.large_list(kind) if form == "large" else pa.list_(kind)
    return kind


@st.composite
def texts(draw: st.DrawFn, kind: Any) -> str:
    """JSON that mostly fits the type."""
    luck = draw(st.integers(0, 150))
    if luck == 0:
        return draw(st.sampled_from(OTHERS))
    if not hasattr(kind, "value_type"):
        usual = st.integers(-5, 5).map(str) if pa.types.is_integer(kind) else st.floats(-5, 5).map(repr)
        return draw(usual if luck > 6 else st.sampled_from(NUMBERS))
    size = 2 if pa.types.is_fixed_size_list(kind) and luck > 2 else draw(st.integers(0, 3))
    inner = [draw(texts(kind.value_type)) for _ in range(size)]
    return f"[{draw(st.sampled_from(['', ' ']))}{','.join(inner)}]"


@st.composite
def bodies(draw: st.DrawFn, schema: pa.Schema, most_rows: int) -> bytes:
    """A pandas-records body for the schema, that now and then has a key or a byte too many or too few."""
    rows = []
    for _ in range(draw(st.integers(1, most_rows))):
        members = [f'"{field.name}":{draw(texts(field.type))}' for field in schema]
        change = draw(st.integers(0, 60))
        if change == 0:
            members.append(draw(st.sampled_from(members)))
        elif change == 1:
            members.append('"more":1')
        elif change == 2:
            members.pop()
        elif change == 3:
            members[0] = members[0].replace('"x"', '"\\u0078"')
        rows.append("{" + ",".join(draw(st.permutations(members))) + "}")
    edges = [("", ""), (" ", "\n")] * 9 + [("\ufeff", ""), ("", "x"), ("", ",")]
    before, after = draw(st.sampled_from(edges))
    return f"{before}[{','.join(rows)}]{after}".encode()


def schema_of(*kinds: Any) -> pa.Schema:
    return pa.schema([pa.field("xyz"[at], kind) for at, kind in enumerate(kinds)])
