"""Details are checked by their model, and no text holds a value."""

from __future__ import annotations

import traceback
from typing import Literal

import pytest
from pydantic import BaseModel, SecretStr

from bettong.drivers.details import check, check_beside, secret_fields
from bettong.drivers.postgres import PostgresDetails
from bettong.errors import BadInput


class Nested(BaseModel):
    kind: Literal["a"]
    token: SecretStr


class Model(BaseModel):
    host: str
    port: int = 1
    password: SecretStr
    nested: Nested | None = None
    many: dict[str, SecretStr] = {}


WRONG = {"port": "hunter2", "password": ["hunter2"], "nested": {"kind": "hunter2", "token": 1}}


def test_every_wrong_field_is_named_and_no_value_is_told() -> None:
    with pytest.raises(BadInput) as refused:
        check(Model, "X", WRONG)

    told = "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in told
    for name in ("host", "port", "password", "nested.kind", "nested.token"):
        assert f"'{name}'" in refused.value.problem


def test_fields_that_are_not_known_are_somebody_elses() -> None:
    assert check(Model, "X", {"host": "h", "password": "p", "colour": "red"}) == Model(
        host="h", password=SecretStr("p")
    )


def test_fields_that_are_still_to_come_are_not_judged() -> None:
    check_beside(
        Model,
        "X",
        {"host": "h", "password": {"$secret": "env:P"}, "port": {"$secret": "env:Q"}},
        frozenset({"password", "port"}),
    )

    with pytest.raises(BadInput, match="'host' is missing"):
        check_beside(Model, "X", {"password": {"$secret": "env:P"}}, frozenset({"password"}))


def test_secret_fields_are_found_at_any_depth_of_a_type() -> None:
    assert set(secret_fields(Model)) == {"password", "many"}


def test_a_uri_stands_for_fields_that_are_not_given() -> None:
    details = check(PostgresDetails, "POSTGRES", {"uri": "postgres://me:p%40ss@h:1/d?sslmode=require", "user": "you"})

    assert isinstance(details, PostgresDetails)
    assert (details.host, details.port, details.user, details.database) == ("h", 1, "you", "d")
    assert details.password.get_secret_value() == "p@ss"
    assert details.sslmode == "require"


@pytest.mark.parametrize("uri", ["mysql://me:hunter2@h/d", "hunter2", "postgres://me:hunter2@h:port/d"])
def test_a_uri_that_is_none_is_not_repeated(uri: str) -> None:
    with pytest.raises(BadInput, match="'uri' is not like") as refused:
        check(PostgresDetails, "POSTGRES", {"uri": uri})

    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_a_uri_that_is_a_reference_leaves_its_fields_open() -> None:
    check_beside(PostgresDetails, "POSTGRES", {"uri": {"$secret": "env:DSN"}}, frozenset({"uri"}))
