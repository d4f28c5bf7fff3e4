"""Workspaces and who belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, insert, select

from bettong.domain.identity import Member, Role, Workspace
from bettong.errors import Conflict, NotFound
from bettong.storage.rows import require, utc_now
from bettong.storage.tables import memberships, users, workspaces
from bettong.storage.users import unknown_user, user_of

if TYPE_CHECKING:
    from bettong.storage.database import Database
    from bettong.storage.rows import Clock


class SqlWorkspaceStore:
    """Keeps workspaces and memberships. Names are unique without case, and found by their exact form."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add(self, name: str, owner_id: str) -> Workspace:
        now = self._now()
        taken = Conflict(
            f"A workspace '{name}' exists already; names that differ only in case count as the same.",
            "Choose another name.",
        )
        with self._database.write(taken=taken, unknown=unknown_user(owner_id)) as tx:
            row = tx.execute(
                insert(workspaces)
                .values(name=name, name_key=name.casefold(), archived=False, created_by=owner_id, created_at=now)
                .returning(*workspaces.c)
            ).one()
            tx.execute(
                insert(memberships).values(workspace_id=row.id, user_id=owner_id, role=Role.OWNER, joined_at=now)
            )
        return _workspace(row)

    def get(self, workspace_id: int) -> Workspace:
        with self._database.read() as tx:
            row = tx.execute(select(workspaces).where(workspaces.c.id == workspace_id)).first()
        if row is None:
            raise unknown_workspace(workspace_id)
        return _workspace(row)

    def by_name(self, name: str) -> Workspace | None:
        with self._database.read() as tx:
            row = tx.execute(select(workspaces).where(workspaces.c.name == name)).first()
        return None if row is None else _workspace(row)

    def all(self) -> list[Workspace]:
        with self._database.read() as tx:
            return [_workspace(row) for row in tx.execute(select(workspaces).order_by(workspaces.c.id))]

    def ids_of(self, user_id: str) -> frozenset[int]:
        with self._database.read() as tx:
            return frozenset(
                tx.execute(select(memberships.c.workspace_id).where(memberships.c.user_id == user_id)).scalars()
            )

    def members(self, workspace_id: int) -> list[Member]:
        query = (
            select(*users.c, memberships.c.role)
            .join(memberships, memberships.c.user_id == users.c.id)
            .where(memberships.c.workspace_id == workspace_id)
            .order_by(memberships.c.seq)
        )
        with self._database.read() as tx:
            rows = tx.execute(query).all()
            if not rows:
                require(tx, workspaces.c.id == workspace_id, unknown_workspace(workspace_id))
        return [Member(user_of(row), Role(row.role)) for row in rows]

    def add_member(self, workspace_id: int, user_id: str, role: Role) -> None:
        with self._database.read() as tx:
            workspace = tx.execute(select(workspaces.c.name).where(workspaces.c.id == workspace_id)).first()
            user = tx.execute(select(users.c.email).where(users.c.id == user_id)).first()
        if workspace is None:
            raise unknown_workspace(workspace_id)
        if user is None:
            raise unknown_user(user_id)
        # Clients look for this sentence (spec 1.1).
        taken = Conflict(f"User {user.email}, already exists in workspace {workspace.name}")
        with self._database.write(taken=taken, unknown=unknown_workspace(workspace_id)) as tx:
            tx.execute(
                insert(memberships).values(workspace_id=workspace_id, user_id=user_id, role=role, joined_at=self._now())
            )

    def remove_member(self, workspace_id: int, user_id: str) -> int:
        with self._database.write() as tx:
            return tx.execute(
                delete(memberships).where(memberships.c.workspace_id == workspace_id, memberships.c.user_id == user_id)
            ).rowcount


def unknown_workspace(workspace_id: int) -> NotFound:
    return NotFound(f"No workspace has the id {workspace_id}.", "List the workspaces to see which there are.")


def _workspace(row: Row[*tuple[Any, ...]]) -> Workspace:
    return Workspace(row.id, row.name, row.archived, row.created_by, row.created_at)
