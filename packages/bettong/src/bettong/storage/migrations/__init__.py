"""Bringing a database to the tables of this release.

A new revision: change `tables.py`, write `versions/rNNNN_what.py`, move HEAD. Tests check that HEAD is the newest
script and that all scripts together make exactly `tables.py`, on SQLite and on PostgreSQL.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from bettong.errors import BadInput

if TYPE_CHECKING:
    from sqlalchemy import Connection as Transaction

    from bettong.storage.database import Database

HEAD = "0005"
_POSTGRES_LOCK = 0x62657474  # any number, as long as every release takes the same one


def migrate(database: Database, to: str = HEAD) -> None:
    """Bring the database to HEAD, in one transaction; at HEAD nothing is written and Alembic is not even imported.
    An older revision `to` is for tests of migrations.

    Several processes may do this at the same time: one migrates, the others wait and find it done.

    Raises:
        BadInput: the database was written by a newer release.
    """
    with database.read() as transaction:
        if stored_revision(transaction) == to:
            return
    with database.write() as transaction:
        if not database.is_sqlite:  # on SQLite a writing transaction is alone already
            transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _POSTGRES_LOCK})
        if stored_revision(transaction) != to:
            _upgrade(transaction, to)


def stored_revision(transaction: Transaction) -> str | None:
    """The revision the database says it is at; None for an empty one."""
    if not inspect(transaction).has_table("alembic_version"):
        return None
    revision = transaction.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def _upgrade(transaction: Transaction, to: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "bettong.storage:migrations")
    config.attributes["transaction"] = transaction
    stored = stored_revision(transaction)
    try:
        if stored is not None:
            ScriptDirectory.from_config(config).get_revision(stored)
    except CommandError:
        raise BadInput(
            f"The database is at revision {stored}; this release knows revisions up to {HEAD}.",
            "A newer bettong wrote it: start that one, or restore the backup from before it was updated.",
        ) from None
    command.upgrade(config, to)
