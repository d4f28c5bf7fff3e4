"""Changing a connection, and what was done with it. No answer here holds a detail."""

from fastapi import APIRouter, Request

from bettong.api import connection_replies as replies
from bettong.api.answers import Answer
from bettong.api.arrow_streams import apart
from bettong.api.auth import Caller, Uses
from bettong.api.connection_requests import Audit, Export, Rollback, Rotate, Update, UseOnly, Which
from bettong.api.replies import ConnectionRecord
from bettong.api.strict_json import StrictRoute
from bettong.api.wire import connection_record

router = APIRouter(prefix="/v1/api/connections", route_class=StrictRoute, tags=["connections"])


@router.post("/update", summary="Change details", response_model=ConnectionRecord)
def update(caller: Caller, services: Uses, body: Update) -> Answer:
    """A new version, untested. `*****` for a value keeps the one that is stored, at any depth."""
    connection = body.found(caller, services.connections)
    changed = services.connection_versions.update(
        caller, connection.id, body.details, remove=body.remove, replace=body.replace
    )
    return Answer(connection_record(changed))


@router.post("/rotate", summary="Change details if they work", response_model=replies.Rotated)
async def rotate(request: Request, caller: Caller, services: Uses, body: Rotate) -> Answer:
    """The changed details are tested first; where the test fails, the old ones stay, and `switched` is false."""

    def work() -> Answer:
        connection = body.found(caller, services.connections)
        return Answer(replies.rotated(services.connection_versions.rotate(caller, connection.id, body.details)))

    return await apart(request, work)


@router.post("/masked", summary="Details with every value masked", response_model=replies.MaskedDetails)
def masked(caller: Caller, services: Uses, body: Which) -> Answer:
    """A form to fill in: what is left masked stays as it is when it is sent to update or rotate."""
    connection = body.found(caller, services.connections)
    return Answer({"details": services.connection_versions.shown(caller, connection.id)})


@router.post("/export", summary="Connections without their secrets", response_model=replies.Exports)
def export(caller: Caller, services: Uses, body: Export) -> Answer:
    """Of types with a driver the fields that are not secret, and references; `*****` for all else. Those that the
    caller may not edit, or that no key opens, are named with the reason."""
    return Answer(replies.exports(services.connection_versions.export(caller, body.workspace_id)))


@router.post("/versions", summary="The versions of the details", response_model=replies.Versions)
def versions(caller: Caller, services: Uses, body: Which) -> Answer:
    """Newest first, with the names of the fields that differ from the version before."""
    connection = body.found(caller, services.connections)
    return Answer(replies.versions(services.connection_versions.versions(caller, connection.id)))


@router.post("/rollback", summary="Put older details in force again", response_model=ConnectionRecord)
def rollback(caller: Caller, services: Uses, body: Rollback) -> Answer:
    """As a new version."""
    connection = body.found(caller, services.connections)
    return Answer(connection_record(services.connection_versions.rollback(caller, connection.id, body.version)))


@router.post("/purge", summary="Forget every version but the one in force", response_model=replies.Purged)
def purge(caller: Caller, services: Uses, body: Which) -> Answer:
    connection = body.found(caller, services.connections)
    return Answer({"purged": services.connection_versions.purge(caller, connection.id)})


@router.post("/used_by", summary="Where a connection is used", response_model=replies.Uses)
def used_by(caller: Caller, services: Uses, body: Which) -> Answer:
    """Workspaces, and jobs that have not ended; of those that the caller may not see, how many."""
    connection = body.found(caller, services.connections)
    return Answer(replies.uses(services.connection_versions.used_by(caller, connection.id)))


@router.post("/audit", summary="What was done with a connection, newest first", response_model=replies.AuditRecords)
def audit(caller: Caller, services: Uses, body: Audit) -> Answer:
    connection = body.found(caller, services.connections)
    return Answer(replies.audit(services.connection_versions.audit(caller, connection.id, body.limit)))


@router.post("/set_use_only", summary="Whether others may reveal and link it", response_model=ConnectionRecord)
def set_use_only(caller: Caller, services: Uses, body: UseOnly) -> Answer:
    connection = body.found(caller, services.connections)
    return Answer(connection_record(services.connections.set_use_only(caller, connection.id, body.use_only)))
