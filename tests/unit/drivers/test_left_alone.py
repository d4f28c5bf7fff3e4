"""Fields that a driver does not know are stored and left alone, and a test says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.domain.drivers import Egress, Stage
from bettong.drivers.bigquery import BigQueryDetails
from bettong.drivers.details import Details, check, left_alone
from bettong.drivers.earlier import renamed
from bettong.drivers.kafka import KafkaDetails
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.postgres import PostgresDetails
from bettong.drivers.registry import Registry

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import BaseModel

SQLITE = Registry().driver("SQLITE")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["pasword"], "pasword (did you mean password?)"),
        (["Tabel", "note"], "Tabel (did you mean table?), note"),
        (["tls"], "tls"),
        (["a1", "a2", "a3", "a4", "a5", "a6", "a7"], "a1, a2, a3, a4, a5, and 2 more"),
        (["x" * 100, "line\nbreak"], f"{'x' * 59}…, line?break"),
    ],
)
def test_unknown_fields_are_named_with_what_was_likely_meant(names: list[str], told: str) -> None:
    details = {"host": "h", "user": "u", **dict.fromkeys(names, "hunter2")}

    assert left_alone(PostgresDetails, "postgres", details) == f"not known to POSTGRES and not used: {told}"


def test_a_field_under_two_names_is_told_with_the_one_that_counts() -> None:
    details = {"host": "h", "user": "u", "ssl": "verify", "sslmode": "disable", "tabel": "t"}

    assert check(PostgresDetails, "X", details) == check(PostgresDetails, "X", {**details, "ssl": "require"})
    assert left_alone(PostgresDetails, "X", details) == (
        "not known to X and not used: tabel (did you mean table?); given under two names: ssl (sslmode counts)"
    )


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (PostgresDetails, ["host", "username", "dbname", "schema", "ssl", "dsn"]),
        (KafkaDetails, ["bootstrap.servers", "security.protocol", "sasl.mechanism"]),
        (
            BigQueryDetails,
            ["type", "project_id", "private_key_id", "client_id", "auth_uri", "client_x509_cert_url", "dataset"],
        ),
    ],
)
def test_nothing_is_said_of_names_that_mean_something(model: type[BaseModel], names: list[str]) -> None:
    assert left_alone(model, "X", dict.fromkeys(names)) == ""


def test_a_test_of_a_connection_says_which_fields_are_not_used_and_holds_all_the_same(tmp_path: Path) -> None:
    details = {"path": str(tmp_path / "x.db"), "tabel": "hunter2"}

    result = next(Opening("sqlite", SQLITE, details, Reach(Egress(folders=(str(tmp_path),))), 5).stages())

    assert (result.stage, result.ok) == (Stage.DETAILS, True)
    assert result.said == "complete; not known to SQLITE and not used: tabel (did you mean table?)"
    assert "may stay" in result.next_step


def test_details_that_a_driver_knows_are_complete_without_a_remark(tmp_path: Path) -> None:
    details = {"path": str(tmp_path / "x.db"), "table": "t"}

    result = next(Opening("SQLITE", SQLITE, details, Reach(), 5).stages())

    assert (result.said, result.next_step) == ("complete", "")


def test_fields_of_an_earlier_form_are_known_to_its_steps(tmp_path: Path) -> None:
    class Now(Details):
        path: str

        earlier = (renamed("file", "path"),)

    class Driver(SQLITE):  # type: ignore[misc,valid-type]  # found by its entry point
        details = Now

    result = next(Opening("TOY", Driver, {"file": "x", "flie": "y"}, Reach(), 5).stages())

    assert result.said == "complete; not known to TOY and not used: flie"


def test_a_schema_tells_every_name_and_what_one_field_stands_for() -> None:
    info = Registry().info("POSTGRES")

    assert info is not None
    assert {"host", "username", "ssl", "dsn"} <= set(info.details_schema["x-known"])
    assert info.details_schema["properties"]["uri"]["x-instead-of"] == ["host", "user"]
