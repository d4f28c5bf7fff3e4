"""Connections as a document: secrets are held back, and a mask in it is never taken for a value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bettong.domain.declarations import Declaration, filled, from_document, held_back, to_document, unanswered
from bettong.errors import BadInput

REFERENCE = {"$secret": "env:PASSWORD"}


def test_only_plain_fields_and_references_are_shown() -> None:
    details = {"host": "db", "port": 5432, "password": "hunter2", "key": REFERENCE, "other": {"a": ["x", REFERENCE]}}

    shown = held_back(details, {"host", "port"})

    assert shown == {
        "host": "db",
        "port": 5432,
        "password": "*****",
        "key": REFERENCE,
        "other": {"a": ["*****", REFERENCE]},
    }


@pytest.mark.parametrize("address", ["https://me:hunter2@host/x", "https://host/x?sig=hunter2", "redis://:hunter2@h"])
def test_an_address_that_may_carry_a_login_is_held_back_wherever_it_stands(address: str) -> None:
    assert held_back({"endpoint": address, "hosts": [address]}, {"endpoint", "hosts"}) == {
        "endpoint": "*****",
        "hosts": ["*****"],
    }
    assert held_back({"endpoint": "https://host:9000/x"}, {"endpoint"}) == {"endpoint": "https://host:9000/x"}


@pytest.mark.parametrize(
    ("stored", "places"),
    [
        ({}, ["password", "tls.key", "hosts[0]"]),
        ({"password": "*****", "tls": {"key": REFERENCE}, "hosts": ["*****"]}, []),
        ({"password": None, "tls": {"ca": "x"}, "hosts": ["a", "b"]}, ["tls.key", "hosts[0]"]),
        ({"password": "a", "tls": REFERENCE, "hosts": "a"}, ["tls.key", "hosts[0]"]),
    ],
)
def test_masks_that_stand_for_nothing_are_found_by_their_places(stored: dict[str, Any], places: list[str]) -> None:
    declared = {"host": "db", "password": "*****", "tls": {"key": "*****"}, "hosts": ["*****"], "a": REFERENCE}

    assert unanswered(declared, stored) == places


def test_values_go_where_masks_stand_and_nowhere_else() -> None:
    declared = {"host": "db", "tls": {"key": "*****"}, "hosts": ["*****", "*****"]}

    made = filled(declared, {"tls.key": REFERENCE, "hosts[1]": "b", "host": "never"})

    assert made == {"host": "db", "tls": {"key": REFERENCE}, "hosts": ["*****", "b"]}


def test_a_document_comes_back_as_it_was() -> None:
    declared = [
        Declaration("a", "POSTGRES", {"host": "db", "password": "*****"}, use_only=True, workspaces=("w", "v")),
        Declaration("b", "mongodb", {}),
    ]

    assert from_document(json.loads(json.dumps(to_document(declared)))) == declared


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ([], "does not say 'bettong_connections': 1"),
        ({"bettong_connections": 2, "connections": []}, "does not say"),
        ({"bettong_connections": 1}, "no list 'connections'"),
        ({"bettong_connections": 1, "connections": ["hunter2"]}, r"'connections\[0\]' is no object"),
        (
            {"bettong_connections": 1, "connections": [{"name": "a", "type": "b", "detials": {}}]},
            r"takes no \['detials",
        ),
        ({"bettong_connections": 1, "connections": [{"name": "a", "details": "hunter2"}]}, r"\['type', 'details'\]"),
        ({"bettong_connections": 1, "connections": [{"name": "a", "type": "b"}] * 2}, r"\['a'\] more than once"),
    ],
)
def test_what_is_no_document_is_told_without_its_values(document: object, told: str) -> None:
    with pytest.raises(BadInput, match=told) as refused:
        from_document(document)

    assert "hunter2" not in str(refused.value)
