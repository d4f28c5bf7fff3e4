"""What databases refuse, in our words. Their own texts may hold a password or a row: of those, only names that the
query holds itself are repeated."""

from __future__ import annotations

import re

from bettong.errors import BadInput, BettongError, DeadlineExceeded, LoginRefused, NotFound, Unavailable

_QUOTED = re.compile(
    r"""["'`]([^\W\d][\w$.]*)["'`]|: ([^\W\d][\w$.]*)$"""
    r"""|(?:name:?|for (?:table|view|schema|sequence)) ([^\W\d][\w$.]*)""",
    re.MULTILINE,
)


def named(text: str, query: str) -> str:
    """` 'name'` when a database's text names something that stands in the query as a word, else nothing."""
    for groups in _QUOTED.findall(text):
        name = next(group for group in groups if group)
        if re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", query):
            return f" '{name}'"
    return ""


def no_login(kind: str) -> BettongError:
    return LoginRefused(f"{kind} refused the login.", "Check user and password, and that this user may come from here.")


def no_database(kind: str) -> BettongError:
    return BadInput(f"{kind} has no such database.", "Check the name of the database in the details.")


def no_table(kind: str, name: str = "") -> BettongError:
    return NotFound(f"{kind} has no such table{name}.", "Browse the connection to see its tables.")


def no_column(kind: str, name: str = "") -> BettongError:
    return BadInput(f"{kind} has no such column{name}.", "Check the names of columns in the query.")


def no_function(kind: str, name: str = "") -> BettongError:
    return BadInput(f"{kind} has no such function{name}.", "Check its name and the types of its arguments.")


def bad_sql(kind: str, name: str = "") -> BettongError:
    near = f" near{name}" if name else ""
    return BadInput(f"{kind} does not understand the query{near}.", "Check its syntax.")


def no_right(kind: str, name: str = "") -> BettongError:
    return BadInput(f"The user of this connection may not do that in {kind}{name}.", "Ask its administrator.")


def bad_values(kind: str) -> BettongError:
    return BadInput(
        f"{kind} refused a value: it does not fit its column, or the query computes with it what cannot be.",
        "Compare the types of the columns with the rows.",
    )


def constraint(kind: str, what: str) -> BettongError:
    return BadInput(
        f"{kind} refused a row: {what}. Nothing was kept.", "Correct the rows, or use upsert with its keys."
    )


def no_unique(kind: str) -> BettongError:
    return BadInput(
        f"The table in {kind} has no unique index on just these keys.", "Create one, or name the keys of one it has."
    )


def read_only(kind: str) -> BettongError:
    return BadInput(f"Reading from {kind} changes nothing, and this query would.", "Use write for rows.")


def too_slow(kind: str) -> BettongError:
    return DeadlineExceeded(f"{kind} did not finish the statement in time.", "Ask for less, or allow more time.")


def busy(kind: str) -> BettongError:
    return Unavailable(f"{kind} is busy: it has no connection or lock to give.", "Try again in a moment.")


def silent(kind: str) -> BettongError:
    return Unavailable(
        f"{kind} did not answer in time.", "See that what listens there is one, and that it is not stopped or busy."
    )


def broken(kind: str) -> BettongError:
    return Unavailable(f"The connection to {kind} broke.", "Try again.")


def other(kind: str, code: object) -> BettongError:
    return BadInput(f"{kind} refused the statement (code {code}).", "Look the code up in the manual of that database.")
