"""Workspaces and their members."""

from typing import Annotated

from fastapi import APIRouter

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import (
    Empty,
    MemberAdd,
    MemberRemove,
    WorkspaceCreate,
    WorkspaceGet,
    WorkspaceId,
    WorkspacesList,
)
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.api.wire import workspace_detail, workspace_item, workspace_record
from bettong.domain.identity import Role

router = APIRouter(prefix="/v1/api/workspaces", route_class=StrictRoute, tags=["workspaces"])


@router.post("/list", summary="The workspaces that the caller may see", response_model=replies.Workspaces)
def list_workspaces(
    caller: Caller, services: Uses, body: Annotated[WorkspacesList, may_be_absent(WorkspacesList)]
) -> Answer:
    return Answer({"workspaces": [workspace_item(c) for c in services.workspaces.all(caller, body.user_id)]})


@router.post("/get", summary="One workspace by id or name", response_model=replies.WorkspaceDetail)
def get(caller: Caller, services: Uses, body: WorkspaceGet) -> Answer:
    return Answer(workspace_detail(services.workspaces.get(caller, body.id, body.name)))


@router.post("/create", summary="Make a workspace", response_model=replies.WorkspaceId)
def create(caller: Caller, services: Uses, body: WorkspaceCreate) -> Answer:
    """The caller becomes its owner. Names are unique on the platform, also when only the case differs."""
    return Answer({"workspace_id": services.workspaces.create(caller, body.workspace_name).id})


@router.post("/default", summary="The caller's default workspace", response_model=replies.WorkspaceRecord)
def default(caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    """Made at the first call."""
    return Answer(workspace_record(services.workspaces.default(caller)))


@router.post("/list_users", summary="The members of a workspace", response_model=replies.Members)
def list_users(caller: Caller, services: Uses, body: WorkspaceId) -> Answer:
    members = services.workspaces.members(caller, body.workspace_id)
    return Answer(
        {"users": [{"user_id": m.user.id, "email": m.user.email, "user_type": m.role.value} for m in members]}
    )


@router.post("/add_user", summary="Make a user a member", response_model=replies.Done)
def add_user(caller: Caller, services: Uses, body: MemberAdd) -> Answer:
    """For owners of the workspace and administrators. Name the user by `email` or `user_id`."""
    role = Role(body.user_type or Role.COLLABORATOR)
    services.workspaces.add_user(caller, body.workspace_id, email=body.email, user_id=body.user_id, role=role)
    return Answer({})


@router.post("/remove_user", summary="End a membership", response_model=replies.Affected)
def remove_user(caller: Caller, services: Uses, body: MemberRemove) -> Answer:
    """For owners of the workspace and administrators. The last member stays, and so does the owner of a default one."""
    rows = services.workspaces.remove_user(caller, body.workspace_id, email=body.email, user_id=body.user_id)
    return Answer({"affected_rows": rows})
