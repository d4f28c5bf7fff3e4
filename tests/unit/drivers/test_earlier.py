"""Details of an earlier form, as a driver reads them now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bettong.drivers.details import Details
from bettong.drivers.earlier import Earlier, renamed, upgraded
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping


def split_address(details: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(address := details.get("address"), str):
        return details
    host, _, port = address.partition(":")
    return {**{name: value for name, value in details.items() if name != "address"}, "host": host, "port": int(port)}


class Now(Details):
    host: str
    port: int

    earlier = (renamed("server", "address"), Earlier("'address' is read as 'host' and 'port'", split_address))


def test_steps_are_taken_in_their_order_and_told_and_what_is_stored_stays() -> None:
    stored = {"server": "db:5432", "note": "mine"}

    now, words = upgraded(Now, "toy", stored)

    assert now == {"note": "mine", "host": "db", "port": 5432}
    assert words == ("'server' is read as 'address'", "'address' is read as 'host' and 'port'")
    assert stored == {"server": "db:5432", "note": "mine"}


def test_details_of_the_present_form_stay_as_they_are() -> None:
    present = {"host": "db", "port": 1, "other": {"server": "x"}}

    assert upgraded(Now, "toy", present) == (present, ())
    assert upgraded(Details, "toy", {"server": "x"}) == ({"server": "x"}, ())


def test_where_both_names_are_there_the_new_one_counts() -> None:
    assert renamed("server", "host").change({"server": "old", "host": "new"}) == {"host": "new"}


def test_references_go_along_with_their_field() -> None:
    reference = {"$secret": "env:ADDRESS"}

    assert upgraded(Now, "toy", {"server": reference})[0] == {"address": reference}


def test_a_step_that_fails_is_told_without_a_value() -> None:
    with pytest.raises(BadInput, match=r"driver for TOY fails on details of an earlier form \(ValueError\)") as refused:
        upgraded(Now, "toy", {"server": "db:s3cret"})
    assert "s3cret" not in str(refused.value)
