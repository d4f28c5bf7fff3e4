"""Connections have versions, may be for use alone, and tell when they were used; the audit says what for.

What was sealed before becomes version 1 as it is: bound to its connection's id alone. Such a value opens as version 1
and as no other; `secrets.details` knows both forms.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WHEN = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "connection_versions",
        sa.Column("seq", SERIAL, nullable=False),
        sa.Column("connection_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_by", sa.Text(), nullable=False),
        sa.Column("created_at", WHEN, nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["connections.id"], name=op.f("fk_connection_versions_connection_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_connection_versions")),
        sa.UniqueConstraint("connection_id", "version", name=op.f("uq_connection_versions_connection_id_version")),
        sqlite_autoincrement=True,
    )
    op.execute(
        "INSERT INTO connection_versions (connection_id, version, sealed, created_by, created_at) "
        "SELECT id, 1, sealed, created_by, created_at FROM connections ORDER BY seq"
    )
    # One by one, not by making the table anew: on SQLite that would drop it, and every link with it.
    op.drop_column("connections", "sealed")
    op.add_column("connections", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("connections", sa.Column("use_only", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("connections", sa.Column("last_used_at", WHEN, nullable=True))
    op.add_column("audit_events", sa.Column("detail", sa.Text(), nullable=False, server_default=sa.text("''")))
