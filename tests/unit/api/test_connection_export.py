"""What an export of connections holds, whose it is, and that it is answered for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.secrets.keyring import KeyRing

if TYPE_CHECKING:
    from platform_kit import Api, Platform

ROOT = "/v1/api/connections"
SECRET = "correct horse"
REFERENCE = {"$secret": "env:OTHER"}


def test_an_export_has_everything_but_secrets(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    details = {"database": "sales", "password": SECRET, "unknown": SECRET, "key": REFERENCE}
    made = api.ok("bob", f"{ROOT}/create", {"name": "c", "type": "Memory", "details": details})["id"]
    api.ok("bob", f"{ROOT}/create", {"name": "m", "type": "mongodb", "details": {"uri": SECRET, "n": [1]}})
    api.ok("bob", f"{ROOT}/set_use_only", {"id": made, "use_only": True})
    api.ok("bob", f"{ROOT}/add_to_workspace", {"workspace_id": workspace, "connection_id": made})

    whole = api.ok("bob", f"{ROOT}/export")
    of_workspace = api.ok("bob", f"{ROOT}/export", {"workspace_id": workspace})

    shown = {"database": "sales", "password": "*****", "unknown": "*****", "key": REFERENCE}
    first = {"name": "c", "type": "Memory", "use_only": True, "workspace_names": ["forecasts"], "details": shown}
    masked = {"uri": "*****", "n": ["*****"]}
    second = {"name": "m", "type": "mongodb", "use_only": False, "workspace_names": [], "details": masked}
    assert whole == {"connections": [first, second], "left_out": []}
    assert of_workspace == {"connections": [first], "left_out": []}
    events = api.ok("bob", f"{ROOT}/audit", {"id": made})["events"]
    assert [e["action"] for e in events[:2]] == ["connection.export"] * 2


def test_what_may_not_be_edited_or_does_not_open_is_left_out_by_name(api: Api, platform: Platform) -> None:
    workspace = platform.workspace("bob")
    made = api.ok("bob", f"{ROOT}/create", {"name": "c", "type": "Memory", "details": {"database": "sales"}})["id"]
    lost = api.ok("bob", f"{ROOT}/create", {"name": "lost", "type": "Memory", "details": {"database": "x"}})["id"]
    api.ok("bob", f"{ROOT}/add_to_workspace", {"workspace_id": workspace, "connection_id": made})
    api.ok("bob", "/v1/api/workspaces/add_user", {"workspace_id": workspace, "email": "eve@example.org"})
    sealed = KeyRing([b"x" * 32]).seal(b"{}", bound_to=f"{lost}/1")
    assert platform.stores.connections.reseal(platform.stores.connections.sealed(lost), sealed)

    members = api.ok("eve", f"{ROOT}/export")
    owners = api.ok("bob", f"{ROOT}/export")

    assert members["connections"] == []
    assert [left["name"] for left in members["left_out"]] == ["c"]
    assert "its creator and administrators may export it" in members["left_out"][0]["why"]
    assert [c["name"] for c in owners["connections"]] == ["c"]
    assert [left["name"] for left in owners["left_out"]] == ["lost"]
    assert "Connection 'lost' cannot be opened" in owners["left_out"][0]["why"]
