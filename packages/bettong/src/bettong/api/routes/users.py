"""The people of this platform."""

from typing import Annotated

from fastapi import APIRouter

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import Email, Invite, TokenCreate, UsersQuery
from bettong.api.strict_json import StrictRoute, may_be_absent
from bettong.api.wire import user_record

router = APIRouter(prefix="/v1/api/users", route_class=StrictRoute, tags=["users"])


@router.post("/query", summary="Users by id, or all", response_model=replies.Users)
def query(caller: Caller, services: Uses, body: Annotated[UsersQuery, may_be_absent(UsersQuery)]) -> Answer:
    return Answer({"users": {u.id: user_record(u) for u in services.identity.query(caller, body.user_ids)}})


@router.post("/invite", summary="Make a user", response_model=replies.UserId)
def invite(caller: Caller, services: Uses, body: Invite) -> Answer:
    """For administrators. An address that is known already is answered with its user."""
    return Answer({"id": services.identity.invite(caller, body.email, password=body.password).id})


@router.post("/create_token", summary="Give a user an API token", response_model=replies.NewToken)
def create_token(caller: Caller, services: Uses, body: TokenCreate) -> Answer:
    """For administrators. The token is told this once; what the platform keeps is its SHA-256."""
    token, user = services.identity.create_token(caller, body.email, body.label)
    told = {"token": token, "user_id": user.id, "user_email": user.email}
    return Answer(told, headers={"cache-control": "no-store"})


@router.post("/activate", summary="Let a user in", response_model=replies.Done)
def activate(caller: Caller, services: Uses, body: Email) -> Answer:
    """For administrators."""
    services.identity.set_enabled(caller, body.email, True)
    return Answer({})


@router.post("/deactivate", summary="Lock a user out", response_model=replies.Done)
def deactivate(caller: Caller, services: Uses, body: Email) -> Answer:
    """For administrators; not for oneself."""
    services.identity.set_enabled(caller, body.email, False)
    return Answer({})
