"""Connections: secrets are asked for, and shown nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from unit.wallaroo.stub import CREATED, UUIDS, WORKSPACE, Reply, StubPlatform, error

from wallaroo.object import EntityNotFoundError, RequestRefused
from wallaroo.workspace import Workspace

if TYPE_CHECKING:
    from wallaroo import Client

ROOT = "/v1/api/connections"
DETAILS = {"uri": "mongodb://u:hunter2@host", "port": 5, "nested": {"null": None}}


def record(name: str = "my conn", *workspaces: str, **more: Any) -> dict[str, Any]:
    return {
        "id": UUIDS[1],
        "name": name,
        "type": "HTTP",
        "created_at": CREATED,
        "workspace_names": list(workspaces),
        **more,
    }


def test_create_sends_exactly_three_keys_and_fetches_the_rest_when_asked(
    client: Client, platform: StubPlatform
) -> None:
    platform.on(f"{ROOT}/create", {"id": UUIDS[1]})
    platform.on(f"{ROOT}/get_by_id", record())

    made = client.create_connection("my conn", "BIGQUERY", {"a": 1})

    assert platform.calls(f"{ROOT}/create")[0].json == {"name": "my conn", "type": "BIGQUERY", "details": {"a": 1}}
    assert platform.calls(f"{ROOT}/get_by_id") == []
    assert made.created_at() == CREATED
    assert platform.calls(f"{ROOT}/get_by_id")[0].json == {"id": UUIDS[1], "reveal": False}


def test_details_are_revealed_once_per_object_and_only_on_demand(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/get", record())
    platform.on(f"{ROOT}/get_by_id", record(details=DETAILS))

    connection = client.get_connection("my conn")
    assert platform.calls(f"{ROOT}/get")[0].json == {"name": "my conn", "reveal": False}
    first = connection.details()
    first["port"] = 6

    assert connection.details() == DETAILS
    assert [asked.json for asked in platform.calls(f"{ROOT}/get_by_id")] == [{"id": UUIDS[1], "reveal": True}]


def test_no_form_of_a_connection_shows_its_details(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"connections": [record(details=DETAILS)]})
    platform.on(f"{ROOT}/get_by_id", record(details=DETAILS))

    listed = client.list_connections()
    assert listed[0].details() == DETAILS

    for shown in (repr(listed), repr(listed[0]), listed._repr_html_(), listed[0]._repr_html_()):
        assert "*****" in shown
        assert "hunter2" not in shown


def test_the_table_has_its_rows_in_order_and_escapes(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/get", record("<b>x</b>", "forecast"))
    assert client.get_connection("<b>x</b>")._repr_html_() == (
        "<table><tr><th>Field</th><th>Value</th></tr>"
        "<tr><td>Name</td><td>&lt;b&gt;x&lt;/b&gt;</td></tr>"
        "<tr><td>Connection Type</td><td>HTTP</td></tr>"
        "<tr><td>Details</td><td>*****</td></tr>"
        "<tr><td>Created At</td><td>2024-29-Oct 20:52:00</td></tr>"
        "<tr><td>Linked Workspaces</td><td>[&#x27;forecast&#x27;]</td></tr></table>"
    )


def test_lists_are_of_the_platform_or_of_a_workspace(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"connections": [record("a"), record("b")]}, {"connections": []})

    assert [connection.name() for connection in client.list_connections()] == ["a", "b"]
    empty = Workspace(client, WORKSPACE).list_connections()

    assert [asked.json for asked in platform.calls(f"{ROOT}/list")] == [{}, {"workspace_id": 8}]
    assert empty._repr_html_() == repr(empty) == "(no connections)"


def test_a_list_may_be_had_in_pages(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"connections": [record("a"), record("b")]})

    page = client.list_connections(limit=2)
    client.list_connections(2, page[-1])
    Workspace(client, WORKSPACE).list_connections(after=page[-1].id())

    assert [asked.json for asked in platform.calls(f"{ROOT}/list")] == [
        {"limit": 2},
        {"limit": 2, "after": UUIDS[1]},
        {"workspace_id": 8, "after": UUIDS[1]},
    ]


def test_a_taken_name_says_so_once_and_how_to_change_what_has_it(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/create", error(409, "Connection 'x' exists."), error(400, "Details must be an object."))
    with pytest.raises(RequestRefused) as taken:
        client.create_connection("x", "HTTP", {})
    with pytest.raises(RequestRefused) as bad:
        client.create_connection("x", "HTTP", {})
    first_words = "This connection already exists.  Please choose a different connection name."
    assert str(taken.value) == (
        f"{first_words} To change the one that there is: wl.get_connection('x').update({{…}}), or .rotate({{…}}), "
        "which tests it first."
    )
    assert taken.value.code == 409
    assert str(bad.value) == "Failed to create connection: Details must be an object."


@pytest.mark.parametrize("details", ["hunter2", ["hunter2"], 7])
def test_details_that_are_no_dict_are_refused_with_what_they_should_be(
    client: Client, platform: StubPlatform, details: Any
) -> None:
    with pytest.raises(RequestRefused) as caught:
        client.create_connection("x", "HTTP", details)
    assert str(caught.value) == (
        f"Failed to create connection: The details of connection 'x' are of type {type(details).__name__}. "
        'Pass a dict, such as {"url": "https://example.org/rows.json"}.'
    )
    assert caught.value.code == 400
    assert platform.calls(f"{ROOT}/create") == []


def test_an_unknown_name_is_not_found(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/get", error(404, "There is no connection 'x'."), error(500, "Broken."))
    with pytest.raises(EntityNotFoundError, match="Failed to get connection 'x': There is no connection"):
        client.get_connection("x")
    with pytest.raises(RequestRefused, match="Failed to get connection: Broken"):
        client.get_connection("x")


def test_links_and_deletes_go_over_and_refused_ones_raise(client: Client, platform: StubPlatform) -> None:
    workspace = Workspace(client, WORKSPACE)
    platform.on(f"{ROOT}/get", record())
    platform.on(f"{ROOT}/add_to_workspace", {"id": UUIDS[5]}, error(403, "Not yours."))
    platform.on(f"{ROOT}/remove_from_workspace", Reply(b"", 204))
    platform.on(f"{ROOT}/delete", Reply(b"", 204), error(500, "Disk is full."))

    workspace.add_connection("my conn")
    workspace.remove_connection("my conn")
    client.get_connection("my conn").delete_connection()

    linked = {"workspace_id": 8, "connection_id": UUIDS[1]}
    assert platform.calls(f"{ROOT}/add_to_workspace")[0].json == linked
    assert platform.calls(f"{ROOT}/remove_from_workspace")[0].json == linked
    assert platform.calls(f"{ROOT}/delete")[0].json == {"name": "my conn"}
    with pytest.raises(RequestRefused, match=r"Failed to add connection to workspace\. Not yours"):
        workspace.add_connection("my conn")
    with pytest.raises(RequestRefused, match=r"Failed to delete connection\. Disk is full"):
        client.get_connection("my conn").delete_connection()


def test_a_refused_reveal_says_why(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/get", record())
    platform.on(f"{ROOT}/get_by_id", error(503, "No key opens this connection."))
    with pytest.raises(RequestRefused, match="No key opens this connection"):
        client.get_connection("my conn").details()
