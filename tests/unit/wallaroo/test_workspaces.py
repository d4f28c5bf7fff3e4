"""Workspaces and people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.wallaroo.stub import CREATED, UPDATED, UUIDS, WORKSPACE, StubPlatform, error

from wallaroo.object import EntityNotFoundError, InvalidNameError, RequestRefused, UserLimitError
from wallaroo.workspace import Workspace

if TYPE_CHECKING:
    from wallaroo import Client

ROOT = "/v1/api/workspaces"
LISTED = {**WORKSPACE, "models": [1, 2], "pipelines": [4], "users": ["ann@example.org"]}


def user(**more: Any) -> dict[str, Any]:
    return {"id": UUIDS[9], "email": "ann@example.org", "username": "ann", "enabled": True, **more}


def test_get_workspace_finds_exactly_that_name_or_makes_it(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"workspaces": [LISTED]})
    platform.on(f"{ROOT}/create", {"workspace_id": 9})

    assert client.get_workspace("forecast").id() == 8
    assert client.get_workspace("other", create_if_not_exist=True).id() == 9
    with pytest.raises(EntityNotFoundError, match=r"Forecast does not exist.*create_if_not_exist=True"):
        client.get_workspace("Forecast")


def test_create_workspace_checks_the_name_and_keeps_the_servers_reason(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/create", error(409, "Workspace 'forecast' exists."))
    with pytest.raises(RequestRefused) as caught:
        client.create_workspace("forecast")
    assert str(caught.value) == "Failed to create workspace. Workspace 'forecast' exists."
    for name in ("1a", "a_b", "a.b", "a-", "-a", "é", "a b", "", "a" * 64):
        with pytest.raises(InvalidNameError, match="must be DNS-compatible"):
            client.create_workspace(name)
    assert len(platform.calls(f"{ROOT}/create")) == 1


def test_the_current_workspace_is_the_default_one_until_another_is_set(client: Client, platform: StubPlatform) -> None:
    assert client.get_current_workspace().id() == 8
    other = Workspace(client, {**WORKSPACE, "id": 9})
    assert client.set_current_workspace(other) is other
    assert client.get_current_workspace() is other
    assert len(platform.calls(f"{ROOT}/default")) == 1
    with pytest.raises(TypeError, match="Workspace type was expected"):
        client.set_current_workspace("forecast")  # type: ignore[arg-type]


def test_a_workspace_shows_as_the_text_of_a_dict_in_the_documented_order(
    client: Client, platform: StubPlatform
) -> None:
    model = {"name": "m", "versions": 3, "owner_id": '""', "last_update_time": UPDATED, "created_at": CREATED}
    entries = {"model_entries": [model], "pipeline_entries": [{"name": "p", "create_time": CREATED}]}
    platform.on(f"{ROOT}/get", {**LISTED, **entries})

    shown = repr(Workspace(client, WORKSPACE))

    when = "datetime.datetime(2024, 10, 29, {}, tzinfo=datetime.timezone.utc)"
    assert shown == (
        f"{{'name': 'forecast', 'id': 8, 'archived': False, 'created_by': '{UUIDS[9]}', 'created_at': '{CREATED}', "
        f"""'models': [{{'name': 'm', 'versions': 3, 'owner_id': '""', """
        f"'last_update_time': {when.format('21, 36, 20')}, 'created_at': {when.format('20, 52, 0, 744998')}}}], "
        f"'pipelines': [{{'name': 'p', 'create_time': {when.format('20, 52, 0, 744998')}, 'definition': '[]'}}]}}"
    )


def test_the_list_counts_models_and_pipelines(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"workspaces": [LISTED]})
    assert client.list_workspaces()._repr_html_() == (
        "<table><tr><th>Name</th><th>Created At</th><th>Users</th><th>Models</th><th>Pipelines</th></tr>"
        "<tr><td>forecast</td><td>2024-29-Oct 20:52:00</td><td>[&#x27;ann@example.org&#x27;]</td>"
        "<td>2</td><td>1</td></tr></table>"
    )


def test_members_are_added_removed_and_listed(client: Client, platform: StubPlatform) -> None:
    taken = "User ann@example.org, already exists in workspace forecast"
    platform.on(f"{ROOT}/add_user", {}, {}, error(409, taken), error(404, "Nobody has this address."))
    platform.on(f"{ROOT}/remove_user", {"affected_rows": 1}, error(409, "Last user of a workspace cannot be removed"))
    members = [{"user_id": UUIDS[9], "email": "ann@example.org"}, {"user_id": UUIDS[8], "email": None}]
    platform.on(f"{ROOT}/list_users", {"users": members})
    workspace = Workspace(client, WORKSPACE)

    workspace.add_user("ann@example.org").add_owner("ann@example.org").remove_user("ann@example.org")

    kinds = [asked.json["user_type"] for asked in platform.calls(f"{ROOT}/add_user")]
    assert kinds == ["COLLABORATOR", "OWNER"]
    assert workspace.users() == ["ann@example.org", "Removed User"]
    with pytest.raises(RequestRefused) as caught:
        workspace.add_user("ann@example.org")
    assert str(caught.value) == taken
    with pytest.raises(EntityNotFoundError, match="User not found"):
        workspace.add_user("bob@example.org")
    with pytest.raises(RequestRefused, match="Last user of a workspace cannot be removed"):
        workspace.remove_user("ann@example.org")


def test_people_are_found_invited_and_switched(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/users/query", {"users": {UUIDS[9]: user()}})
    platform.on("/v1/api/users/invite", error(403, "No more seats."))
    platform.on("/v1/api/users/deactivate", {}, error(404, "Nobody."))

    found = client.get_user_by_email("ann@example.org")
    assert (
        repr(found) == f"User({{'id': '{UUIDS[9]}', 'email': 'ann@example.org', 'username': 'ann', 'enabled': True}})"
    )
    assert client.get_user_by_email("bob@example.org") is None
    assert client.get_email_by_id(UUIDS[9]) == "ann@example.org"
    assert client.invite_user("ann@example.org").id() == UUIDS[9]
    with pytest.raises(UserLimitError, match="No more seats"):
        client.invite_user("bob@example.org")
    client.deactivate_user("ann@example.org")
    with pytest.raises(EntityNotFoundError, match="User not found: bob"):
        client.deactivate_user("bob@example.org")
