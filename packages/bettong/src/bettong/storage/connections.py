"""Connections, their sealed details, and the workspaces they are linked to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Row, Select, and_, delete, exists, insert, or_, select, update
from sqlalchemy import Connection as Transaction

from bettong.domain.connections import KEPT_VERSIONS, Connection, SealedDetails
from bettong.errors import Conflict, NotFound
from bettong.storage.database import upsert
from bettong.storage.rows import require, utc_now
from bettong.storage.tables import connection_links, connection_versions, connections, workspaces
from bettong.storage.workspaces import unknown_workspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bettong.storage.database import Database
    from bettong.storage.rows import Clock

_SHOWN = [column for column in connections.c if column.name != "seq"]
_SEALED = (
    connection_versions.c.connection_id,
    connections.c.name,
    connection_versions.c.version,
    connection_versions.c.sealed,
    connection_versions.c.created_by,
    connection_versions.c.created_at,
    connection_versions.c.seq,
)


class SqlConnectionStore:
    """Keeps connections. Names are unique on the platform, and differ by case."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database, self._now = database, clock

    def add(self, connection: Connection, sealed: bytes) -> None:
        """Keep a connection as it is given, id and time included; its `workspace_names` are not looked at. `sealed`
        are the details of the version that it says."""
        taken = Conflict(
            f"A connection '{connection.name}' exists already.", "Update or rotate that one, or choose another name."
        )
        with self._database.write(taken=taken) as tx:
            tx.execute(
                insert(connections).values(
                    id=connection.id,
                    name=connection.name,
                    type=connection.type,
                    created_by=connection.created_by,
                    created_at=connection.created_at,
                    version=connection.version,
                    use_only=connection.use_only,
                    last_used_at=connection.last_used_at,
                )
            )
            tx.execute(
                insert(connection_versions).values(
                    connection_id=connection.id,
                    version=connection.version,
                    sealed=sealed,
                    created_by=connection.created_by,
                    created_at=connection.created_at,
                )
            )

    def by_name(self, name: str, workspace_ids: Iterable[int] | None = None) -> Connection | None:
        return self._one(connections.c.name == name, workspace_ids)

    def by_id(self, connection_id: str, workspace_ids: Iterable[int] | None = None) -> Connection | None:
        return self._one(connections.c.id == connection_id, workspace_ids)

    def all(
        self, *, seen_by: str | None, workspace_ids: Iterable[int], limit: int | None = None, after: str | None = None
    ) -> list[Connection]:
        """Two queries, however many connections there are. An administrator (None) is told of every link."""
        query, names = select(*_SHOWN), _names()
        if seen_by is not None:
            told = list(workspace_ids)
            linked = exists().where(  # asked per row: a page must not gather every link of the workspaces first
                connection_links.c.connection_id == connections.c.id, connection_links.c.workspace_id.in_(told)
            )
            query = query.where(or_(connections.c.created_by == seen_by, linked))
            names = names.where(connection_links.c.workspace_id.in_(told))
        with self._database.read() as tx:
            rows = _page(tx, query, connections.c.seq, limit, after)
            if limit is not None:
                names = names.where(connection_links.c.connection_id.in_([row.id for row in rows]))
            return _connections(rows, tx.execute(names))

    def linked_to(
        self,
        workspace_id: int,
        workspace_ids: Iterable[int] | None,
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Connection]:
        linked = (
            select(*_SHOWN)
            .join(connection_links, connection_links.c.connection_id == connections.c.id)
            .where(connection_links.c.workspace_id == workspace_id)
        )
        names = _told(_names(), workspace_ids)
        with self._database.read() as tx:
            require(tx, workspaces.c.id == workspace_id, unknown_workspace(workspace_id))
            rows = _page(tx, linked, connection_links.c.seq, limit, after)
            ids = linked.with_only_columns(connections.c.id) if limit is None else [row.id for row in rows]
            return _connections(rows, tx.execute(names.where(connection_links.c.connection_id.in_(ids))))

    def workspaces_of(self, connection_id: str) -> frozenset[int]:
        query = select(connection_links.c.workspace_id).where(connection_links.c.connection_id == connection_id)
        with self._database.read() as tx:
            found = frozenset(tx.execute(query).scalars())
            if not found:
                require(tx, connections.c.id == connection_id, _unknown(connection_id))
        return found

    def link(self, connection_id: str, workspace_id: int) -> str:
        with self._database.write(unknown=unknown_workspace(workspace_id)) as tx:
            require(tx, connections.c.id == connection_id, _unknown(connection_id))
            tx.execute(
                upsert(tx, connection_links)
                .values(id=str(uuid4()), connection_id=connection_id, workspace_id=workspace_id, created_at=self._now())
                .on_conflict_do_nothing(index_elements=["connection_id", "workspace_id"])
            )
            link_id: str = tx.execute(
                select(connection_links.c.id).where(_is_link(connection_id, workspace_id))
            ).scalar_one()
        return link_id

    def unlink(self, connection_id: str, workspace_id: int) -> None:
        with self._database.write() as tx:
            tx.execute(delete(connection_links).where(_is_link(connection_id, workspace_id)))

    def delete(self, connection_id: str) -> None:
        with self._database.write() as tx:
            tx.execute(delete(connections).where(connections.c.id == connection_id))

    def set_use_only(self, connection_id: str, use_only: bool) -> None:
        self._change(connection_id, use_only=use_only)

    def touch(self, connection_id: str) -> None:
        self._change(connection_id, last_used_at=self._now())

    def sealed(self, connection_id: str, version: int | None = None) -> SealedDetails:
        wanted = connections.c.version if version is None else version
        query = _sealed().where(connections.c.id == connection_id, connection_versions.c.version == wanted)
        with self._database.read() as tx:
            row = tx.execute(query).first()
            if row is None:
                require(tx, connections.c.id == connection_id, _unknown(connection_id))
                raise _no_version(version)
        return SealedDetails(*row)

    def versions(self, connection_id: str) -> list[SealedDetails]:
        query = _sealed().where(connections.c.id == connection_id).order_by(connection_versions.c.version.desc())
        with self._database.read() as tx:
            return [SealedDetails(*row) for row in tx.execute(query)]

    def add_version(self, connection_id: str, sealed: bytes, *, version: int, created_by: str) -> None:
        follows = and_(connections.c.id == connection_id, connections.c.version == version - 1)
        of_it = connection_versions.c.connection_id == connection_id
        with self._database.write() as tx:
            if not tx.execute(update(connections).where(follows).values(version=version)).rowcount:
                require(tx, connections.c.id == connection_id, _unknown(connection_id))
                raise Conflict("Somebody else changed the connection at the same time.", "Look at it and try again.")
            tx.execute(
                insert(connection_versions).values(
                    connection_id=connection_id,
                    version=version,
                    sealed=sealed,
                    created_by=created_by,
                    created_at=self._now(),
                )
            )
            outlived = connection_versions.c.version <= version - KEPT_VERSIONS
            tx.execute(delete(connection_versions).where(of_it, outlived))

    def purge(self, connection_id: str) -> int:
        newest = select(connections.c.version).where(connections.c.id == connection_id).scalar_subquery()
        old = and_(
            connection_versions.c.connection_id == connection_id,
            connection_versions.c.version != newest,
        )
        with self._database.write() as tx:
            require(tx, connections.c.id == connection_id, _unknown(connection_id))
            return int(tx.execute(delete(connection_versions).where(old)).rowcount)

    def all_sealed(self) -> list[SealedDetails]:
        newest = _sealed().where(connection_versions.c.version == connections.c.version)
        with self._database.read() as tx:
            return [SealedDetails(*row) for row in tx.execute(newest.order_by(connections.c.seq))]

    def sealed_page(self, *, after: int, limit: int) -> list[SealedDetails]:
        behind = _sealed().where(connection_versions.c.seq > after)
        with self._database.read() as tx:
            return [SealedDetails(*row) for row in tx.execute(behind.order_by(connection_versions.c.seq).limit(limit))]

    def reseal(self, before: SealedDetails, sealed: bytes) -> bool:
        same = and_(connection_versions.c.seq == before.place, connection_versions.c.sealed == before.sealed)
        with self._database.write() as tx:
            return bool(tx.execute(update(connection_versions).where(same).values(sealed=sealed)).rowcount)

    def any_sealed(self) -> bool:
        """Whether there is a sealed row at all: then a missing key must not be replaced."""
        with self._database.read() as tx:
            return tx.execute(select(connections.c.seq).limit(1)).first() is not None

    def _change(self, connection_id: str, **values: object) -> None:
        with self._database.write() as tx:
            if not tx.execute(update(connections).where(connections.c.id == connection_id).values(**values)).rowcount:
                raise _unknown(connection_id)

    def _one(self, which: ColumnElement[bool], workspace_ids: Iterable[int] | None) -> Connection | None:
        with self._database.read() as tx:
            row = tx.execute(select(*_SHOWN).where(which)).first()
            if row is None:
                return None
            names = _told(_names(), workspace_ids).where(connection_links.c.connection_id == row.id)
            return _connections([row], tx.execute(names))[0]


