"""Model configs say how requests of several callers are gathered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("model_configs", sa.Column("dynamic_batching_config", sa.JSON(none_as_null=True), nullable=True))
