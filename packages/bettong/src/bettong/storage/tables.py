"""The tables, as this release wants them. `migrations/` brings a database here; a test keeps the two equal.

Columns called `owner_id`, `created_by` or `user_id` in records of the past refer to no table: what a person made or
did outlives the account.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    false,
    text,
)

if TYPE_CHECKING:
    from sqlalchemy import Dialect


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime with microseconds on every database. SQLite has no time zones: it keeps naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A datetime without a time zone reached the database. Pass an aware one.")
        in_utc = value.astimezone(UTC)
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite counts rows only in a column that is exactly INTEGER; there it has 64 bits.
_Serial = BigInteger().with_variant(Integer(), "sqlite")
_Json = JSON(none_as_null=True)


def _id() -> Column[int]:
    return Column("id", _Serial, primary_key=True)


def _refers(name: str, to: str, *, nullable: bool = False, cascade: bool = False) -> Column[int]:
    return Column(name, ForeignKey(to, ondelete="CASCADE" if cascade else None), nullable=nullable)


def _text(name: str, *, nullable: bool = False) -> Column[str]:
    return Column(name, Text, nullable=nullable)


def _when(name: str) -> Column[datetime]:
    return Column(name, UtcDateTime, nullable=False)


# `email_key` and `name_key` are the case-folded forms, so that uniqueness without case is the table's own.
users = Table(
    "users",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    _text("email"),
    Column("email_key", Text, nullable=False, unique=True),
    _text("username"),
    Column("enabled", Boolean, nullable=False),
    Column("is_admin", Boolean, nullable=False),
    _when("created_at"),
    sqlite_autoincrement=True,
)

api_tokens = Table(
    "api_tokens",
    metadata,
    Column("token_hash", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    _text("label"),
    _when("created_at"),
)

workspaces = Table(
    "workspaces",
    metadata,
    _id(),
    _text("name"),
    Column("name_key", Text, nullable=False, unique=True),
    Column("archived", Boolean, nullable=False),
    _text("created_by"),
    _when("created_at"),
    sqlite_autoincrement=True,
)

memberships = Table(
    "memberships",
    metadata,
    Column("seq", _Serial, primary_key=True),
    _refers("workspace_id", "workspaces.id", cascade=True),
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    _text("role"),
    _when("joined_at"),
    UniqueConstraint("workspace_id", "user_id"),
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    _id(),
    _refers("workspace_id", "workspaces.id"),
    _text("name"),
    _text("owner_id"),
    _when("created_at"),
    _when("updated_at"),
    UniqueConstraint("workspace_id", "name"),
    sqlite_autoincrement=True,
)

model_versions = Table(
    "model_versions",
    metadata,
    _id(),
    _refers("model_id", "models.id"),
    Column("version", Text, nullable=False, unique=True),
    _text("visibility"),
    Column("status", Text, nullable=False, index=True),
    _text("error_summary", nullable=True),
    _text("framework"),
    _text("python_version"),
    Column("requirements", _Json, nullable=False),
    Column("framework_config", _Json),
    _text("arch"),
    _text("accel"),
    _text("file_name"),
    Column("file_size", BigInteger, nullable=False),
    _text("sha"),
    _text("image_path", nullable=True),
    _text("environment", nullable=True),
    _text("created_by"),
    _when("created_at"),
    _when("updated_at"),
    Index(None, "model_id"),
    sqlite_autoincrement=True,
)

model_configs = Table(
    "model_configs",
    metadata,
    _id(),
    _refers("model_version_id", "model_versions.id"),
    _text("runtime"),
    Column("tensor_fields", _Json),
    Column("filter_threshold", Float),
    Column("input_schema", LargeBinary),
    Column("output_schema", LargeBinary),
    _text("batch_config", nullable=True),
    Column("dynamic_batching_config", _Json),
    Index(None, "model_version_id"),
    sqlite_autoincrement=True,
)

upload_log_lines = Table(
    "upload_log_lines",
    metadata,
    Column("seq", _Serial, primary_key=True),
    _refers("model_version_id", "model_versions.id", cascade=True),
    _text("line"),
    Index(None, "model_version_id"),
    sqlite_autoincrement=True,
)

pipelines = Table(
    "pipelines",
    metadata,
    _id(),
    _refers("workspace_id", "workspaces.id"),
    _text("name"),
    _text("owner_id"),
    _when("created_at"),
    _when("updated_at"),
    UniqueConstraint("workspace_id", "name"),
    sqlite_autoincrement=True,
)

pipeline_versions = Table(
    "pipeline_versions",
    metadata,
    _id(),
    _refers("pipeline_id", "pipelines.id"),
    Column("version", Text, nullable=False, unique=True),
    Column("definition", _Json, nullable=False),
    _text("created_by"),
    _when("created_at"),
    _when("updated_at"),
    Index(None, "pipeline_id"),
    sqlite_autoincrement=True,
)

deployments = Table(
    "deployments",
    metadata,
    _id(),
    Column("pipeline_id", ForeignKey("pipelines.id"), nullable=False, unique=True),
    _text("name"),
    _refers("workspace_id", "workspaces.id"),
    Column("deployed", Boolean, nullable=False),
    Column("generation", Integer, nullable=False),
    _refers("pipeline_version_id", "pipeline_versions.id", nullable=True),
    Column("engine_config", _Json, nullable=False),
    Column("port", Integer, nullable=False),
    _when("created_at"),
    _when("updated_at"),
    sqlite_autoincrement=True,
)

connections = Table(
    "connections",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("name", Text, nullable=False, unique=True),
    _text("type"),
    Column("created_by", Text, nullable=False, index=True),
    _when("created_at"),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("use_only", Boolean, nullable=False, server_default=false()),
    Column("last_used_at", UtcDateTime),
    sqlite_autoincrement=True,
)

connection_versions = Table(
    "connection_versions",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("connection_id", Text, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    Column("version", Integer, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    _text("created_by"),
    _when("created_at"),
    UniqueConstraint("connection_id", "version"),
    sqlite_autoincrement=True,
)

connection_links = Table(
    "connection_links",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("connection_id", Text, ForeignKey("connections.id", ondelete="CASCADE"), nullable=False),
    _refers("workspace_id", "workspaces.id", cascade=True),
    _when("created_at"),
    UniqueConstraint("connection_id", "workspace_id"),
    Index(None, "workspace_id"),
    sqlite_autoincrement=True,
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("seq", _Serial, primary_key=True),
    _when("at"),
    _text("user_id"),
    _text("email"),
    _text("origin"),
    _text("action"),
    _text("subject_kind"),
    _text("subject_id"),
    _text("subject_name"),
    Column("detail", Text, nullable=False, server_default=text("''")),
    Index(None, "subject_kind", "subject_id"),
    sqlite_autoincrement=True,
)

# `server` has the job until `leased_until`; another one may claim a running job whose lease is over or was given up.
jobs = Table(
    "jobs",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    _text("kind"),
    _refers("workspace_id", "workspaces.id"),
    _text("created_by"),
    Column("request", _Json, nullable=False),
    Column("state", Text, nullable=False, index=True),
    _when("created_at"),
    Column("started_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("attempts", Integer, nullable=False),
    Column("cancel_asked", Boolean, nullable=False),
    Column("progress", _Json),
    _text("position", nullable=True),
    Column("result", _Json),
    _text("error"),
    _text("server", nullable=True),
    Column("leased_until", UtcDateTime),
    Index(None, "workspace_id"),
    sqlite_autoincrement=True,
)

job_connections = Table(
    "job_connections",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("connection_id", Text, nullable=False, index=True),  # a job of the past outlives its connection
    UniqueConstraint("job_id", "connection_id"),
    sqlite_autoincrement=True,
)

job_log_lines = Table(
    "job_log_lines",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _when("at"),
    _text("line"),
    Index(None, "job_id"),
    sqlite_autoincrement=True,
)

facts = Table("facts", metadata, Column("name", Text, primary_key=True), Column("value", LargeBinary, nullable=False))
