"""What BigQuery says in its own words, which an emulator does not: each becomes one of ours, and names only what the
query holds."""

from __future__ import annotations

import pytest

from bettong.drivers.bigquery_errors import broken_off, refused
from bettong.errors import BadInput, BettongError, DeadlineExceeded, NotFound, Unavailable

QUERY = "SELECT nope, foo(x) FROM sales.daily"


def said(status: int, reason: str, message: str) -> BettongError:
    return refused(
        status, {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}, QUERY
    )


@pytest.mark.parametrize(
    ("status", "reason", "message", "kind", "words"),
    [
        (400, "invalidQuery", "Unrecognized name: nope at [1:8]", BadInput, "no such column 'nope'"),
        (400, "invalidQuery", "Unrecognized name: nope; Did you mean x? at [1:8]", BadInput, "no such column 'nope'"),
        (400, "invalidQuery", 'Syntax error: Unexpected identifier "nope" at [1:1]', BadInput, "near 'nope'"),
        (400, "invalidQuery", "Function not found: foo at [1:14]", BadInput, "no such function 'foo'"),
        (404, "notFound", "Not found: Table p:sales.daily was not found in location EU", NotFound, "table 'daily'"),
        (404, "notFound", "Not found: Dataset p:sales was not found in location EU", NotFound, "dataset or project"),
        (403, "accessDenied", "Access Denied: User does not have bigquery.jobs.create", BadInput, "may not do that"),
        (401, "authError", "Invalid Credentials", BadInput, "refused the login"),
        (400, "invalidQuery", "division by zero: 1 / 0", BadInput, "refused a value"),
        (400, "invalidQuery", "Bad int64 value: zzz", BadInput, "refused a value"),
        (400, "invalidQuery", "Could not cast literal to type DATE at [1:8]", BadInput, "refused a value"),
        (400, "invalid", "Required field day cannot be null", BadInput, "a column that needs a value has none"),
        (400, "bytesBilledLimitExceeded", "Query exceeded limit for bytes billed: 1", BadInput, "maximum_bytes_billed"),
        (400, "invalidQuery", "UPDATE or DELETE statement over table p.d.t would affect rows in the streaming buffer, "
         "which is not supported", Unavailable, "settled"),
        (400, "invalidQuery", "Transaction is aborted due to concurrent update against p:d.t", Unavailable, "busy"),
        (403, "quotaExceeded", "Quota exceeded: too many table updates", Unavailable, "busy"),
        (400, "stopped", "Job execution was cancelled: Job timed out", DeadlineExceeded, "in time"),
        (503, "backendError", "Error encountered during execution. Retrying may help.", Unavailable, "broke"),
        (502, "", "", Unavailable, "broke"),
        (400, "somethingNew", "words that nobody has seen", BadInput, "somethingNew"),
    ],
)  # fmt: skip
def test_each_reason_has_words_of_ours(
    status: int, reason: str, message: str, kind: type[BettongError], words: str
) -> None:
    error = said(status, reason, message)

    assert isinstance(error, kind)
    assert words in str(error)


@pytest.mark.parametrize("reason", ["invalidQuery", "invalid", "notFound", "accessDenied", "somethingNew"])
def test_what_the_query_does_not_hold_is_not_repeated(reason: str) -> None:
    for message in ("Unrecognized name: hunter2", "Not found: Table p:d.hunter2 was not found", 'Bad value "hunter2"'):
        assert "hunter2" not in str(said(400, reason, message))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", NotFound),
        ("PERMISSION_DENIED", BadInput),
        ("UNAUTHENTICATED", BadInput),
        ("INVALID_ARGUMENT", BadInput),
        ("RESOURCE_EXHAUSTED", Unavailable),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("UNAVAILABLE", Unavailable),
        ("UNKNOWN", BadInput),
    ],
)
def test_codes_of_the_storage_api_are_told_alike(code: str, kind: type[BettongError]) -> None:
    assert isinstance(broken_off(code, "daily"), kind)
