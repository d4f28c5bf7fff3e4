"""PostgreSQL's refusals in our words, by its five-letter codes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bettong.drivers import sql_errors
from bettong.errors import BadInput, BettongError, LoginRefused, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

KIND = "PostgreSQL"
_CODES: dict[str, Callable[[str], BettongError]] = {
    "28000": lambda _: sql_errors.no_login(KIND),
    "28P01": lambda _: sql_errors.no_login(KIND),
    "3D000": lambda _: sql_errors.no_database(KIND),
    "3F000": lambda name: NotFound(f"{KIND} has no such schema{name}.", "Browse the connection to see its schemas."),
    "42P01": lambda name: sql_errors.no_table(KIND, name),
    "42703": lambda name: sql_errors.no_column(KIND, name),
    "42883": lambda name: sql_errors.no_function(KIND, name),
    "42601": lambda name: sql_errors.bad_sql(KIND, name),
    "42804": lambda _: sql_errors.bad_values(KIND),
    "42P10": lambda _: sql_errors.no_unique(KIND),
    "25006": lambda _: sql_errors.read_only(KIND),
    "57014": lambda _: sql_errors.too_slow(KIND),
    "53300": lambda _: sql_errors.busy(KIND),
    "55P03": lambda _: sql_errors.busy(KIND),
    "40001": lambda _: sql_errors.busy(KIND),
    "40P01": lambda _: sql_errors.busy(KIND),
}
_OF_ROWS = {
    "23505": "one with the same key is there",
    "23502": "a column that needs a value has none",
    "23503": "it refers to a row that is not there",
}
_OF_VALUES = {
    "22012": ("divides by zero in this query", "Leave such rows out, or divide by NULLIF(divisor, 0)."),
    "22P02": ("was given a text that is no value of its type", "Compare the types of the columns with the rows."),
    "22003": ("was given a number that is too large for its type", "Cast it, or give the column a larger type."),
}
_CLASSES: dict[str, Callable[[str], BettongError]] = {
    "08": lambda _: sql_errors.broken(KIND),
    "57": lambda _: sql_errors.broken(KIND),
    "22": lambda _: sql_errors.bad_values(KIND),
    "42": lambda name: sql_errors.bad_sql(KIND, name),
    "53": lambda _: sql_errors.busy(KIND),
}
# Errors in the middle of a stream come without their code, in English where the server speaks it.
_WORDS = {
    "due to statement timeout": "57014",
    "canceling statement": "57014",
    "division by zero": "22012",
    "out of range": "22003",
    "invalid input syntax": "22P02",
    "terminating connection": "57P01",
    "server closed the connection": "08006",
    "no connection to the server": "08006",
}
_LOGIN = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "no pg_hba.conf entry": "28000",
    "role ": "28000",
    "database ": "3D000",
    "too many clients": "53300",
    "remaining connection slots": "53300",
}


def translated(failed: BaseException, query: str) -> BettongError:
    """What a statement of ours or of a person met with."""
    text = str(failed)
    code = getattr(failed, "sqlstate", None) or _code_in(text)
    primary = next((v.decode(errors="replace") for k, v in _diagnosis(failed) if b"MESSAGE_PRIMARY" in k), text)
    name = sql_errors.named(primary, query)
    if code == "42501":
        return sql_errors.no_right(KIND, f": {name.strip()}" if name else _where(failed))
    if code in _CODES:
        return _CODES[code](name)
    if code == "08P01" and re.search(r"\$\d", query):
        return BadInput(
            f"The query has more placeholders than parameters were given, or {KIND} does not know their types.",
            "Pass one value for $1, one for $2 and so on.",
        )
    if code in _OF_VALUES:
        met, next_step = _OF_VALUES[code]
        return BadInput(f"{KIND} {met}{_where(failed)}.", next_step)
    if code and code[:2] == "23":
        what = _OF_ROWS.get(code, "it breaks a constraint of the table")
        return sql_errors.constraint(KIND, f"{what}{_where(failed)}")
    if code and code[:2] in _CLASSES:
        return _CLASSES[code[:2]](name)
    if not code and "libpq" in text:
        return sql_errors.broken(KIND)
    return sql_errors.other(KIND, code or type(failed).__name__)


def no_connection(failed: BaseException, query: str) -> BettongError:
    """Why there is no connection. libpq gives no code for it, only a text, which may name anything."""
    text = str(failed)
    if "SSL" in text or "certificate" in text or "TLS" in text:
        return Unavailable(f"{KIND} and this connection do not agree about TLS.", "Check sslmode and ssl_ca.")
    if "timeout expired" in text:
        return Unavailable(
            f"{KIND} did not answer the login in time.",
            "Check that what listens there is one, and that it is not stopped or busy.",
        )
    for words, code in _LOGIN.items():
        if words in text:
            return _CODES[code]("")
    if "FATAL" in text:
        return LoginRefused(f"{KIND} refused the login.", "Check user, password and database.")
    return sql_errors.broken(KIND)


def _where(failed: BaseException) -> str:
    """What an error is about, from fields in which the server says names and nothing else: no value, no text of it."""
    fields = {key: value.decode(errors="replace") for key, value in _diagnosis(failed)}
    table = fields.get(b"PG_DIAG_TABLE_NAME")
    of = f" of table '{table}'" if table else ""
    for what, key in (("column", b"PG_DIAG_COLUMN_NAME"), ("constraint", b"PG_DIAG_CONSTRAINT_NAME")):
        if name := fields.get(key):
            return f" ({what} '{name}'{of})"
    return f" (table '{table}')" if table else ""


def _diagnosis(failed: BaseException) -> list[tuple[bytes, bytes]]:
    return [(bytes(k, "utf-8") if isinstance(k, str) else k, v) for k, v in getattr(failed, "details", None) or []]


def _code_in(text: str) -> str:
    found = re.search(r"SQLSTATE: ([0-9A-Z]{5})", text)
    if found:
        return found.group(1)
    return next((code for words, code in _WORDS.items() if words in text), "")
