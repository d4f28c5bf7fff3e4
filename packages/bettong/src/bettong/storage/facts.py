"""Single named values of the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from bettong.storage.database import upsert
from bettong.storage.tables import facts

if TYPE_CHECKING:
    from bettong.storage.database import Database


class SqlFactStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, name: str) -> bytes | None:
        with self._database.read() as tx:
            row = tx.execute(select(facts.c.value).where(facts.c.name == name)).first()
        return None if row is None else bytes(row.value)

    def put(self, name: str, value: bytes) -> None:
        with self._database.write() as tx:
            tx.execute(
                upsert(tx, facts)
                .values(name=name, value=value)
                .on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )
