"""The platform's keys, for administrators. No answer holds a key: keys are told by their ids."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.replies import Reply
from bettong.api.requests import Body, Empty, Name
from bettong.api.strict_json import StrictRoute, may_be_absent

router = APIRouter(prefix="/v1/api/platform/keys", route_class=StrictRoute, tags=["platform"])


class Reseal(Body):
    after: Name | None = Field(None, description="Of the step before; without it, from the start.")
    limit: Annotated[int, Field(ge=1, le=100)] = 100


class KeyRecord(Reply):
    id: str
    seals: bool
    known: bool
    values: int


class Keys(Reply):
    from_file: bool
    keys: list[KeyRecord]
    old_form: int


class NewKey(Reply):
    id: str


class Resealed(Reply):
    resealed: int
    already: int
    unopened: list[str]
    after: str | None


@router.post("/list", summary="The keys, and how many values lie under each", response_model=Keys)
def list_keys(caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    """Keys that seal values and that this platform lacks are in the list as not `known`."""
    keys = services.key_rotation.keys(caller)
    records = [
        {"id": key_id, "seals": key_id in keys.ring[:1], "known": key_id in keys.ring, "values": count}
        for key_id, count in keys.counts.items()
    ]
    return Answer({"from_file": keys.from_file, "keys": records, "old_form": keys.old_form})


@router.post("/add", summary="Make a key that seals from now on", response_model=NewKey)
def add(caller: Caller, services: Uses, body: Annotated[Empty, may_be_absent(Empty)]) -> Answer:
    """400 where keys are given as BETTONG_KEYS."""
    return Answer({"id": services.key_rotation.add(caller)})


@router.post("/reseal", summary="Seal some values anew", response_model=Resealed)
def reseal(caller: Caller, services: Uses, body: Annotated[Reseal, may_be_absent(Reseal)]) -> Answer:
    """One short step of a walk over every sealed value; go on with `after` until it is null."""
    step = services.key_rotation.reseal(caller, body.after, body.limit)
    return Answer({"resealed": step.resealed, "already": step.already, "unopened": step.unopened, "after": step.after})
