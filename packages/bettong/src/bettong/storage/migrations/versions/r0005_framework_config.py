"""Model versions keep the options of their framework that came with the upload."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("model_versions", sa.Column("framework_config", sa.JSON(none_as_null=True), nullable=True))
