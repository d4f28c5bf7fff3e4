"""Users and their API tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import Row, insert, select, update

from bettong.domain.identity import User
from bettong.errors import Conflict, NotFound
from bettong.storage.database import upsert
from bettong.storage.rows import utc_now
from bettong.storage.tables import api_tokens, users

if TYPE_CHECKING:
    from bettong.storage.database import Database
    from bettong.storage.rows import Clock


class SqlUserStore:
    """Keeps users. E-mail addresses are unique without case."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add(self, email: str, username: str, *, is_admin: bool) -> User:
        user = User(str(uuid4()), email, username, enabled=True, is_admin=is_admin, created_at=self._now())
        taken = Conflict(f"A user with the address '{email}' exists already.", "Choose another address.")
        with self._database.write(taken=taken) as tx:
            tx.execute(
                insert(users).values(
                    id=user.id,
                    email=email,
                    email_key=email.casefold(),
                    username=username,
                    enabled=True,
                    is_admin=is_admin,
                    created_at=user.created_at,
                )
            )
        return user

    def get(self, user_id: str) -> User:
        with self._database.read() as tx:
            row = tx.execute(select(users).where(users.c.id == user_id)).first()
        if row is None:
            raise unknown_user(user_id)
        return user_of(row)

    def by_email(self, email: str) -> User | None:
        with self._database.read() as tx:
            row = tx.execute(select(users).where(users.c.email_key == email.casefold())).first()
        return None if row is None else user_of(row)

    def all(self) -> list[User]:
        """Oldest first."""
        with self._database.read() as tx:
            return [user_of(row) for row in tx.execute(select(users).order_by(users.c.seq))]

    def set_enabled(self, user_id: str, enabled: bool) -> User:
        with self._database.write() as tx:
            row = tx.execute(
                update(users).where(users.c.id == user_id).values(enabled=enabled).returning(*users.c)
            ).first()
        if row is None:
            raise unknown_user(user_id)
        return user_of(row)

    def add_token(self, user_id: str, token_hash: bytes, label: str) -> None:
        with self._database.write(unknown=unknown_user(user_id)) as tx:
            tx.execute(
                upsert(tx, api_tokens)
                .values(token_hash=token_hash, user_id=user_id, label=label, created_at=self._now())
                .on_conflict_do_nothing(index_elements=["token_hash"])
            )

    def by_token(self, token_hash: bytes) -> User | None:
        query = select(users).join(api_tokens).where(api_tokens.c.token_hash == token_hash, users.c.enabled.is_(True))
        with self._database.read() as tx:
            row = tx.execute(query).first()
        return None if row is None else user_of(row)


def user_of(row: Row[*tuple[Any, ...]]) -> User:
    return User(row.id, row.email, row.username, row.enabled, row.is_admin, row.created_at)


def unknown_user(user_id: str) -> NotFound:
    return NotFound(f"No user has the id '{user_id}'.", "List the users to see who is known.")
