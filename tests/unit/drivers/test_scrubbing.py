"""A known secret does not get out in any usual spelling."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettong.drivers.scrubbing import MASK, Scrubber

SECRET = "pä ss/w+ord&'\"\\"


def scrubber(*secrets: str) -> Scrubber:
    made = Scrubber()
    made.learn(secrets)
    return made


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode().rstrip("="),
    ],
)
def test_every_spelling_is_masked(spelled: str) -> None:
    clean = scrubber(SECRET).clean(f"before {spelled} after")

    assert spelled not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")


@given(before=st.text(max_size=9), after=st.text(max_size=9))
def test_a_secret_within_a_longer_base64_text_is_torn(before: str, after: str) -> None:
    login = base64.b64encode(f"{before}{SECRET * 2}{after}".encode()).decode()

    clean = scrubber(SECRET * 2).clean(login)

    assert MASK in clean


def test_short_values_are_no_patterns_and_lines_are_masked_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nabcdefghij\nklmnopqrst\n-----END KEY-----"

    clean = scrubber("ab", "", key).clean("ab absolutely: klmnopqrst")

    assert clean == f"ab absolutely: {MASK}"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert scrubber("secret", "secret-and-more").clean("x secret-and-more y") == f"x {MASK} y"
