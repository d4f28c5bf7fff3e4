"""Details that do not fit are told in words of ours: what should be there, what is, what to do, and never a value."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import Field, SecretStr

from bettong.drivers.details import Details, check, check_beside
from bettong.drivers.postgres import PostgresDetails
from bettong.drivers.sqlite import SqliteDetails
from bettong.errors import BadInput


class Model(Details):
    name: str = Field("", max_length=3)
    port: int = Field(1, ge=1, le=9)
    share: float = 0.5
    on: bool = False
    mode: Literal["a", "b"] = "a"
    only: Literal["a"] = "a"
    form: Literal["", "x", "y"] = ""
    hosts: list[str] = Field([])
    headers: dict[str, SecretStr] = Field({})


def told(values: dict[str, Any], model: type[Details] = Model) -> BadInput:
    with pytest.raises(BadInput) as refused:
        check(model, "X", values)
    return refused.value


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"port": "hunter2"}, "'port' should be a whole number, and is a text that is none"),
        ({"port": 1.5}, "'port' should be a whole number, and is a number that is none"),
        ({"port": ["hunter2"]}, "'port' should be a whole number, and is a list"),
        ({"port": 0}, "'port' should be at least 1"),
        ({"port": 10}, "'port' should be at most 9"),
        ({"share": "hunter2"}, "'share' should be a number, and is a text that is none"),
        ({"on": "hunter2"}, "'on' should be true or false, and is a text that is none"),
        ({"name": 7}, "'name' should be a text, and is a number"),
        ({"name": None}, "'name' should be a text, and is null"),
        ({"name": "hunter2"}, "'name' should have at most 3 characters"),
        ({"mode": "hunter2"}, "'mode' should be one of 'a' or 'b'"),
        ({"form": "hunter2"}, "'form' should be one of 'x' or 'y'"),
        ({"only": "hunter2"}, "'only' should be 'a'"),
        ({"hosts": "hunter2"}, "'hosts' should be a list, and is a text"),
        ({"hosts": ["h", 1]}, "'hosts.1' should be a text, and is a number"),
        ({"headers": []}, "'headers' should be an object, and is a list"),
    ],
)
def test_what_should_be_there_and_what_is_are_told_without_the_value(values: dict[str, Any], words: str) -> None:
    refused = told(values)

    assert refused.problem == f"The details do not fit type X: {words}."
    assert refused.next_step == f"Correct {next(iter(values))}."
    assert "hunter2" not in str(refused)


def test_a_missing_field_is_named_with_the_one_that_was_likely_meant() -> None:
    refused = told({"pathh": "/x", "colour": "red"}, SqliteDetails)

    assert refused.problem == "The details do not fit type X: 'path' is missing; there is 'pathh'."


def test_only_what_is_not_given_is_asked_for() -> None:
    refused = told({"host": "h", "port": "x"}, PostgresDetails)

    assert "'user' is missing" in refused.problem
    assert refused.next_step.startswith("Add user, or uri instead. Correct port. It takes also password, ")
    assert "host" not in refused.next_step


def test_a_reference_without_its_dollar_is_told_as_one() -> None:
    with pytest.raises(BadInput) as refused:
        check_beside(PostgresDetails, "X", {"host": "h", "user": "u", "password": {"secret": "env:P"}}, frozenset())

    assert """'password' is an object, and no reference to a secret: write {"$secret": "…"}""" in refused.value.problem
    assert "env:P" not in str(refused.value)


@pytest.mark.parametrize("host", ["db.example:5432", "[::1]:5432", "10.0.0.1:1"])
def test_a_port_in_the_host_is_sent_to_its_field(host: str) -> None:
    refused = told({"host": host, "user": "u"}, PostgresDetails)

    assert "'host' has a port in it: put the port into 'port'" in refused.problem
    assert host not in str(refused)


def test_an_address_in_the_host_is_sent_to_uri() -> None:
    assert "put that into 'uri'" in told({"host": "postgres://u:hunter2@h/d", "user": "u"}, PostgresDetails).problem


@pytest.mark.parametrize("host", ["db.example", "::1", "[::1]", "fe80::1:2", "10.0.0.1"])
def test_names_and_addresses_of_every_kind_are_hosts(host: str) -> None:
    assert getattr(check(PostgresDetails, "X", {"host": host, "user": "u"}), "host") == host  # noqa: B009


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [("ssl", "verify", "verify-full"), ("ssl", "require", "require"), ("sslmode", "verify-ca", "verify-ca")],
)
def test_ssl_means_for_postgres_what_it_means_elsewhere(name: str, value: str, mode: str) -> None:
    details = check(PostgresDetails, "X", {"host": "h", "user": "u", name: value})

    assert isinstance(details, PostgresDetails)
    assert details.sslmode == mode


def test_a_word_for_tls_that_nobody_knows_is_refused_and_not_passed_over() -> None:
    assert "'ssl' should be one of 'disable'" in told({"host": "h", "user": "u", "ssl": True}, PostgresDetails).problem
