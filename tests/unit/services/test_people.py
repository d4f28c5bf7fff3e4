"""Users, tokens and workspaces."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bettong.domain.identity import Role
from bettong.errors import BadInput, Conflict, NotFound, Unauthenticated
from bettong.services.connections import deeper_than, to_bytes

if TYPE_CHECKING:
    from platform_kit import Platform


def test_the_owner_is_made_once_and_found_again(platform: Platform) -> None:
    identity = platform.services.identity
    first = identity.ensure_owner("ann@example.org", "ann", platform.tokens["ann"])

    assert identity.ensure_owner("Ann@example.org", "ann", "bt_second") == first
    assert identity.authenticate("bt_second", "here").is_admin
    assert identity.authenticate(platform.tokens["ann"], "here").origin == "here"
    with pytest.raises(Conflict, match="no administrator"):
        identity.ensure_owner("bob@example.org", "bob", "bt_third")
    with pytest.raises(Unauthenticated):
        identity.authenticate("bt_third", "")


def test_an_invited_address_is_one_user_whatever_its_case(platform: Platform) -> None:
    identity, ann = platform.services.identity, platform.principal("ann")
    made = identity.invite(ann, "New@example.org")

    assert identity.invite(ann, "new@EXAMPLE.org") == made
    assert made.is_admin is False
    with pytest.raises(BadInput, match="no login by password"):
        identity.invite(ann, "x@example.org", password="p")
    for wrong in ("nobody", "a b@c", "@c", "a@", "a\n@c", "a@b@c"):
        with pytest.raises(BadInput, match="not an e-mail address"):
            identity.invite(ann, wrong)
    with pytest.raises(NotFound):
        identity.invite(platform.principal("bob"), "y@example.org")


def test_an_administrator_gives_a_user_a_token_which_is_told_once_and_audited(platform: Platform) -> None:
    identity, ann, bob = platform.services.identity, platform.principal("ann"), platform.principal("bob")

    token, user = identity.create_token(ann, "BOB@example.org", "his notebook")

    assert identity.authenticate(token, "here").user_id == user.id == bob.user_id
    newest, *_ = platform.stores.audit.of_subject("user", bob.user_id)
    assert (newest.action, newest.email) == ("user.token", "ann@example.org")
    assert token not in str(newest)
    with pytest.raises(NotFound, match="Invite the user first"):
        identity.create_token(ann, "who@example.org", "")
    with pytest.raises(NotFound, match="administrator"):
        identity.create_token(bob, "ann@example.org", "")
    identity.set_enabled(ann, bob.email, False)
    with pytest.raises(BadInput, match="deactivated"):
        identity.create_token(ann, bob.email, "")


def test_nobody_locks_themselves_out(platform: Platform) -> None:
    with pytest.raises(BadInput, match="cannot deactivate yourself"):
        platform.services.identity.set_enabled(platform.principal("ann"), "ANN@example.org", False)
    with pytest.raises(NotFound):
        platform.services.identity.set_enabled(platform.principal("ann"), "who@example.org", True)


def test_the_audit_names_who_changed_whom(platform: Platform) -> None:
    bob = platform.principal("bob")
    platform.services.identity.set_enabled(platform.principal("ann"), bob.email, False)

    newest, *_ = platform.stores.audit.of_subject("user", bob.user_id)
    assert (newest.action, newest.email, newest.origin) == ("user.deactivate", "ann@example.org", "192.0.2.7")


def test_a_workspace_keeps_its_last_member_and_a_default_one_its_owner(platform: Platform) -> None:
    workspaces = platform.services.workspaces
    shared = platform.workspace("bob")
    home = workspaces.default(platform.principal("bob"))
    bob = platform.principal("bob")
    assert home.name == "bob@example.org - Default Workspace"
    assert workspaces.default(bob) == home

    with pytest.raises(Conflict, match="Last user of a workspace cannot be removed"):
        workspaces.remove_user(bob, shared, email="bob@example.org", user_id=None)
    workspaces.add_user(bob, home.id, email="eve@example.org", user_id=None, role=Role.COLLABORATOR)
    with pytest.raises(Conflict, match="own default workspace"):
        workspaces.remove_user(bob, home.id, email=None, user_id=bob.user_id)
    eve = platform.principal("eve")
    assert workspaces.remove_user(bob, home.id, email=None, user_id=eve.user_id) == 1
    assert workspaces.remove_user(bob, home.id, email=None, user_id=eve.user_id) == 0


def test_owners_manage_members_and_collaborators_do_not(platform: Platform) -> None:
    workspaces, workspace = platform.services.workspaces, platform.workspace("bob")
    bob = platform.principal("bob")
    workspaces.add_user(bob, workspace, email="EVE@example.org", user_id=None, role=Role.COLLABORATOR)

    with pytest.raises(Conflict, match=r"User eve@example\.org, already exists in workspace forecasts"):
        workspaces.add_user(bob, workspace, email="eve@example.org", user_id=None, role=Role.OWNER)
    eve = platform.principal("eve")
    with pytest.raises(NotFound, match="users you may change"):
        workspaces.add_user(eve, workspace, email="ann@example.org", user_id=None, role=Role.OWNER)
    with pytest.raises(NotFound, match="No user"):
        workspaces.add_user(bob, workspace, email="who@example.org", user_id=None, role=Role.OWNER)
    with pytest.raises(BadInput, match="Neither 'email' nor 'user_id'"):
        workspaces.add_user(bob, workspace, email=None, user_id=None, role=Role.OWNER)
    assert [m.role for m in workspaces.members(eve, workspace)] == [Role.OWNER, Role.COLLABORATOR]


def test_details_are_sealed_as_they_were_sent() -> None:
    assert to_bytes(None) == to_bytes({}) == b"{}"
    assert to_bytes({"b": 1, "a": 2**70, "x": 1e300}) == b'{"b":1,"a":1180591620717411303424,"x":1e+300}'
    others: list[object] = [[], "x", 1, True]
    for wrong in others:
        with pytest.raises(BadInput, match="The details of a connection are"):
            to_bytes(wrong)
    with pytest.raises(BadInput, match="NaN"):
        to_bytes({"a": float("nan")})


def test_depth_is_counted_without_recursion() -> None:
    nested: object = 1
    for _ in range(50_000):
        nested = [nested]

    assert deeper_than(nested, 100)
    assert not deeper_than({"a": [1, {"b": []}]}, 4)
    assert deeper_than({"a": [1, {"b": []}]}, 3)
    while isinstance(nested, list):  # taken apart by hand: freeing it at once would recurse
        nested = nested[0]
