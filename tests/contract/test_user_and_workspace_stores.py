"""What every user and workspace store promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from bettong.domain.identity import Member, Role
from bettong.errors import BadInput, Conflict, NotFound
from bettong.storage.stores import open_stores

if TYPE_CHECKING:
    from bettong.storage.stores import Stores

NOWHERE = 404_404


def test_a_user_is_found_by_id_and_by_address_without_case(stores: Stores) -> None:
    ann = stores.users.add("Ann@Example.com", "ann", is_admin=True)

    assert stores.users.get(ann.id) == ann
    assert stores.users.by_email("ann@example.COM") == ann
    assert stores.users.by_email("bob@example.com") is None
    assert ann.enabled
    assert ann.is_admin


def test_an_address_is_taken_once_whatever_its_case(stores: Stores) -> None:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)

    with pytest.raises(Conflict, match=r"'ANN@example\.com' exists already"):
        stores.users.add("ANN@example.com", "other", is_admin=False)

    assert stores.users.all() == [ann]


def test_users_are_listed_oldest_first(stores: Stores) -> None:
    made = [stores.users.add(f"{name}@example.com", name, is_admin=False) for name in "zay"]

    assert stores.users.all() == made


def test_a_token_leads_to_its_user_until_the_user_is_disabled(stores: Stores) -> None:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    stores.users.add_token(ann.id, b"hash", "laptop")
    stores.users.add_token(ann.id, b"hash", "laptop again")

    assert stores.users.by_token(b"hash") == ann
    assert stores.users.by_token(b"other") is None

    assert not stores.users.set_enabled(ann.id, False).enabled
    assert stores.users.by_token(b"hash") is None
    stores.users.set_enabled(ann.id, True)
    assert stores.users.by_token(b"hash") == ann


def test_unknown_users_are_not_found(stores: Stores) -> None:
    for call in (
        lambda: stores.users.get("nobody"),
        lambda: stores.users.set_enabled("nobody", False),
        lambda: stores.users.add_token("nobody", b"hash", ""),
        lambda: stores.workspaces.add("w", "nobody"),
    ):
        with pytest.raises(NotFound, match="No user has the id 'nobody'"):
            call()


def test_times_come_back_aware_and_to_the_microsecond(database_url: str) -> None:
    moment = datetime(2026, 3, 29, 1, 30, 0, 123457, tzinfo=UTC)
    elsewhere = moment.astimezone(ZoneInfo("Asia/Kathmandu"))

    with open_stores(database_url, clock=lambda: elsewhere) as stores:
        ann = stores.users.add("ann@example.com", "ann", is_admin=False)
        found = stores.users.get(ann.id).created_at

    assert found == moment
    assert found.utcoffset() == timedelta(0)


def test_the_owner_is_the_first_member_and_members_stand_in_order_of_joining(stores: Stores) -> None:
    ann, bob, cid = (stores.users.add(f"{name}@example.com", name, is_admin=False) for name in ("ann", "bob", "cid"))
    workspace = stores.workspaces.add("tutorial", ann.id)
    stores.workspaces.add_member(workspace.id, cid.id, Role.COLLABORATOR)
    stores.workspaces.add_member(workspace.id, bob.id, Role.OWNER)

    assert stores.workspaces.members(workspace.id) == [
        Member(ann, Role.OWNER),
        Member(cid, Role.COLLABORATOR),
        Member(bob, Role.OWNER),
    ]
    assert stores.workspaces.ids_of(bob.id) == {workspace.id}
    assert stores.workspaces.ids_of("nobody") == frozenset()


def test_a_workspace_name_is_taken_once_whatever_its_case_and_found_as_written(stores: Stores) -> None:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    first = stores.workspaces.add("Tutorial", ann.id)

    with pytest.raises(Conflict, match="A workspace 'tutorial' exists already"):
        stores.workspaces.add("tutorial", ann.id)

    assert stores.workspaces.all() == [first]
    assert stores.workspaces.by_name("Tutorial") == first
    assert stores.workspaces.by_name("tutorial") is None
    assert stores.workspaces.get(first.id) == first


def test_a_member_joins_once_and_leaves_once(stores: Stores) -> None:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)
    bob = stores.users.add("bob@example.com", "bob", is_admin=False)
    workspace = stores.workspaces.add("tutorial", ann.id)
    stores.workspaces.add_member(workspace.id, bob.id, Role.COLLABORATOR)

    with pytest.raises(Conflict, match=r"^User bob@example\.com, already exists in workspace tutorial$"):
        stores.workspaces.add_member(workspace.id, bob.id, Role.OWNER)

    assert stores.workspaces.remove_member(workspace.id, bob.id) == 1
    assert stores.workspaces.remove_member(workspace.id, bob.id) == 0
    assert [member.user for member in stores.workspaces.members(workspace.id)] == [ann]


def test_unknown_workspaces_are_not_found(stores: Stores) -> None:
    ann = stores.users.add("ann@example.com", "ann", is_admin=False)

    for call in (
        lambda: stores.workspaces.get(NOWHERE),
        lambda: stores.workspaces.members(NOWHERE),
        lambda: stores.workspaces.add_member(NOWHERE, ann.id, Role.OWNER),
        lambda: stores.models.models([NOWHERE]) or stores.pipelines.add(NOWHERE, "p", ann.id),
    ):
        with pytest.raises(NotFound, match=f"No workspace has the id {NOWHERE}"):
            call()


def test_half_a_surrogate_pair_is_bad_input_and_nothing_is_kept(stores: Stores) -> None:
    with pytest.raises(BadInput, match="cannot be stored"):
        stores.users.add("half \ud800", "x", is_admin=False)
    assert stores.users.all() == []


@pytest.mark.service
def test_a_nul_is_bad_input_where_the_database_has_no_room_for_it(postgres_url: str) -> None:
    with open_stores(postgres_url) as stores:
        with pytest.raises(BadInput, match="cannot be stored"):
            stores.users.add("nul \0", "x", is_admin=False)
        with pytest.raises(BadInput, match="cannot be stored"):
            stores.connections.by_name("nul \0")


def test_an_id_beyond_64_bits_is_answered_and_not_a_crash(stores: Stores) -> None:
    with pytest.raises((NotFound, BadInput)):
        stores.workspaces.get(2**70)
