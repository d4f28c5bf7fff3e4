"""A change of the platform's key: everything sealed follows, what cannot is told, and nothing is lost on the way."""

from __future__ import annotations

import base64
import stat
from typing import TYPE_CHECKING, Any

import pytest
from platform_kit import Api, Platform, open_platform

from bettong.secrets.details import open_details
from bettong.secrets.keyring import KEY_FILE, KeyRing, open_ring
from bettong.services.deployment_specs import binding
from bettong.services.engine_configs import opened

if TYPE_CHECKING:
    from pathlib import Path

ROOT = "/v1/api/connections"
KEYS = "/v1/api/platform/keys"
SECRET = "correct horse"


def create(api: Api, name: str, **details: Any) -> str:
    body = {"name": name, "type": "MEMORY", "details": details or {"password": SECRET}}
    made: str = api.ok("ann", f"{ROOT}/create", body)["id"]
    return made


def walk(api: Api, limit: int = 2) -> dict[str, Any]:
    """A whole walk in steps of `limit`: the counts of all together."""
    told: dict[str, Any] = {"resealed": 0, "already": 0, "unopened": []}
    after = None
    while True:
        step = api.ok("ann", f"{KEYS}/reseal", {"after": after, "limit": limit})
        told = {name: told[name] + step[name] for name in told}
        if (after := step["after"]) is None:
            return told


def reread(platform: Platform) -> KeyRing:
    """The ring that the next start would have."""
    return open_ring(platform.home / "keys", (), sealed_rows_exist=True)


def deployed(platform: Platform, value: str) -> int:
    """The id of a deployment whose worker has a sealed variable."""
    workspace = platform.workspace("ann")
    model = platform.model("ann", workspace)
    version = platform.pipeline("ann", workspace, model)
    uid = f"{model.name}-{model.id}"
    config = {"engine": {}, "engineAux": {"images": {uid: {"env": [{"name": "TOKEN", "value": value}]}}}}
    row, _ = platform.services.deployments.deploy(
        platform.principal("ann"), "rental", config, pipeline_version_id=version.id
    )
    return row.id


def test_every_sealed_value_follows_a_new_key(api: Api, platform: Platform) -> None:
    made = [create(api, f"c{n}") for n in range(5)]
    api.ok("ann", f"{ROOT}/update", {"id": made[0], "details": {"port": 1}})
    deployment = deployed(platform, "of the worker")
    (old,) = platform.keyring.key_ids

    new = api.ok("ann", f"{KEYS}/add")["id"]
    told = walk(api)

    assert told == {"resealed": 7, "already": 0, "unopened": []}
    assert walk(api) == {"resealed": 0, "already": 7, "unopened": []}
    assert api.ok("ann", f"{KEYS}/list") == {
        "from_file": True,
        "keys": [
            {"id": new, "seals": True, "known": True, "values": 7},
            {"id": old, "seals": False, "known": True, "values": 0},
        ],
        "old_form": 0,
    }
    only_new = KeyRing([base64.b64decode((platform.home / "keys" / KEY_FILE).read_text().split()[0])])
    for connection in made:
        assert SECRET.encode() in open_details(only_new, platform.stores.connections.sealed(connection))
    row = platform.stores.deployments.get(deployment)
    assert "of the worker" in str(opened(row.engine_config, only_new, binding(row.pipeline_id)))
    assert only_new.open(platform.stores.facts.get("key-canary") or b"", bound_to="key-canary")


def test_a_new_key_is_in_the_file_before_anything_lies_under_it(api: Api, platform: Platform) -> None:
    file = platform.home / "keys" / KEY_FILE
    before = create(api, "before")
    first = file.read_text()

    new = api.ok("ann", f"{KEYS}/add")["id"]
    after = create(api, "after")

    ring = reread(platform)
    assert ring.key_ids == (new, *platform.keyring.key_ids[1:])
    assert file.read_text().endswith(first)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    for connection in (before, after):
        assert open_details(ring, platform.stores.connections.sealed(connection))


