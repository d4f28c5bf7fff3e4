"""BigQuery's refusals in our words, by the reasons of its REST API and the codes of its Storage API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

KIND = "BigQuery"
_REASONS: dict[str, Callable[[str], BettongError]] = {
    "accessDenied": lambda _: sql_errors.no_right(KIND),
    "authError": lambda _: sql_errors.no_login(KIND),
    "required": lambda _: sql_errors.no_login(KIND),
    "duplicate": lambda _: sql_errors.constraint(KIND, "something of that name is there already"),
    "stopped": lambda _: sql_errors.too_slow(KIND),
    "timeout": lambda _: sql_errors.too_slow(KIND),
    "quotaExceeded": lambda _: sql_errors.busy(KIND),
    "rateLimitExceeded": lambda _: sql_errors.busy(KIND),
    "resourcesExceeded": lambda _: BadInput("The query needs more than BigQuery gives to one.", "Ask for less."),
    "bytesBilledLimitExceeded": lambda _: BadInput(
        "The query would read more than maximum_bytes_billed in the details allows.", "Ask for less, or raise it."
    ),
    "billingNotEnabled": lambda _: BadInput("This project may not do that without billing.", "Ask its administrator."),
    "responseTooLarge": lambda _: BadInput("The answer is too large for BigQuery.", "Ask for less."),
    "backendError": lambda _: sql_errors.broken(KIND),
    "internalError": lambda _: sql_errors.broken(KIND),
}
_PLACE = re.compile(r" at \[\d+:\d+\].*")  # where in the query; what follows is a guess
_TABLE = re.compile(r"Table (?:[^\s.:]+[.:])*([^\s.:]+) was not found.*", re.DOTALL)
_STATUS = {401: "authError", 403: "accessDenied", 409: "duplicate", 429: "rateLimitExceeded"}
# What BigQuery says of a query it cannot run, in the order in which one looks; its texts have no codes.
_QUERY: tuple[tuple[tuple[str, ...], Callable[[str], BettongError]], ...] = (
    (("streaming buffer",), lambda _: _just_streamed()),
    (("concurrent update", "concurrent transaction"), lambda _: sql_errors.busy(KIND)),
    (("table id", "dataset id", "field name", "column name"), lambda _: _bad_name()),
    (
        ("unrecognized name", "no column", "column not found", "referenced column"),
        lambda n: sql_errors.no_column(KIND, n),
    ),
    (("function not found", "no matching signature"), lambda name: sql_errors.no_function(KIND, name)),
    (("not found", "does not exist"), lambda name: sql_errors.no_table(KIND, name)),
    (("syntax error", "parser error", "unexpected"), lambda name: sql_errors.bad_sql(KIND, name)),
    (
        ("division by zero", "bad ", "could not cast", "overflow", "out of range", "invalid"),
        lambda _: sql_errors.bad_values(KIND),
    ),
    (("required field", "null"), lambda _: sql_errors.constraint(KIND, "a column that needs a value has none")),
)


def refused(status: int, error: Mapping[str, Any], query: str) -> BettongError:
    """What an answer of the REST API, or a job, says went wrong. `query` holds the only names that are repeated."""
    details = error.get("errors") or [error]
    reason = str(details[0].get("reason") or _STATUS.get(status, ""))
    text = str(error.get("message") or details[0].get("message") or "")
    name = sql_errors.named(_PLACE.sub("", _TABLE.sub(r": \1", text)), query)
    if reason == "notFound" or status == 404:
        if text.lower().startswith(("not found: dataset", "not found: project")):
            return NotFound(f"{KIND} has no such dataset or project{name}.", "Check project_id and dataset.")
        return sql_errors.no_table(KIND, name)
    if reason in _REASONS:
        return _REASONS[reason](name)
    if status >= 500:
        return sql_errors.broken(KIND)
    lowered = text.lower()
    for words, made in _QUERY:
        if any(word in lowered for word in words):
            return made(name)
    return sql_errors.other(KIND, reason or status)


def broken_off(code: str, table: str) -> BettongError:
    """The same for a call of the Storage API, by the name of its code."""
    if code == "NOT_FOUND":
        return sql_errors.no_table(KIND, f" '{table}'")
    if code == "PERMISSION_DENIED":
        return sql_errors.no_right(KIND)
    if code == "UNAUTHENTICATED":
        return sql_errors.no_login(KIND)
    if code == "RESOURCE_EXHAUSTED":
        return sql_errors.busy(KIND)
    if code == "DEADLINE_EXCEEDED":
        return sql_errors.too_slow(KIND)
    if code in ("INVALID_ARGUMENT", "OUT_OF_RANGE"):
        return sql_errors.bad_values(KIND)
    if code in ("UNAVAILABLE", "INTERNAL", "CANCELLED", "ABORTED"):
        return sql_errors.broken(KIND)
    return sql_errors.other(KIND, code)


def _bad_name() -> BettongError:
    return BadInput(f"{KIND} takes no such name for a table or column.", "Use letters, digits and underscores.")


def _just_streamed() -> BettongError:
    return Unavailable(
        f"Rows were streamed into this table a short while ago, and {KIND} changes none of it until they have settled.",
        "Try again in an hour or two, or append.",
    )


def no_answer() -> Unavailable:
    return Unavailable(f"{KIND} gives an answer that is none.", "Check api_endpoint.")
