"""Workspaces: who belongs to one, and who may see it. Whoever may not sees nothing of it, not even that it exists."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.domain.identity import Role
from bettong.domain.names import check_dns_name
from bettong.errors import BadInput, Conflict, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bettong.domain.identity import Member, Principal, User, Workspace
    from bettong.domain.models import Model
    from bettong.domain.pipelines import Pipeline
    from bettong.domain.ports import ModelStore, PipelineStore, UserStore, WorkspaceStore


@dataclass(frozen=True, slots=True)
class Contents:
    """A workspace with what is in it, oldest first. `version_counts` has the versions per model id."""

    workspace: Workspace
    members: tuple[Member, ...]
    models: tuple[Model, ...]
    pipelines: tuple[Pipeline, ...]
    version_counts: dict[int, int]


def scope_of(principal: Principal) -> frozenset[int] | None:
    """The workspaces that stores may search for this caller; None for an administrator: all of them."""
    return None if principal.is_admin else principal.workspace_ids


def default_name(email: str) -> str:
    """What a user's default workspace is called. The name rule does not hold for it: nobody else can take it."""
    return f"{email} - Default Workspace"


class WorkspaceService:
    def __init__(
        self, workspaces: WorkspaceStore, users: UserStore, models: ModelStore, pipelines: PipelineStore
    ) -> None:
        self._workspaces, self._users = workspaces, users
        self._models, self._pipelines = models, pipelines
        self._leaving = threading.Lock()  # two members who leave at once must not both be "not the last one"

    def visible(self, principal: Principal, workspace_id: int) -> Workspace:
        """The workspace, if the caller is a member or an administrator.

        Raises:
            NotFound: there is none, or it is not for this caller to see; the two cannot be told apart.
        """
        if not principal.may_see(workspace_id):
            raise _unknown(f"with id {workspace_id}")
        try:
            return self._workspaces.get(workspace_id)
        except NotFound:
            raise _unknown(f"with id {workspace_id}") from None

    def named(self, principal: Principal, name: str) -> Workspace:
        """The same by its name, compared with case."""
        found = self._workspaces.by_name(name)
        if found is None or not principal.may_see(found.id):
            raise _unknown(f"'{name}'")
        return found

    def scope(self, principal: Principal, workspace_id: int | None, name: str | None) -> frozenset[int] | None:
        """The workspaces that a list call means: the given one, or all that the caller may see (None: every one)."""
        if workspace_id is not None:
            return frozenset({self.visible(principal, workspace_id).id})
        if name is not None:
            return frozenset({self.named(principal, name).id})
        return scope_of(principal)

    def all_visible(self, principal: Principal) -> list[Workspace]:
        """Oldest first."""
        return [w for w in self._workspaces.all() if principal.may_see(w.id)]

    def all(self, principal: Principal, user_id: str | None = None) -> list[Contents]:
        """The visible workspaces, oldest first; with `user_id` only those which that user is a member of."""
        visible = self.all_visible(principal)
        if user_id is not None:
            theirs = self._workspaces.ids_of(user_id)
            visible = [w for w in visible if w.id in theirs]
        return self._contents(visible)

    def get(self, principal: Principal, workspace_id: int | None, name: str | None) -> Contents:
        """One workspace by id or by name.

        Raises:
            BadInput: neither was given.
            NotFound: no such workspace for this caller.
        """
        if workspace_id is not None:
            return self._contents([self.visible(principal, workspace_id)])[0]
        if name is None:
            raise BadInput("Neither 'id' nor 'name' of a workspace was given.", "Send one of them.")
        return self._contents([self.named(principal, name)])[0]

    def create(self, principal: Principal, name: str) -> Workspace:
        """Make a workspace with the caller as its owner.

        Raises:
            BadInput: the name breaks the rule.
            Conflict: the name is taken, also by one that differs only in case.
        """
        return self._workspaces.add(check_dns_name("Workspace", name), principal.user_id)

    def default(self, principal: Principal) -> Workspace:
        """The caller's default workspace, made at the first call."""
        name = default_name(principal.email)
        if (found := self._workspaces.by_name(name)) is not None:
            return found
        try:
            return self._workspaces.add(name, principal.user_id)
        except Conflict:  # another session of the same person was faster
            if (found := self._workspaces.by_name(name)) is None:
                raise
            return found

    def members(self, principal: Principal, workspace_id: int) -> list[Member]:
        """In order of joining."""
        return self._workspaces.members(self.visible(principal, workspace_id).id)

    def add_user(
        self, principal: Principal, workspace_id: int, *, email: str | None, user_id: str | None, role: Role
    ) -> None:
        """Make a user a member.

        Raises:
            NotFound: no such workspace or user, or the caller is not an owner of the workspace.
            Conflict: the user is a member already.
        """
        workspace = self._owned(principal, workspace_id)
        user = self._user(email, user_id)
        self._workspaces.add_member(workspace.id, user.id, role)

    def remove_user(self, principal: Principal, workspace_id: int, *, email: str | None, user_id: str | None) -> int:
        """End a membership; how many were ended (0 when the user was no member).

        Raises:
            NotFound: no such workspace or user, or the caller is not an owner of the workspace.
            Conflict: the user is the last one, or it is the user's own default workspace.
        """
        workspace = self._owned(principal, workspace_id)
        user = self._user(email, user_id)
        with self._leaving:
            members = self._workspaces.members(workspace.id)
            if all(m.user.id != user.id for m in members):
                return 0
            if workspace.name == default_name(user.email):
                raise Conflict(
                    f"User {user.email} cannot be removed from their own default workspace.",
                    "Share another workspace instead.",
                )
            if len(members) == 1:
                raise Conflict("Last user of a workspace cannot be removed", "Add another user first.")
            return self._workspaces.remove_member(workspace.id, user.id)

    def _owned(self, principal: Principal, workspace_id: int) -> Workspace:
        workspace = self.visible(principal, workspace_id)
        owns = any(
            m.user.id == principal.user_id and m.role is Role.OWNER for m in self._workspaces.members(workspace.id)
        )
        if not owns and not principal.is_admin:
            raise NotFound(
                f"There is no workspace with id {workspace_id} whose users you may change.",
                "Ask an owner of the workspace or an administrator to do it.",
            )
        return workspace

    def _user(self, email: str | None, user_id: str | None) -> User:
        if user_id is not None:
            return self._users.get(user_id)
        if email is None:
            raise BadInput("Neither 'email' nor 'user_id' was given.", "Send one of them.")
        if (user := self._users.by_email(email)) is None:
            raise NotFound(
                "No user of this platform has that e-mail address.",
                "Invite the user first: wl.invite_user(email), or bettong tokens create EMAIL --invite.",
            )
        return user

    def _contents(self, workspaces: Iterable[Workspace]) -> list[Contents]:
        wanted = list(workspaces)
        ids = [w.id for w in wanted]
        models = self._models.models(ids)
        counts: dict[int, int] = {}
        for version in self._models.versions([m.id for m in models]):
            counts[version.model_id] = counts.get(version.model_id, 0) + 1
        pipelines = self._pipelines.all(ids)
        return [
            Contents(
                workspace=w,
                members=tuple(self._workspaces.members(w.id)),
                models=tuple(m for m in models if m.workspace_id == w.id),
                pipelines=tuple(p for p in pipelines if p.workspace_id == w.id),
                version_counts=counts,
            )
            for w in wanted
        ]


def _unknown(which: str) -> NotFound:
    return NotFound(
        f"There is no workspace {which} that you may see.", "List the workspaces, or ask one of its owners to add you."
    )