def test_a_walk_that_was_cut_short_is_walked_again_and_counts_what_was_left(api: Api, platform: Platform) -> None:
    for number in range(5):
        create(api, f"c{number}")
    api.ok("ann", f"{KEYS}/add")
    api.ok("ann", f"{KEYS}/reseal", {"limit": 2})

    assert walk(api) == {"resealed": 3, "already": 2, "unopened": []}


def test_what_does_not_open_is_told_with_its_key_and_left_as_it_is(api: Api, platform: Platform) -> None:
    fine, lost = create(api, "fine"), create(api, "lost")
    foreign = KeyRing([b"x" * 32])
    sealed = platform.stores.connections.sealed(lost)
    foreign_bytes = foreign.seal(b"{}", bound_to=f"{lost}/1")
    platform.stores.connections.reseal(sealed, foreign_bytes)
    api.ok("ann", f"{KEYS}/add")

    told = walk(api)

    assert (told["resealed"], told["already"]) == (1, 0)
    (reason,) = told["unopened"]
    assert "Connection 'lost', version 1" in reason
    assert foreign.key_ids[0] in reason
    assert platform.stores.connections.sealed(lost).sealed == foreign_bytes
    keys = {key["id"]: key for key in api.ok("ann", f"{KEYS}/list")["keys"]}
    assert keys[foreign.key_ids[0]] == {"id": foreign.key_ids[0], "seals": False, "known": False, "values": 1}
    assert api.ok("ann", f"{ROOT}/get_by_id", {"id": fine, "reveal": True})["details"] == {"password": SECRET}


def test_values_of_the_form_without_versions_take_the_new_one(api: Api, platform: Platform) -> None:
    made = create(api, "old")
    kept = platform.stores.connections.sealed(made)
    platform.stores.connections.reseal(kept, platform.keyring.seal(b'{"a": 1}', bound_to=made))
    assert api.ok("ann", f"{KEYS}/list")["old_form"] == 1
    assert api.ok("ann", f"{ROOT}/get_by_id", {"id": made, "reveal": True})["details"] == {"a": 1}

    assert walk(api) == {"resealed": 1, "already": 0, "unopened": []}  # also without a new key

    assert api.ok("ann", f"{KEYS}/list")["old_form"] == 0
    assert api.ok("ann", f"{ROOT}/get_by_id", {"id": made, "reveal": True})["details"] == {"a": 1}


def test_keys_given_from_outside_are_not_added_to_and_the_way_is_told(tmp_path: Path) -> None:
    ring = KeyRing([b"n" * 32, b"o" * 32])
    with open_platform(tmp_path, keyring=ring, keys_from_outside=True) as platform, platform.api() as api:
        create(api, "c")
        refused = api.post("ann", f"{KEYS}/add")

        assert refused.status_code == 400
        assert "bettong keys new" in refused.json()["msg"]
        assert not api.ok("ann", f"{KEYS}/list")["from_file"]
        assert walk(api) == {"resealed": 0, "already": 1, "unopened": []}
        assert platform.keyring.key_ids == ring.key_ids


def test_keys_that_are_not_whole_are_not_added_to(api: Api, platform: Platform) -> None:
    (platform.home / "keys" / KEY_FILE).chmod(0o644)

    refused = api.post("ann", f"{KEYS}/add")

    assert refused.status_code == 400
    assert "chmod 600" in refused.json()["msg"]
    assert len(platform.keyring.key_ids) == 1


@pytest.mark.parametrize("after", ["rubbish", "connections", "connections:x", "users:1", "connections:-1"])
def test_a_place_that_is_none_is_refused(api: Api, after: str) -> None:
    refused = api.post("ann", f"{KEYS}/reseal", {"after": after})
    assert (refused.status_code, "Begin again" in refused.json()["msg"]) == (400, True)


def test_what_was_done_with_keys_is_in_the_audit_without_a_key(api: Api, platform: Platform) -> None:
    new = api.ok("ann", f"{KEYS}/add")["id"]
    walk(api)

    events = platform.stores.audit.of_subject("keys", new)

    assert [event.action for event in events] == ["keys.rotate", "keys.add"]
    assert {event.email for event in events} == {"ann@example.org"}
