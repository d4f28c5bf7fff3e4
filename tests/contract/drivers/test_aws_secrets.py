"""Secrets of a Secrets Manager that looks at signatures and rights, on their way to a real database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from contract.drivers.cases import Case, new_calls
from services.moto import Secrets, running_moto

from bettong.domain.drivers import Stage
from bettong.drivers.aws_secrets import SecretsManager

if TYPE_CHECKING:
    from collections.abc import Iterator

    from services.mariadb import MariaDb

    from bettong.domain.drivers import TestReport

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def aws(mariadb: MariaDb) -> Iterator[Secrets]:
    """It has the password of a database, and looks at the keys of whoever asks."""
    with running_moto() as endpoint:
        secrets = Secrets(endpoint)
        of = {"user": "username", "password": "password", "port": "port"}
        secrets.keep("mine/warehouse", json.dumps({of[name]: mariadb.details[name] for name in of}))
        secrets.keep("mine/text", "no object")
        secrets.look_at_keys()
        yield secrets


def report_of(case: Case, aws: Secrets, references: dict[str, str], **variables: str) -> TestReport:
    known = {"AWS_REGION": aws.REGION, "AWS_ENDPOINT_URL": aws.endpoint, **aws.reader}
    manager = SecretsManager(("mine/*",), {**known, **variables})
    details: dict[str, Any] = {name: {"$secret": reference} for name, reference in references.items()}
    return Case(case.kind, {**case.details, **details}, new_calls(managers={"aws": manager})).test()


def test_a_secret_of_aws_opens_a_database(mariadb_case: Case, aws: Secrets) -> None:
    of = {"user": "username", "password": "password", "port": "port"}

    report = report_of(mariadb_case, aws, {name: f"aws:mine/warehouse#{field}" for name, field in of.items()})

    assert report.ok, report
    assert (report.stages[1].stage, report.stages[1].said) == (Stage.SECRET, "3 resolved")


def test_a_secret_that_is_no_object_is_taken_as_it_is(mariadb_case: Case, aws: Secrets) -> None:
    report = report_of(mariadb_case, aws, {"database": "aws:mine/text"})

    assert report.stages[1].ok
    assert report.stages[-1].stage is Stage.LOGIN  # there is no database of that name


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("aws:mine/warehouse#pass", "no text of that name"),
        ("aws:mine/text#password", "no text of that name"),
        ("aws:mine/nothing#password", "has no secret of that name"),
        ("aws:others/warehouse#password", "which references may not name here"),
    ],
)
def test_what_aws_does_not_have_or_may_not_be_named_ends_the_report_at_the_secret(
    mariadb_case: Case, aws: Secrets, reference: str, words: str
) -> None:
    refused = report_of(mariadb_case, aws, {"password": reference}).stages[-1]

    assert (refused.stage, refused.ok) == (Stage.SECRET, False)
    assert words in refused.said


def test_whose_keys_are_wrong_or_may_not_read_is_told_so(mariadb_case: Case, aws: Secrets) -> None:
    wrong = {**aws.reader, "AWS_SECRET_ACCESS_KEY": "x" * 40}
    for login, words in (
        (aws.stranger, "The Secrets Manager of AWS does not let this platform read that secret"),
        (wrong, "AWS does not take the keys of this platform"),
    ):
        refused = report_of(mariadb_case, aws, {"password": "aws:mine/warehouse#password"}, **login).stages[-1]
        assert (refused.stage, refused.ok) == (Stage.SECRET, False)
        assert refused.said.startswith(words)
        assert wrong["AWS_SECRET_ACCESS_KEY"] not in str(refused)
