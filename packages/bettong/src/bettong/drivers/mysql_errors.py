"""MySQL's and MariaDB's refusals in our words, by their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.drivers import sql_errors
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.errors import BettongError

KIND = "MySQL"
NO_TLS = 2026  # the number of the official client for it
_CODES: dict[int, Callable[[str], BettongError]] = {
    1044: lambda _: sql_errors.no_login(KIND),
    1045: lambda _: sql_errors.no_login(KIND),
    1698: lambda _: sql_errors.no_login(KIND),
    1130: lambda _: sql_errors.no_login(KIND),
    1049: lambda _: sql_errors.no_database(KIND),
    1046: lambda _: sql_errors.no_database(KIND),
    1146: lambda name: sql_errors.no_table(KIND, name),
    1054: lambda name: sql_errors.no_column(KIND, name),
    1305: lambda name: sql_errors.no_function(KIND, name),
    1064: lambda name: sql_errors.bad_sql(KIND, name),
    1142: lambda _: sql_errors.no_right(KIND),
    1143: lambda _: sql_errors.no_right(KIND),
    1227: lambda _: sql_errors.no_right(KIND),
    1792: lambda _: sql_errors.read_only(KIND),
    1062: lambda _: sql_errors.constraint(KIND, "one with the same key is there"),
    1048: lambda _: sql_errors.constraint(KIND, "a column that needs a value has none"),
    1364: lambda _: sql_errors.constraint(KIND, "a column that needs a value has none"),
    1452: lambda _: sql_errors.constraint(KIND, "it refers to a row that is not there"),
    NO_TLS: lambda _: Unavailable(f"{KIND} there has no TLS.", "Turn it on there, or set ssl to 'prefer'."),
    4025: lambda _: sql_errors.constraint(KIND, "it breaks a constraint of the table"),
    3819: lambda _: sql_errors.constraint(KIND, "it breaks a constraint of the table"),
    1264: lambda _: sql_errors.bad_values(KIND),
    1265: lambda _: sql_errors.bad_values(KIND),
    1292: lambda _: sql_errors.bad_values(KIND),
    1366: lambda _: sql_errors.bad_values(KIND),
    1406: lambda _: sql_errors.bad_values(KIND),
    1690: lambda _: sql_errors.bad_values(KIND),
    1205: lambda _: sql_errors.busy(KIND),
    1213: lambda _: sql_errors.busy(KIND),
    1040: lambda _: sql_errors.busy(KIND),
    1203: lambda _: sql_errors.busy(KIND),
    3024: lambda _: sql_errors.too_slow(KIND),
    1969: lambda _: sql_errors.too_slow(KIND),
}
_LOST = (2002, 2003, 2006, 2013, 2014, 2055, 0)


def translated(failed: BaseException, query: str) -> BettongError:
    """The error of a statement or a login."""
    import ssl

    from bettong.drivers import web

    if isinstance(failed, ssl.SSLError):
        return web.tls_failed(KIND, failed)
    code = failed.args[0] if failed.args and isinstance(failed.args[0], int) else None
    text = str(failed.args[1]) if len(failed.args) > 1 else ""
    if code in _CODES:
        return _CODES[code](sql_errors.named(text, query))
    cause = getattr(failed, "original_exception", None)
    if isinstance(cause, ssl.SSLError):
        return web.tls_failed(KIND, cause)
    if isinstance(failed, TimeoutError) or isinstance(cause, TimeoutError) or (code in _LOST and "timed out" in text):
        return sql_errors.silent(KIND)
    if code in _LOST or isinstance(failed, OSError):
        return sql_errors.broken(KIND)
    return sql_errors.other(KIND, code if code is not None else type(failed).__name__)
