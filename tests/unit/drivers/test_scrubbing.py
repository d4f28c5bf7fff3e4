"""A known secret does not get out in any usual spelling."""

from __future__ import annotations

import base64
import html
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
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        quote(SECRET).replace("%C3%A4", "%c3%a4").replace("%2B", "%2b").replace("%5C", "%5c"),
        json.dumps(json.dumps(SECRET))[3:-3],
        html.escape(SECRET),
    ],
)
def test_every_spelling_is_masked(spelled: str) -> None:
    clean = scrubber(SECRET).clean(f"before {spelled} after")

    assert spelled not in clean
    assert clean.startswith("before ")
    assert clean.endswith(" after")


@given(
    secret=st.text(min_size=5, max_size=24).filter(lambda text: len(text.strip()) >= 5 and len(text.splitlines()) == 1),
    before=st.binary(max_size=9),
    after=st.binary(max_size=9),
)
def test_a_secret_of_any_length_that_counts_is_found_within_a_longer_base64_text(
    secret: str, before: bytes, after: bytes
) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        login = encode(before + secret.encode() + after).decode()

        assert MASK in scrubber(secret).clean(login)


@given(short=st.text(max_size=4), text=st.text(max_size=60))
def test_a_value_shorter_than_five_characters_is_never_a_pattern(short: str, text: str) -> None:
    assert scrubber(short, f"  {short}\n", "").clean(text) == text
    assert scrubber(short).clean(quote(short) + json.dumps(short)) == quote(short) + json.dumps(short)


def test_short_values_are_no_patterns_and_lines_are_masked_one_by_one() -> None:
    key = "-----BEGIN KEY-----\nabcdefghij\nklmnopqrst\n-----END KEY-----"

    clean = scrubber("ab", "", key).clean("ab absolutely: klmnopqrst")

    assert clean == f"ab absolutely: {MASK}"


def test_the_longer_of_two_secrets_is_masked_whole() -> None:
    assert scrubber("secret", "secret-and-more").clean("x secret-and-more y") == f"x {MASK} y"