def _page(
    tx: Transaction, query: Select[*tuple[Any, ...]], place: ColumnElement[int], limit: int | None, after: str | None
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Rows of `query` by `place`, at most `limit`, from behind the connection `after`, which must be one of them."""
    if after is not None:
        passed = tx.execute(query.with_only_columns(place).where(connections.c.id == after)).scalar()
        if passed is None:
            raise NotFound("The list has no connection with the id to go on after.", "List from the start again.")
        query = query.where(place > passed)
    return tx.execute(query.order_by(place).limit(limit)).all()


def _names() -> Select[str, str]:
    """(connection id, workspace name) of every link, oldest link first."""
    return (
        select(connection_links.c.connection_id, workspaces.c.name)
        .join(workspaces, workspaces.c.id == connection_links.c.workspace_id)
        .order_by(connection_links.c.seq)
    )


def _told(names: Select[str, str], workspace_ids: Iterable[int] | None) -> Select[str, str]:
    return names if workspace_ids is None else names.where(connection_links.c.workspace_id.in_(list(workspace_ids)))


def _connections(rows: Iterable[Row[*tuple[Any, ...]]], links: Iterable[Row[str, str]]) -> list[Connection]:
    """The connections of `rows`, each with the workspace names that `links` has for it."""
    names: dict[str, list[str]] = {}
    for connection_id, name in links:
        names.setdefault(connection_id, []).append(name)
    return [
        Connection(
            row.id,
            row.name,
            row.type,
            row.created_by,
            row.created_at,
            tuple(names.get(row.id, ())),
            row.version,
            row.use_only,
            row.last_used_at,
        )
        for row in rows
    ]


def _sealed() -> Select[*tuple[Any, ...]]:
    """Sealed versions with the names of their connections."""
    return select(*_SEALED).join(connections, connections.c.id == connection_versions.c.connection_id)


def _is_link(connection_id: str, workspace_id: int) -> ColumnElement[bool]:
    return and_(connection_links.c.connection_id == connection_id, connection_links.c.workspace_id == workspace_id)


def _unknown(connection_id: str) -> NotFound:
    return NotFound(f"No connection has the id '{connection_id}'.", "List the connections to see which there are.")


def _no_version(version: int | None) -> NotFound:
    return NotFound(f"The connection has no version {version}.", "List its versions; the last ones are kept.")
