"""A service account in details: what counts as a login, and how little is told of one."""

from __future__ import annotations

import json

import pytest

from bettong.drivers.bigquery import BigQueryDetails
from bettong.drivers.details import check, check_beside
from bettong.errors import BadInput

ACCOUNT = {"client_email": "robot@p.example", "private_key": "a key of\nseveral lines", "project_id": "p"}


def test_fields_of_their_own_count_before_those_of_the_whole_json() -> None:
    details = BigQueryDetails.model_validate({"service_account": json.dumps(ACCOUNT), "project_id": "another"})

    account = details.login()
    assert account is not None
    assert (details.project_id, account.client_email) == ("another", "robot@p.example")


@pytest.mark.parametrize("whole", ["{broken, but secret", '["but secret"]', "but secret"])
def test_what_is_no_json_of_an_account_is_told_without_it(whole: str) -> None:
    with pytest.raises(BadInput, match="not a service account's JSON") as refused:
        check(BigQueryDetails, "BIGQUERY", {"service_account": whole})

    assert "but secret" not in str(refused.value)


def test_a_reference_in_place_of_the_json_may_hold_the_project() -> None:
    check_beside(BigQueryDetails, "BIGQUERY", {"service_account": {"$secret": "env:X"}}, frozenset({"service_account"}))


@pytest.mark.parametrize("half", ["client_email", "private_key"])
def test_half_a_login_is_none_wherever_it_is_for(half: str) -> None:
    for place in ({}, {"api_endpoint": "http://127.0.0.1:1"}):
        details = BigQueryDetails.model_validate({"project_id": "p", half: "x", **place})
        with pytest.raises(BadInput, match="no service account"):
            details.places()


def test_nobody_is_said_to_ask_an_emulator_alone() -> None:
    emulator = BigQueryDetails.model_validate({"project_id": "p", "api_endpoint": "http://127.0.0.1:9050"})
    google = BigQueryDetails.model_validate({"project_id": "p"})

    assert emulator.login() is None
    with pytest.raises(BadInput, match="no service account"):
        google.login()


def test_services_are_where_the_details_say() -> None:
    def places(**details: str) -> dict[str, tuple[str, int, bool]]:
        return BigQueryDetails.model_validate({**ACCOUNT, **details}).places()

    assert places() == {
        "api": ("bigquery.googleapis.com", 443, True),
        "storage": ("bigquerystorage.googleapis.com", 443, True),
        "login": ("oauth2.googleapis.com", 443, True),
    }
    assert "storage" not in places(api_endpoint="http://127.0.0.1:9050")
    assert places(api_endpoint="http://127.0.0.1:9050", grpc_endpoint="127.0.0.1:9060")["storage"] == (
        "127.0.0.1",
        9060,
        False,
    )
    assert places(api_endpoint="https://private.example", grpc_endpoint="private.example:8443")["storage"] == (
        "private.example",
        8443,
        True,
    )


def test_no_repr_holds_the_key() -> None:
    details = BigQueryDetails.model_validate(ACCOUNT)

    assert "several lines" not in f"{details!r} {details.login()!r}"
