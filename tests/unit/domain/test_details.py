"""Details: a mask is never a value, a change touches what it names, and only names of fields are told."""

from __future__ import annotations

from typing import Any

import pytest

from bettong.domain.details import Changes, changed, difference, masked, refuse_masks, replaced
from bettong.errors import BadInput

STORED: dict[str, Any] = {
    "host": "db",
    "password": "old",
    "tls": {"key": "k", "certificates": ["a", "b"]},
    "null": None,
}


@pytest.mark.parametrize(
    ("sent", "made"),
    [
        ({}, STORED),
        ({"password": "new"}, {**STORED, "password": "new"}),
        ({"password": "*****", "port": 5432}, {**STORED, "port": 5432}),
        ({"tls": {"key": "*****"}}, STORED),
        ({"tls": {"key": "new"}}, {**STORED, "tls": {"key": "new", "certificates": ["a", "b"]}}),
        ({"tls": {"certificates": ["*****", "c"]}}, {**STORED, "tls": {"key": "k", "certificates": ["a", "c"]}}),
        ({"tls": {"certificates": ["c"]}}, {**STORED, "tls": {"key": "k", "certificates": ["c"]}}),
        ({"tls": {"$secret": "env:TLS"}}, {**STORED, "tls": {"$secret": "env:TLS"}}),
        ({"password": {"$secret": "env:P"}}, {**STORED, "password": {"$secret": "env:P"}}),
        ({"null": "*****"}, STORED),
        ({"password": "a*****"}, {**STORED, "password": "a*****"}),
    ],
)
def test_a_change_touches_what_it_names_and_a_mask_keeps(sent: dict[str, Any], made: dict[str, Any]) -> None:
    assert changed(STORED, sent) == made


def test_a_reference_is_replaced_whole() -> None:
    assert changed({"key": {"$secret": "env:A"}}, {"key": {"kind": "json"}}) == {"key": {"kind": "json"}}
    assert changed({"key": {"$secret": "env:A"}}, {"key": "*****"}) == {"key": {"$secret": "env:A"}}


def test_fields_are_dropped_by_name() -> None:
    assert changed(STORED, {"host": "x"}, remove=["null", "tls"]) == {"host": "x", "password": "old"}
    with pytest.raises(BadInput, match="Field 'user' is not there to be removed"):
        changed(STORED, {}, remove=["user"])
    with pytest.raises(BadInput, match="'host' is to be removed and set at once"):
        changed(STORED, {"host": "x"}, remove=["host"])


def test_a_replacement_drops_what_it_does_not_name_at_any_depth() -> None:
    sent = {"password": "*****", "tls": {"certificates": ["*****", "*****"]}}

    assert replaced(STORED, sent) == {"password": "old", "tls": {"certificates": ["a", "b"]}}


@pytest.mark.parametrize(
    ("sent", "place"),
    [
        ({"user": "*****"}, "user"),
        ({"tls": {"ca": "*****"}}, "tls.ca"),
        ({"host": {"name": "*****"}}, "host.name"),
        ({"tls": {"certificates": ["*****"]}}, r"tls.certificates\[0\]"),  # which of the two would it mean?
        ({"hosts": [{"password": "*****"}]}, r"hosts\[0\].password"),
    ],
)
def test_a_mask_that_stands_for_nothing_is_refused_with_its_place(sent: dict[str, Any], place: str) -> None:
    with pytest.raises(BadInput, match=rf"Field '{place}' is \*\*\*\*\*"):
        changed(STORED, sent)
    with pytest.raises(BadInput, match=rf"Field '{place}' is \*\*\*\*\*"):
        replaced(STORED, sent)
    with pytest.raises(BadInput, match=rf"Field '{place}' is \*\*\*\*\*"):
        refuse_masks(sent)


def test_details_without_a_mask_pass() -> None:
    refuse_masks({**STORED, "stars": "****", "more": ["******", {"a": "* * * * *"}]})


def test_what_is_shown_is_masked_but_for_references_and_can_be_sent_back() -> None:
    stored = {**STORED, "key": {"$secret": "vault:kv/pg#key"}, "empty": {}, "port": 5}

    shown = masked(stored)

    assert shown == {
        "host": "*****",
        "password": "*****",
        "tls": {"key": "*****", "certificates": ["*****", "*****"]},
        "null": "*****",
        "key": {"$secret": "vault:kv/pg#key"},
        "empty": {},
        "port": "*****",
    }
    assert replaced(stored, shown) == stored


def test_a_difference_tells_names_alone() -> None:
    after = {"host": "db", "password": "new", "tls": {"key": "k", "certificates": ["a"], "ca": "c"}, "port": True}

    assert difference({**STORED, "port": 1}, after) == Changes(
        added=("tls.ca",), removed=("null",), changed=("password", "port", "tls.certificates")
    )
    assert difference(STORED, dict(STORED)) == Changes()
    assert difference({"n": 1}, {"n": 1.0}) == Changes(changed=("n",))
