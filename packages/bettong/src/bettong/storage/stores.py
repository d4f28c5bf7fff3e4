"""All stores of one database, opened together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from bettong.storage.audit import SqlAuditStore
from bettong.storage.connections import SqlConnectionStore
from bettong.storage.database import Database, open_database
from bettong.storage.deployments import SqlDeploymentStore
from bettong.storage.facts import SqlFactStore
from bettong.storage.jobs import SqlJobStore
from bettong.storage.migrations import migrate
from bettong.storage.models import SqlModelStore
from bettong.storage.pipelines import SqlPipelineStore
from bettong.storage.rows import Clock, utc_now
from bettong.storage.users import SqlUserStore
from bettong.storage.workspaces import SqlWorkspaceStore

if TYPE_CHECKING:
    from types import TracebackType


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything the platform remembers. Safe to use from many threads. Also a context manager that closes itself."""

    users: SqlUserStore
    workspaces: SqlWorkspaceStore
    models: SqlModelStore
    pipelines: SqlPipelineStore
    deployments: SqlDeploymentStore
    connections: SqlConnectionStore
    audit: SqlAuditStore
    facts: SqlFactStore
    jobs: SqlJobStore
    database: Database = field(repr=False)

    def close(self) -> None:
        """Give the database's connections back. Twice is no error."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stores(url: str, *, clock: Clock = utc_now) -> Stores:
    """Open the database at `url`, made and brought to this release's tables where needed.

    Args:
        url: `sqlite:////path/to/file` or `postgresql://user:password@host/name`.
        clock: where the stores take their times from, aware.

    Raises:
        BadInput: the URL is not one of these, the driver is not installed, or a newer release wrote the database.
        Unavailable: the database does not answer.
    """
    database = open_database(url)
    try:
        migrate(database)
    except BaseException:
        database.close()
        raise
    return Stores(
        users=SqlUserStore(database, clock),
        workspaces=SqlWorkspaceStore(database, clock),
        models=SqlModelStore(database, clock),
        pipelines=SqlPipelineStore(database, clock),
        deployments=SqlDeploymentStore(database, clock),
        connections=SqlConnectionStore(database, clock),
        audit=SqlAuditStore(database),
        facts=SqlFactStore(database),
        jobs=SqlJobStore(database, clock),
        database=database,
    )
