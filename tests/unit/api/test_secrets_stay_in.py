"""Nothing readable of a connection's details leaves the platform but by an audited reveal."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from platform_kit import open_platform

from bettong.secrets.keyring import KeyRing

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from platform_kit import Api, Platform

MARK = "s3cr3t-marker-71c"
API = "/v1/api/connections"


def test_no_answer_log_line_or_file_holds_a_secret_whatever_is_asked(
    api: Api, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    details = {"uri": f"mongodb://user:{MARK}@host", "nested": [{"password": MARK}]}
    workspace = platform.workspace("bob")
    made = api.ok("bob", f"{API}/create", {"name": "atlas", "type": "mongodb", "details": details})

    bodies = [
        api.post("bob", f"{API}/create", {"name": "atlas", "type": "x", "details": details}),  # taken
        api.post("bob", f"{API}/create", {"name": 1, "type": "x", "details": details}),
        api.post("bob", f"{API}/create", {"type": "x", "details": MARK}),
        api.post("bob", f"{API}/create", {"name": MARK * 20, "type": "x"}),
        api.send("bob", "POST", f"{API}/create", content=f'{{"details": "{MARK}'.encode()),
        api.send("bob", "POST", f"{API}/create?token={MARK}", json={"name": MARK + "\n", "type": "t"}),
        api.send("bob", "GET", f"{API}/get?password={MARK}"),
        api.post("bob", f"{API}/get", {"name": "atlas", "reveal": False}),
        api.post("bob", f"{API}/get_by_id", {"id": made["id"], "reveal": False}),
        api.post("bob", f"{API}/list"),
        api.post("bob", f"{API}/add_to_workspace", {"workspace_id": workspace, "connection_id": made["id"]}),
        api.post("bob", f"{API}/list", {"workspace_id": workspace}),
        api.post("eve", f"{API}/get", {"name": "atlas", "reveal": True}),
        api.send("bob", "GET", "/v1/api/platform/status"),
    ]

    assert not [b.text for b in bodies if MARK in b.text]
    assert MARK not in caplog.text
    assert not [p for p in platform.home.rglob("*") if p.is_file() and MARK.encode() in p.read_bytes()]
    assert not [e for e in platform.stores.audit.of_subject("connection", made["id"]) if MARK in str(e)]
    assert api.ok("bob", f"{API}/get", {"name": "atlas", "reveal": True})["details"] == details


def test_tokens_stand_in_no_log_line_and_no_file(
    api: Api, platform: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = platform.tokens["bob"]
    access = api.ok("bob", "/v1/api/auth/token")["access_token"]
    api.ok(access, "/v1/api/workspaces/list")
    api.send(None, "GET", f"/v1/api/config?token={token}", headers={"Authorization": f"Bearer {token}x"})

    for secret in (token, access):
        assert secret not in caplog.text
        assert secret not in repr(platform.services.identity.exchange(platform.principal("bob")))
        assert not [p for p in platform.home.rglob("*") if p.is_file() and secret.encode() in p.read_bytes()]


def test_without_its_key_a_connection_is_listed_and_named_but_not_revealed(tmp_path: Path) -> None:
    with open_platform(tmp_path) as before, before.api() as api:
        api.ok("bob", f"{API}/create", {"name": "atlas", "type": "mongodb", "details": {"password": MARK}})
        key_id = before.keyring.key_ids[0]

    with open_platform(tmp_path, keyring=KeyRing([b"k" * 32])) as after, after.api() as api:
        token = after.tokens["ann"]
        listed = api.ok("ann", f"{API}/list")["connections"]
        answered = api.post("ann", f"{API}/get", {"name": "atlas", "reveal": True})
        status = api.send(token, "GET", "/v1/api/platform/status").json()
        strangers = api.send("eve", "GET", "/v1/api/platform/status").json()
        reasons = after.services.connections.unreadable_reasons()
        audited = [e.action for e in after.stores.audit.of_subject("connection", listed[0]["id"])]

    assert [c["name"] for c in listed] == ["atlas"]
    assert answered.status_code == 503
    assert "retry-after" in answered.headers
    assert "Connection 'atlas' cannot be opened" in answered.json()["msg"]
    assert key_id in answered.json()["msg"]
    assert status["unreadable_connections"] == ["atlas"]
    assert status["warnings"] == reasons
    assert strangers["unreadable_connections"] == strangers["warnings"] == []
    assert len(reasons) == 1
    assert "connection.reveal" not in audited


def test_a_reveal_that_cannot_be_audited_does_not_happen(
    api: Api, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.ok("bob", f"{API}/create", {"name": "atlas", "type": "mongodb", "details": {"password": MARK}})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(platform.stores.audit), "record", full)
    answered = api.post("bob", f"{API}/get", {"name": "atlas", "reveal": True})

    assert (answered.status_code, answered.json()["error"]) == (507, "storage_full")
    assert MARK not in answered.text
