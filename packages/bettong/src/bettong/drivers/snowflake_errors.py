"""Snowflake's refusals in our words, by the numbers of its server and of its client."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors
from bettong.errors import BadInput, BettongError, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

KIND = "Snowflake"
_QUOTED = re.compile(r"""["'`]([^\W\d][\w$.]*)["'`]|[Nn]ame ([^\W\d][\w$.]*)|function ([^\W\d][\w$.]*)""")
_CODES: dict[int, Callable[[str], BettongError]] = {
    8: lambda _: BadInput("The query is more than one statement.", "Send one SELECT at a time."),
    603: lambda _: sql_errors.broken(KIND),
    604: lambda _: sql_errors.too_slow(KIND),
    606: lambda _: BadInput(
        "No warehouse is there to run the statement on.", "Name one in the details that this role may use."
    ),
    608: lambda _: Unavailable("The warehouse is suspended, or cannot start.", "Ask whoever runs it, and try again."),
    625: lambda _: sql_errors.busy(KIND),  # of those that wait for a lock it was given up
    630: lambda _: sql_errors.too_slow(KIND),
    904: lambda name: sql_errors.no_column(KIND, name),
    1003: lambda name: sql_errors.bad_sql(KIND, name),
    2003: lambda name: sql_errors.no_table(KIND, name),
    2043: lambda name: sql_errors.no_table(KIND, name),
    2140: lambda name: sql_errors.no_function(KIND, name),
    2141: lambda name: sql_errors.no_function(KIND, name),
    3001: lambda name: sql_errors.no_right(KIND, name),
    100072: lambda _: sql_errors.constraint(KIND, "a column that needs a value has none"),
}
_ABOUT_LOGIN = range(390000, 400000)
_WORDS: tuple[tuple[tuple[str, ...], int], ...] = (  # what is told under a number that says less
    (("unknown function", "function with name"), 2140),
    (("invalid identifier", "referenced column"), 904),
    (("syntax error",), 1003),
    (("insufficient privileges",), 3001),
    (("number of waiters", "lock timeout", "conflict"), 625),
)


def translated(failed: Any, query: str) -> BettongError:
    """What one of the client's errors means. `query` holds the only names that are repeated."""
    code, state, text = int(getattr(failed, "errno", 0) or 0), str(getattr(failed, "sqlstate", "") or ""), str(failed)
    lowered = text.lower()
    for words, better in _WORDS:
        if code not in _ABOUT_LOGIN and any(word in lowered for word in words):
            code = better
            break
    if code in (2003, 2043) and re.search(r"(schema|database) '[^']*' does not exist", lowered):
        return NotFound(f"{KIND} has no such database or schema.", "Check database and schema in the details.")
    if code in _CODES:
        return _CODES[code](_named(text, query))
    if code in _ABOUT_LOGIN:
        return _about_login(lowered)
    if 250000 <= code < 300000 or code >= 500000:  # of the client's own; those of HTTP among them
        return sql_errors.broken(KIND)
    if state.startswith("22") or 100000 <= code < 101000:
        return sql_errors.bad_values(KIND)
    return sql_errors.other(KIND, code or state or type(failed).__name__)


def no_connection(failed: Any) -> BettongError:
    """The same for a connection that did not come about."""
    code = int(getattr(failed, "errno", 0) or 0)
    if code == 251008:
        return BadInput("The private key cannot be read.", "Give it as PEM text, and its passphrase if it has one.")
    if code in _ABOUT_LOGIN:
        return _about_login(str(failed).lower())
    if type(failed).__name__ == "ForbiddenError":
        return BadInput(f"{KIND} has no such account there.", "Check account, and endpoint if one is given.")
    return Unavailable(f"{KIND} does not answer.", "Check account, and endpoint if one is given, and try again.")


def _about_login(lowered: str) -> BettongError:
    for name in ("role", "warehouse", "database", "schema"):
        if f"{name} " in lowered and ("does not exist" in lowered or "not authorized" in lowered):
            return BadInput(
                f"{KIND} refused the login: the {name} of the details is not there, or not for this user.",
                f"Check {name}.",
            )
    if "ip" in lowered.split() or "network policy" in lowered:
        return BadInput(
            f"{KIND} refused the login: it may not come from the address of this platform.",
            "Ask its administrator to add the address to the network policy.",
        )
    return sql_errors.no_login(KIND)


def _named(text: str, query: str) -> str:
    """` 'name'` when the server's text names something that stands in the query as a word, as it stands there."""
    for groups in _QUOTED.findall(text):
        name = next(group for group in groups if group)
        if found := re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", query, re.IGNORECASE):
            return f" '{found.group()}'"
    return ""
