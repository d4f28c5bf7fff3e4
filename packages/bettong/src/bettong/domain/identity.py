"""Who asks, and what belongs to whom."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


AUDIENCE = "bettong"  # of access tokens: the server and every replica that callers may reach


@dataclass(frozen=True, slots=True)
class User:
    """A person or a program that owns things. `id` is a UUID text."""

    id: str
    email: str
    username: str
    enabled: bool
    is_admin: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of a service, as a token proved it. `origin` says from where (an address), for the audit."""

    user_id: str
    email: str
    is_admin: bool
    workspace_ids: frozenset[int]
    origin: str = ""

    def may_see(self, workspace_id: int) -> bool:
        """Members and administrators see a workspace; to anyone else it does not exist."""
        return self.is_admin or workspace_id in self.workspace_ids


class Role(StrEnum):
    OWNER = "OWNER"
    COLLABORATOR = "COLLABORATOR"


@dataclass(frozen=True, slots=True)
class Member:
    user: User
    role: Role


@dataclass(frozen=True, slots=True)
class Workspace:
    """A group of people and what they share. Names are unique on the platform, also when only the case differs."""

    id: int
    name: str
    archived: bool
    created_by: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One thing worth answering for. Written before the answer leaves; never holds a value of a secret.

    `detail` says what it was for: the table that was read, the job that used a connection, the caller's own reason.
    """

    at: datetime
    user_id: str
    email: str
    origin: str
    action: str
    subject_kind: str
    subject_id: str
    subject_name: str
    detail: str = ""
